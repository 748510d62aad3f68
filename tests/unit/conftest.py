import pytest
import torch
from hypothesis import settings
from plugins import example, install, own_parts

__all__ = ["example", "install", "own_parts"]

settings.register_profile("busy machines", deadline=None)
settings.load_profile("busy machines")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Use one thread, whatever the last test left: small nets then run five times as fast."""
    torch.set_num_threads(1)
