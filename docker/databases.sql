-- One database and one user each for MLflow and for the studies; neither may enter the other's.
-- Safe to repeat: the passwords become those of the files again.
\set ON_ERROR_STOP on
\set mlflow `cut -d: -f5 /run/secrets/mlflow_pgpass`
\set studies `cut -d: -f5 /run/secrets/studies_pgpass`

SELECT format('CREATE ROLE %I', name) FROM unnest(ARRAY['mlflow', 'studies']) AS name
WHERE name NOT IN (SELECT rolname FROM pg_roles) \gexec
ALTER ROLE mlflow LOGIN PASSWORD :'mlflow';
ALTER ROLE studies LOGIN PASSWORD :'studies';

SELECT format('CREATE DATABASE %I OWNER %I', name, name) FROM unnest(ARRAY['mlflow', 'studies']) AS name
WHERE name NOT IN (SELECT datname FROM pg_database) \gexec
REVOKE CONNECT ON DATABASE mlflow, studies FROM PUBLIC;
