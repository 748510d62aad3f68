"""Test a sweep over another package's parts, both installed as wheels outside the repository."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest
from mlflow.tracking import MlflowClient
from sweep_command import Bench, Outcome
from sweep_file import make_text
from tracking_server import runs_by_key

ROOT = Path(__file__).parents[2]
SOURCES = (
    *("pyproject.toml", "README.md", "LICENSE", "constraints.txt"),
    *("aae_core", "orchestrator", "dashboards", "sweeps", "docker"),
)
SECRETS = ("docker/.env", "docker/secrets/ray_token")
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
OFFLINE = ["--no-deps", "--no-build-isolation"]
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
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with its links, and with secrets that belong in no package."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        original, copy = ROOT / name, folder / name
        if original.is_dir():
            shutil.copytree(original, copy, symlinks=True)
        else:
            shutil.copy(original, copy)
    for name in SECRETS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("a secret")
    return folder


@pytest.fixture(scope="module")
def wheels(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the distributions of `make dist`, with the wheel of the example's plugin."""
    folder = tmp_path_factory.mktemp("wheels")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source]
    subprocess.run(build, stdout=subprocess.DEVNULL, check=True)
    shutil.copytree(ROOT / "examples" / "plugin", folder / "plugin")
    subprocess.run([*PIP, "wheel", *OFFLINE, "--wheel-dir", folder, folder / "plugin"], check=True)
    return folder


@pytest.fixture(scope="module")
def environment(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with both wheels; the packages that they need are this one's."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "own"], check=True)
    [packages] = (folder / "own").glob("lib/*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    python = folder / "own" / "bin" / "python"
    install = ["install", "--no-deps", "--no-index", "--ignore-installed"]
    subprocess.run([python, *PIP[1:], *install, *sorted(wheels.glob("*.whl"))], check=True)
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


def contents(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel, without its description of itself."""
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info" not in name}


def test_wheel_of_the_source_distribution_equals_that_of_the_checkout(
    source: Path, wheels: Path, tmp_path: Path
) -> None:
    subprocess.run([*PIP, "wheel", *OFFLINE, "--wheel-dir", tmp_path, source], check=True)
    [of_checkout], [of_distribution] = tmp_path.glob("*.whl"), wheels.glob("aae_sweep-*.whl")
    assert contents(of_checkout) == contents(of_distribution)
    assert b"a secret" not in contents(of_checkout).values()
    [archive] = wheels.glob("*.tar.gz")
    with tarfile.open(archive) as distribution:
        assert not {name for name in distribution.getnames() if name.endswith(SECRETS)}


def test_installed_wheel_writes_the_cluster_with_an_equal_wheel(
    bench: Bench, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    ended = bench.tell("up", "--files-only")
    assert ended.code == 0, ended.err
    folder = Path(ended.out.strip())
    assert folder == tmp_path / "aae-sweep" / "cluster"
    for name in ("compose.yaml", "databases.sql", "image/Dockerfile", "image/constraints.txt"):
        assert (folder / name).read_bytes() == (ROOT / "docker" / name).read_bytes()
    [written], [built] = (folder / "image").glob("*.whl"), wheels.glob("aae_sweep-*.whl")
    assert contents(written) == contents(built)


def test_installed_wheel_reports_and_examines_the_machine(bench: Bench, done: Outcome) -> None:
    ended = bench.tell("report", "own", "--out", bench.folder / "page.html")
    assert ended.code == 0, ended.err
    assert "</html>" in (bench.folder / "page.html").read_text()
    checks = {c["check"]: c for c in bench.tell("doctor", "--json").document["checks"]}
    assert {"packages", "home", "study storage", "tracking", "Ray"} < checks.keys()
    # the packages of this environment may declare plugins whose sources that one does not see
    assert {c["check"] for c in checks.values() if not c["ok"]} <= {"plugins"}, checks


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
