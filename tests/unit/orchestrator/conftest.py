from homes import attentive, empty_database, empty_mlflow, new_home, settings, straw, undisturbed

__all__ = [
    "attentive",
    "empty_database",
    "empty_mlflow",
    "new_home",
    "settings",
    "straw",
    "undisturbed",
]
