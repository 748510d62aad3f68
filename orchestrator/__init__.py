"""The platform: sweeps over adversarial autoencoders, on Ray, Optuna and MLflow."""
