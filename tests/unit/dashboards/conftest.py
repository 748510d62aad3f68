import pytest
from synthetic_sweep import make_view

from dashboards import build_report
from orchestrator.results.reader import SweepView


@pytest.fixture(scope="session")
def view(tmp_path_factory: pytest.TempPathFactory) -> SweepView:
    return make_view(tmp_path_factory.mktemp("view"))


@pytest.fixture(scope="session")
def report(view: SweepView) -> str:
    return build_report([view])
