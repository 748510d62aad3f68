"""Test one tiny sweep through the command line, and every command that reads the sweep."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweep_command import PATIENCE, Bench, processes_of, wait_until_gone

from orchestrator.cli import main

HUGE = 2**31 - 1  # units: more than a machine has memory for
SWEEP = f"""\
name: tiny
data: {{name: digits}}
model: {{code_dim: 4, prior: {{std: 2.0}}, init_std: 0.15}}
training:
  epochs: 2
  reconstruction: {{optimizer: adam, lr: 5e-3}}
  adversarial: {{optimizer: adam, lr: 1e-3}}
search:
  trials: 3
  sampler: {{kind: grid}}
  space:
    model.hidden: {{choice: [[32], [48], [{HUGE}]]}}
confirm: {{seeds: 2, baseline: false}}
evaluate: {{parzen: {{samples: 2_000, screen_samples: 1_000}}}}
resources: {{cpu: 1, gpu: 0}}
"""
LEAVING_SECONDS = 4.0  # from SIGTERM to the end of the driver, on an idle machine
MAIN = [sys.executable, "-c", "from orchestrator.cli import main; main()"]


def start(home: Path, *arguments: object) -> subprocess.Popen[str]:
    environ = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "AAE_STUDY_URI")}
    return subprocess.Popen(
        [*MAIN, *map(str, arguments)],
        env=environ | {"AAE_HOME": str(home), "AAE_DATA": str(home / "data")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def aae(home: Path, *arguments: object) -> tuple[int, str, str]:
    process = start(home, *arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("command_line")


@pytest.fixture(scope="module")
def file(home: Path) -> Path:
    (home / "tiny.yaml").write_text(SWEEP)
    return home / "tiny.yaml"


@pytest.fixture(scope="module")
def ran(home: Path, file: Path) -> tuple[int, str, str]:
    return aae(home, "run", file, "--json")


@pytest.fixture(scope="module")
def sweep(ran: tuple[int, str, str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(ran[1])
    return document


def aae_here(home: Path, *arguments: object) -> tuple[int, str, str]:
    """Run a command in this process, where all imports are done."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("AAE_HOME", str(home))
        patch.setattr(sys, "argv", ["aae-sweep", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def read(home: Path, *arguments: object) -> Any:
    code, out, err = aae_here(home, *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def output(home: Path, *arguments: object) -> str:
    code, out, err = aae_here(home, *arguments)
    assert (code, err) == (0, "")
    return out


# -- run -------------------------------------------------------------------------------------


def test_run_prints_one_document_and_exits_3_for_failed_trials(
    ran: tuple[int, str, str], sweep: dict[str, Any], file: Path
) -> None:
    code, out, err = ran
    assert code == 3
    assert out.count("\n") == 1
    assert (sweep["sweep"], sweep["stage"], sweep["state"]) == ("tiny", "done", "done")
    assert sweep["id"] == f"tiny-{sweep['config_hash']}"
    ends = {"complete": 4, "pruned": 0, "diverged": 0, "failed": 1, "running": 0, "waiting": 0}
    assert sweep["trials"] == ends
    assert sweep["objective"] == {"metric": "val/parzen_ll", "direction": "maximize"}
    assert sweep["best"]["metric"] == "val/parzen_ll"
    assert isinstance(sweep["best"]["trial"], int)
    assert sweep["elapsed_seconds"] > 0
    assert sweep["unsynced"] == 0
    assert all(sweep["mlflow"][key] for key in ("experiment_id", "run_id"))
    assert Path(sweep["report"]).exists()
    assert sweep["resume"] == f"aae-sweep run {file}"
    stages = [line for line in err.splitlines() if line.endswith(("trials", "models"))]
    assert stages == ["search: 3 trials", "confirm: 2 trials", "evaluate: 2 models"]
    assert "can't allocate memory" in err


def test_run_of_a_done_sweep_has_nothing_to_do(
    home: Path, file: Path, sweep: dict[str, Any]
) -> None:
    code, out, err = aae(home, "run", file)
    assert code == 3
    assert err == f"{sweep['id']} is done; nothing to run\n"
    first, *_, again = out.splitlines()
    assert first.startswith(f"{sweep['id']}: done after ")
    assert again.split() == ["again", *sweep["resume"].split()]
    assert read(home, "status", "tiny") == sweep


def test_run_after_sigterm_exits_130_with_the_resume_command(home: Path, file: Path) -> None:
    process = start(home / "stopped", "run", file, "--set", "training.epochs=1000000")
    assert process.stderr is not None
    assert process.stderr.readline() == "search: 3 trials\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out == ""
    assert err.splitlines()[-1].endswith(
        f"Resume with: aae-sweep run {file} --set=training.epochs=1000000"
    )
    assert read(home / "stopped", "status")["state"] == "interrupted"


@pytest.mark.parametrize("moment", ["search: 3 trials", "epochs", "evaluate: "])
def test_driver_is_gone_soon_after_sigterm_where_epochs_are_short(
    tmp_path: Path, file: Path, moment: str
) -> None:
    """Batch systems send SIGKILL a few seconds after SIGTERM."""
    bench = Bench(tmp_path, file.read_text())
    sizes = [f"--set=evaluate.parzen.{key}=1_000_000" for key in ("samples", "screen_samples")]
    epochs = "2" if moment.startswith("evaluate") else "1_000_000"
    with bench.started(f"--set=training.epochs={epochs}", *sizes) as process:
        if moment == "epochs":
            bench.wait_for(process, lambda trials: any(t.epochs > 1 for t in trials))
        else:
            assert process.stderr is not None
            assert any(line.startswith(moment) for line in process.stderr)
        rays = processes_of(process, "")
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE)
        seconds = time.monotonic() - began
    assert process.returncode == 130, err
    load = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    assert seconds < LEAVING_SECONDS * max(1.0, load)
    assert "RUNNING" not in bench.mlflow_states().values()
    assert bench.ask("status")["state"] == "interrupted"
    wait_until_gone(rays)


# -- read ------------------------------------------------------------------------------------


def test_status_and_ls_agree_on_the_sweep(home: Path, sweep: dict[str, Any]) -> None:
    for name in ("latest", "tiny", sweep["id"], sweep["id"][:-3]):
        assert read(home, "status", name) == sweep
    (listed,) = read(home, "ls")
    assert listed.items() <= sweep.items()
    assert {"sweep", "id", "stage", "state", "trials", "best"} <= listed.keys()
    assert output(home, "status").startswith(f"{sweep['id']}  done\n")
    header, row = output(home, "ls").splitlines()
    assert header.split() == ["sweep", "state", "stage", "trials", "best", "time"]
    assert row.split()[:4] == [sweep["id"], "done", "done", "5/5"]


def test_show_lists_every_trial_with_its_state(home: Path, sweep: dict[str, Any]) -> None:
    document = read(home, "show", "tiny")
    assert document["sweep"] == sweep["id"]
    trials = document["trials"]
    assert [(t["stage"], t["number"]) for t in trials] == [
        *(("search", n) for n in range(3)),
        *(("confirm", n) for n in range(2)),
    ]
    for trial in trials:
        failed = trial["params"]["model.hidden"] == [HUGE]
        assert trial["state"] == ("failed" if failed else "complete")
        assert (trial["attempts"], trial["resumed_from"]) == (1, [])
        assert trial["epochs"] == trial["epochs_computed"] == (0 if failed else 2)
        assert trial["run_id"]
        assert trial["node"]
        assert trial["started"]
        if failed:
            assert "allocate" in trial["reason"]
        else:
            assert Path(trial["checkpoint"], "manifest.json").exists()
            assert math.isfinite(trial["metrics"]["val/parzen_ll"])
    seeds = [t["seed"] for t in trials]
    assert len(set(seeds)) == len(seeds)
    searched = [name for t in trials if t["stage"] == "search" for name in t["metrics"]]
    assert not any(name.startswith("test/") for name in searched)

    one = read(home, "show", "tiny", "confirm-0")
    history = one.pop("history")
    assert one == {"sweep": sweep["id"], **trials[3]}
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[-1]["val/parzen_ll"] == trials[3]["metrics"]["val/parzen_ll"]
    assert len(output(home, "show").splitlines()) == 6
    assert "val/parzen_ll" in output(home, "show", "tiny", "confirm-0")


def test_best_reports_mean_and_standard_error_over_seeds(home: Path, sweep: dict[str, Any]) -> None:
    best = read(home, "best", "tiny")
    assert best["confirmed"] is True
    assert len(best["seeds"]) == len(best["checkpoints"]) == len(best["run_ids"]) == 2
    assert best["params"].keys() == {"model.hidden"}
    assert len(best["data_sha256"]) == 64
    assert best["code_version"]
    assert best["tied_with"] == []
    assert [group["config_hash"] for group in best["groups"]] == [best["config_hash"]]
    for metric in ("val/parzen_ll", "test/parzen_ll", "test/recon"):
        figures = best["metrics"][metric]
        a, b = figures["values"]
        assert figures["mean"] == pytest.approx((a + b) / 2)
        assert figures["std"] == pytest.approx(abs(a - b) / math.sqrt(2))
        assert figures["se"] == pytest.approx(abs(a - b) / 2)
        low, high = figures["ci95"]
        assert high - low == pytest.approx(2 * 12.7062 * figures["se"], rel=1e-4)
    assert best["metrics"]["val/parzen_ll"]["mean"] == sweep["best"]["value"]
    assert "± is the standard error over seeds" in output(home, "best")


def test_export_and_report_write_their_files(home: Path, sweep: dict[str, Any]) -> None:
    out = home / "exported"
    document = read(home, "export", "tiny", "--out", out)
    assert document["sweep"] == sweep["id"]
    assert set(document["files"]) <= {path.name for path in out.iterdir()}
    assert json.loads((out / "best.json").read_text()) == read(home, "best")
    with (out / "trials.csv").open() as trials:
        assert len(list(csv.DictReader(trials))) == 5
    assert (out / "checkpoint" / "manifest.json").exists()
    assert (out / "report.html").exists()
    with (out / "curves.csv").open() as curves:
        rows = list(csv.DictReader(curves))
    confirmed = [t for t in read(home, "show", "tiny")["trials"] if t["stage"] == "confirm"]
    assert len(rows) == sum(trial["epochs"] for trial in confirmed)
    record = json.loads((out / "record.json").read_text())
    assert (record["state"], record["drivers"]) == ("done", 1)
    assert record["stages"]["confirm"]["trials"] == len(confirmed)
    assert record["stages"]["confirm"]["epochs_repeated"] == 0
    assert 0 < record["stages"]["confirm"]["train_hours"] < record["elapsed_hours"]
    assert record["versions"].keys() == {"aae-sweep", "numpy", "torch"}
    code, _, err = aae_here(home, "export", "tiny", "--out", out)
    assert code == 2
    assert err == f"{out} exists; name a new folder with --out\n"
    page = home / "page.html"
    assert read(home, "report", "tiny", "--out", page) == {"report": str(page)}
    assert "</html>" in page.read_text()


def test_export_figures_only_contains_no_weights_and_no_paths(
    home: Path, sweep: dict[str, Any]
) -> None:
    out = home / "figures"
    read(home, "export", "tiny", "--figures-only", "--out", out)
    names = {
        "best.json",
        "curves.csv",
        "evaluation.json",
        "record.json",
        "sweep.json",
        "trials.csv",
    }
    assert {path.name for path in out.iterdir()} == names
    texts = [path.read_text().replace(sweep["resume"], "") for path in out.iterdir()]
    assert not any(str(home) in text or "checkpoint" in text for text in texts)
    assert sum(map(len, texts)) < 200_000


def test_export_registers_the_winner_only_once(home: Path, sweep: dict[str, Any]) -> None:
    best = read(home, "best")
    registered = read(home, "export", "tiny", "--register")
    assert registered.keys() == {"sweep", "model"}
    model = registered["model"]
    assert (model["name"], model["version"], model["new"]) == ("tiny", 1, True)
    assert (model["uri"], model["alias"]) == ("models:/tiny/1", "champion")
    assert model["run_id"] == best["run_ids"][0]
    assert read(home, "export", "tiny", "--register")["model"] == model | {"new": False}
    assert output(home, "export", "tiny", "--register") == "models:/tiny/1, champion now\n"
    code, _, err = aae_here(home, "export", "tiny", "--as", "other")
    assert (code, err) == (2, "--as other: names a registered model; add --register\n")


def test_evaluate_prints_a_parzen_document_per_seed(home: Path, sweep: dict[str, Any]) -> None:
    code, out, _ = aae(home, "evaluate", "tiny", "--parzen-samples", 2_000, "--json")
    assert code == 0
    models = json.loads(out)["models"]
    assert [model["checkpoint"] for model in models] == read(home, "best")["checkpoints"]
    for model in models:
        assert (model["n_samples"], model["n_test"], model["dim"]) == (2_000, 300, 64)
        (point,) = model["curve"]
        assert {"n_samples", "log_likelihood", "standard_error", "sigma"} <= point.keys()
        assert point["log_likelihood"] == pytest.approx(model["log_likelihood"])
        sizes = [(row["kind"], row["n_samples"]) for row in model["controls"]]
        assert sizes == [("train_images", 1_197), ("kmeans", 119)]
        assert all(math.isfinite(row["log_likelihood"]) for row in model["controls"])


@pytest.mark.parametrize("command", ["status", "show", "best", "export", "report", "evaluate"])
@pytest.mark.usefixtures("sweep")
def test_commands_answer_unknown_sweeps_with_the_known_names(
    home: Path, sweep: dict[str, Any], command: str
) -> None:
    assert aae_here(home, command, "nope") == (2, "", f"`nope` names no sweep: {sweep['id']}\n")


@pytest.mark.usefixtures("sweep")
def test_show_names_an_unknown_trial(home: Path) -> None:
    for trial in ("77", "confirm-9", "junk"):
        code, out, err = aae_here(home, "show", "tiny", trial)
        assert (code, out) == (2, "")
        assert f"no trial `{trial}`" in err


@pytest.mark.usefixtures("sweep")
def test_sample_draws_from_the_winner_of_a_sweep(home: Path) -> None:
    out = home / "samples.npy"
    assert output(home, "sample", "tiny", "-n", 25, "--out", out) == f"{out}\n"
    assert np.load(out).shape == (25, 64)


@pytest.mark.usefixtures("sweep")
def test_doctor_reports_every_check_as_ok(home: Path) -> None:
    code, out, _ = aae(home, "doctor", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["ok"] is True
    checks = {check["check"]: check["detail"] for check in document["checks"]}
    assert checks["study storage"] == "1 sweeps"
    assert "CPUs" in checks["Ray"]


# -- parzen ----------------------------------------------------------------------------------


def test_parzen_same_bits_for_any_actor_count(home: Path) -> None:
    rng = np.random.default_rng(0)
    for name, n in (("s", 20_500), ("v", 20), ("t", 30)):
        np.save(home / f"{name}.npy", rng.random((n, 30), np.float32))
    found, points = [], []
    for actors in (1, 2, 3):
        files = (home / "s.npy", "--test", home / "t.npy", "--valid", home / "v.npy")
        out = home / f"points-{actors}.npy"
        common = ("--actors", actors, "--per-point", out, "--json")
        code, output, err = aae(home, "parzen", *files, *common)
        assert (code, err) == (0, "")
        document = json.loads(output)
        del document["seconds"]
        found.append(document)
        points.append(np.load(out).tobytes())
    assert found[0]["blocks"] > 2
    assert found[0] == found[1] == found[2]
    assert points[0] == points[1] == points[2]


# -- start-up --------------------------------------------------------------------------------


def imported(home: Path, *arguments: str) -> set[str]:
    """Return the packages in memory at the end of a command."""
    script = f"""
import sys
sys.argv = {["aae-sweep", *arguments]!r}
from orchestrator.cli import main
try:
    main()
except SystemExit:
    pass
print(*sys.modules, file=sys.stderr)
"""
    environ = os.environ | {"AAE_HOME": str(home)}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in ended.stderr.split()}


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("validate", "x.yaml")])
def test_help_and_validate_import_no_slow_package(home: Path, arguments: tuple[str, ...]) -> None:
    slow = {"torch", "ray", "mlflow", "optuna", "pandas", "scipy", "sklearn", "plotly"}
    assert imported(home, *arguments).isdisjoint(slow)


@pytest.mark.usefixtures("sweep")
def test_reading_commands_import_neither_torch_nor_ray(home: Path) -> None:
    for command in ("status", "ls", "show", "best"):
        assert imported(home, command).isdisjoint({"torch", "ray", "mlflow"})
