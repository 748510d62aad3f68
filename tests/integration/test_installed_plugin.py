"""Test a sweep over another package's parts, both installed as wheels outside the repository."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from sweep_command import Bench, Outcome
from sweep_file import make_text
from tracking_server import runs_by_key

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "aae_core", "orchestrator", "dashboards")
SWEEP = make_text(
    "own",
    model={"kind": "sliced_wasserstein", "prior": {"kind": "ring"}, "settings": {"weight": 0.5}},
    training={"epochs": 20, "batch_size": 10},
    search={
        "trials": 3,
        "space": {
            "model.settings.projections": {"int": [5, 50]},
            "model.prior.settings.width": {"float": [0.05, 0.5]},
        },
    },
    evaluate={"parzen": {"samples": 10_000, "screen_samples": 10_000}},
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with both wheels; the packages that they need are this one's."""
    folder = tmp_path_factory.mktemp("environment")
    (folder / "source").mkdir()
    for name in SOURCES:
        source, copy = ROOT / name, folder / "source" / name
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
    shutil.copytree(ROOT / "examples" / "plugin", folder / "plugin")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--wheel-dir", folder / "wheels"]
    for project in (folder / "source", folder / "plugin"):
        subprocess.run([*pip, "wheel", *offline, project], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "own"], check=True)
    [packages] = (folder / "own").glob("lib/*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    python = folder / "own" / "bin" / "python"
    wheels = sorted((folder / "wheels").glob("*.whl"))
    subprocess.run(
        [python, *pip[1:], "install", "--no-deps", "--no-index", "--ignore-installed", *wheels],
        check=True,
    )
    return folder / "own"


@pytest.fixture(scope="module")
def bench(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = Bench(tmp_path_factory.mktemp("own"), SWEEP)
    bench.command = environment / "bin" / "aae-sweep"
    return bench


@pytest.fixture(scope="module")
def done(bench: Bench) -> Outcome:
    """Kill the sweep's first driver, and run the sweep to its end."""
    with bench.started() as process:
        while not any(trial["epochs"] for trial in trials(bench)):
            assert process.poll() is None, process.communicate()
        process.kill()
    ended = bench.run()
    assert ended.code == 0, ended.err
    return ended


def trials(bench: Bench) -> list[dict[str, object]]:
    shown = bench.tell("show", "own", "--json")
    return list(shown.document["trials"]) if shown.code == 0 else []


def test_sweep_of_an_installed_plugin_resumes_and_ends(bench: Bench, done: Outcome) -> None:
    assert done.document["state"] == "done"
    found = trials(bench)
    assert [trial["state"] for trial in found] == ["complete"] * len(found)
    assert any(trial["attempts"] == 2 for trial in found)
    assert {"model.settings.projections", "model.prior.settings.width"} == found[0]["params"].keys()


def test_installed_wheel_has_the_shipped_sweeps(bench: Bench) -> None:
    folder = bench.folder / "elsewhere"
    folder.mkdir()
    assert bench.tell("validate", "likelihood_mnist_two_cores").code == 0
    ended = bench.tell("train", "quickstart", "--smoke", "--json")
    assert (ended.code, ended.lines[-1]["state"]) == (0, "complete"), ended.err
    file = folder / "mine.yaml"
    assert bench.tell("new", file).code == 0
    assert bench.tell("validate", file).code == 0


def test_results_of_an_installed_plugin_are_in_report_and_mlflow(
    bench: Bench, done: Outcome
) -> None:
    report = Path(done.document["report"]).read_text()
    assert "model.settings.projections" in report
    runs = runs_by_key(MlflowClient(bench.settings.tracking_uri), "own")
    of_trials = [run for run in runs.values() if run.data.tags["aae.stage"] != "sweep"]
    assert len(of_trials) == len(trials(bench))
    for run in of_trials:
        assert run.data.tags["aae.plugin.sliced_wasserstein"] == "aae-example 0.1.0"
        assert run.data.tags["aae.plugin.ring"] == "aae-example 0.1.0"
        assert run.data.params["model.settings.weight"] == "0.5"
        assert "train/sliced" in run.data.metrics
