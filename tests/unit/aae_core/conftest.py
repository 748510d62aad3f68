import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small nets are slower with more, and sums then depend on their number."""
    torch.set_num_threads(1)
