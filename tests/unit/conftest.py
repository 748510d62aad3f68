import pytest
import torch
from hypothesis import settings

settings.register_profile("busy machines", deadline=None)
settings.load_profile("busy machines")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Use one thread: small nets run faster, and sums do not depend on the thread count."""
    torch.set_num_threads(1)
