"""The folder of a cluster of containers: its files, secrets and the wheel for the image."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from orchestrator.errors import EnvironmentUnusable
from orchestrator.execution import containers

DOCKER = Path(__file__).parents[4] / "docker"


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "a user's $HOME" / "cluster"
    containers.write_files(folder)
    return folder


def test_cluster_folder_is_below_the_users_configuration(tmp_path: Path) -> None:
    found = containers.cluster_folder({"XDG_CONFIG_HOME": str(tmp_path)})
    assert found == tmp_path / "aae-sweep" / "cluster"
    assert containers.cluster_folder({}) == Path.home() / ".config" / "aae-sweep" / "cluster"


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_files_of_a_checkout_are_written_without_settings_and_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = tmp_path / "docker"
    kept = shutil.ignore_patterns(".env", "secrets", "wheels")
    shutil.copytree(DOCKER, packaged, ignore=kept)
    wanted = files_below(packaged)
    for name in (".env", "secrets/ray_token", "secrets.txt", "wheels/torch.whl"):
        (packaged / name).parent.mkdir(exist_ok=True)
        (packaged / name).write_text("a secret")
    monkeypatch.setattr(containers, "_PACKAGED", packaged)
    containers.write_files(tmp_path / "cluster")
    written = files_below(tmp_path / "cluster")
    made = {name for name in written if name.endswith((".whl", "cluster.env", "requirements.txt"))}
    assert len(made) == 3
    assert {name: data for name, data in written.items() if name not in made} == wanted


def test_wheel_has_exactly_the_cluster_files_that_up_writes(folder: Path) -> None:
    [wheel] = (folder / "image").glob("*.whl")
    with ZipFile(wheel) as archive:
        inside = {name.partition("/docker/")[2] for name in archive.namelist()} - {""}
    made = {f"image/{wheel.name}", "image/requirements.txt", "cluster.env"}
    assert inside == files_below(folder).keys() - made


def test_files_for_containers_are_readable_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        containers.write_files(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "databases.sql").stat().st_mode) == 0o644


def test_files_written_again_leave_settings_and_secrets_and_one_wheel(folder: Path) -> None:
    mine = [folder / ".env", folder / "secrets" / "ray_token", folder / "sweeps" / "mine.yaml"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (folder / "image" / "aae_sweep-0.0.1-py3-none-any.whl").write_text("an earlier version")
    (folder / "compose.yaml").write_text("an earlier version")
    containers.write_files(folder)
    assert [path.read_text() for path in mine] == ["mine"] * 3
    assert (folder / "compose.yaml").read_bytes() == (DOCKER / "compose.yaml").read_bytes()
    assert len([*(folder / "image").glob("*.whl")]) == 1


def test_requirements_are_those_of_the_package_and_of_a_cluster(folder: Path) -> None:
    names = (folder / "image" / "requirements.txt").read_text().split("\n")
    assert {"ray[tune]>=2.60", "torch>=2.13", "mlflow[auth]", "boto3>=1.35"} <= set(names)
    assert not any("pytest" in name or ";" in name for name in names)


def test_wheel_built_twice_has_equal_bytes_and_the_files_of_its_record(tmp_path: Path) -> None:
    wheels = [containers.write_wheel(tmp_path / name) for name in ("one", "other")]
    assert wheels[0].read_bytes() == wheels[1].read_bytes()
    with ZipFile(wheels[0]) as archive:
        names = archive.namelist()
        [record] = (name for name in names if name.endswith("/RECORD"))
        assert [r.split(",")[0] for r in archive.read(record).decode().splitlines()] == names
    assert not [name for name in names if "__pycache__" in name or "secrets" in name]


def test_wheel_installs_with_pip_and_starts_without_the_sources(tmp_path: Path) -> None:
    wheel, target = containers.write_wheel(tmp_path), tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", target, wheel], check=True)
    program = "import orchestrator; print(orchestrator.__file__)"
    found = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=os.environ | {"PYTHONPATH": str(target)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(target / "orchestrator" / "__init__.py")
    assert (target / "bin" / "aae-sweep").exists()


def test_secrets_are_created_once_and_only_for_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    containers.make_secrets(folder, os.getuid(), s3=False)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert len(set(made.values())) == len(made)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    (folder / "ray_token").unlink()
    containers.make_secrets(folder, os.getuid(), s3=False)
    again = {path.name: path.read_text() for path in folder.iterdir()}
    assert {name for name in made if made[name] != again[name]} == {"ray_token"}


def test_s3_store_needs_credentials_and_limits_them_to_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    with pytest.raises(EnvironmentUnusable, match="aws_access_key_id"):
        containers.make_secrets(folder, os.getuid(), s3=True)
    (folder / "s3_credentials").write_text("[default]\n")
    (folder / "s3_credentials").chmod(0o644)
    containers.make_secrets(folder, os.getuid(), s3=True)
    assert stat.S_IMODE((folder / "s3_credentials").stat().st_mode) == 0o600
    assert (folder / "s3_credentials").read_text() == "[default]\n"
