import pytest
from synthetic_sweep import make_view

from orchestrator.results.reader import SweepView


@pytest.fixture(scope="session")
def view(tmp_path_factory: pytest.TempPathFactory) -> SweepView:
    return make_view(tmp_path_factory.mktemp("view"))
