from homes import attentive, empty_database, empty_mlflow, new_home, settings, straw, undisturbed
from plugins import install, own_parts

__all__ = [
    "attentive",
    "empty_database",
    "empty_mlflow",
    "install",
    "new_home",
    "own_parts",
    "settings",
    "straw",
    "undisturbed",
]
