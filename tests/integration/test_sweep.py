"""Test a whole sweep of the digits: its outputs, every command that reads it, its extension."""

import csv
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.artifacts import download_artifacts
from mlflow.tracking import MlflowClient
from sweep_command import PATIENCE, Bench, Outcome, processes_of, wait_until_gone
from sweep_file import make_text

import aae_core
from aae_core.config import DataConfig
from aae_core.data import load_test_data, load_training_data
from aae_core.data.resident import Images
from aae_core.evaluation.parzen import one_thread
from aae_core.evaluation.scores import test_metrics as on_test  # pytest would collect test_…
from orchestrator.records import BASELINE
from orchestrator.results.reader import ResultsReader
from orchestrator.study.study import confirm_seed

SPACE = {
    "model.encoder.kind": {"choice": ["deterministic", "gaussian", "universal"]},
    "model.encoder.noise_dim": {"int": [2, 8], "when": {"model.encoder.kind": "universal"}},
    "model.prior.std": {"float": [0.5, 4], "log": True},
    "training.reconstruction.lr": {"choice": [5e-3, 2e-3, 1e18]},
}
TINY = make_text(
    seed=10,  # its first trial draws the learning rate that diverges
    model={"code_dim": 4, "output": "linear"},
    training={"epochs": 3},
    search={"balance": "model.encoder.kind", "trials": 6, "space": SPACE},
    confirm={"per": "model.encoder.kind", "margin": 2.5},
    evaluate={"parzen": {"samples": 20_000, "screen_samples": 10_000}},
)
LEAVING_SECONDS = 4.0  # from SIGTERM to the end of the driver, on an idle machine
KINDS = {"deterministic", "gaussian", "universal"}
METRICS = {"train/recon", "train/disc_z", "train/gen_z", "val/recon", "val/parzen_ll"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("tiny"), TINY)


@pytest.fixture(scope="module")
def ran(bench: Bench) -> Outcome:
    """Run the sweep to its end."""
    done = bench.run()
    assert done.code == 0, done.err  # 0 although a trial diverged: divergence is a result
    return done


@pytest.fixture(scope="module")
def status(ran: Outcome) -> dict[str, Any]:
    document: dict[str, Any] = ran.document
    return document


@pytest.fixture(scope="module")
def shown(bench: Bench, ran: Outcome) -> list[dict[str, Any]]:
    trials: list[dict[str, Any]] = bench.ask("show", "tiny")["trials"]
    return trials


def output(bench: Bench, *arguments: object) -> str:
    ended = bench.here(*arguments)
    assert (ended.code, ended.err) == (0, "")
    return ended.out


# -- run -------------------------------------------------------------------------------------


def test_run_prints_the_status_of_the_done_sweep(
    bench: Bench, ran: Outcome, status: dict[str, Any]
) -> None:
    assert ran.out.count("\n") == 1
    assert (status["sweep"], status["stage"], status["state"]) == ("tiny", "done", "done")
    assert status["id"] == f"tiny-{status['config_hash']}"
    none = dict.fromkeys(("pruned", "failed", "running", "waiting"), 0)
    assert status["trials"] == none | {"complete": 13, "diverged": 1}
    assert status["objective"] == {"metric": "val/parzen_ll", "direction": "maximize"}
    assert status["best"]["metric"] == "val/parzen_ll"
    assert status["best"]["confirmed"]
    assert isinstance(status["best"]["trial"], int)
    assert (status["unsynced"], status["eta_seconds"]) == (0, 0)
    assert 0 < status["elapsed_seconds"] < 600
    assert all(status["mlflow"][key] for key in ("experiment_id", "run_id"))
    assert status["resume"] == f"aae-sweep run {bench.file}"
    assert "</html>" in Path(status["report"]).read_text()
    stages = [line for line in ran.err.splitlines() if line.endswith(("trials", "models"))]
    assert stages == ["search: 6 trials", "confirm: 8 trials", "evaluate: 8 models"]


def test_run_of_a_done_sweep_changes_nothing(
    bench: Bench, status: dict[str, Any], shown: list[dict[str, Any]]
) -> None:
    began = time.monotonic()
    again = bench.tell("run", bench.file)
    assert again.code == 0
    assert again.err == f"{status['id']} is done; nothing to run\n"
    assert time.monotonic() - began < 30
    first, *_, last = again.out.splitlines()
    assert first.startswith(f"{status['id']}: done after ")
    assert last.split() == ["again", *status["resume"].split()]
    assert bench.ask("status", "tiny") == status
    assert bench.ask("show", "tiny")["trials"] == shown


def test_run_after_sigterm_exits_130_with_the_resume_command(tmp_path: Path) -> None:
    bench = Bench(tmp_path, TINY)
    with bench.started("--set", "training.epochs=1000000") as process:
        assert process.stderr.readline() == "search: 6 trials\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, ""), err
    resume = f"aae-sweep run {bench.file} --set=training.epochs=1000000"
    assert err.splitlines()[-1].endswith(f"Resume with: {resume}")
    assert bench.ask("status")["state"] == "interrupted"


@pytest.mark.parametrize("moment", ["search: 6 trials", "epochs", "evaluate: "])
def test_driver_exits_soon_after_sigterm_when_epochs_are_short(tmp_path: Path, moment: str) -> None:
    """Batch systems send SIGKILL a few seconds after SIGTERM."""
    bench = Bench(tmp_path, TINY)
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


def test_status_and_ls_agree_on_the_sweep(bench: Bench, status: dict[str, Any]) -> None:
    for name in ("latest", "tiny", status["id"], status["id"][:-3]):
        assert bench.ask("status", name) == status
    (listed,) = bench.ask("ls")
    assert listed.items() <= status.items()
    assert {"sweep", "id", "stage", "state", "trials", "best"} <= listed.keys()
    assert output(bench, "status").startswith(f"{status['id']}  done\n")
    header, row = output(bench, "ls").splitlines()
    assert header.split() == ["sweep", "state", "stage", "trials", "best", "time"]
    assert row.split()[:4] == [status["id"], "done", "done", "14/14"]


def test_show_lists_every_trial_with_epochs_and_metrics(
    bench: Bench, shown: list[dict[str, Any]]
) -> None:
    search = [t for t in shown if t["stage"] == "search"]
    confirm = [t for t in shown if t["stage"] == "confirm"]
    assert [t["number"] for t in search] == list(range(6))
    assert [t["number"] for t in confirm] == list(range(8))
    assert Counter(t["params"]["model.encoder.kind"] for t in search) == dict.fromkeys(KINDS, 2)
    diverged, *others = search
    assert (diverged["state"], diverged["epochs"]) == ("diverged", 0)
    assert "is not finite in epoch 1" in diverged["reason"]
    for trial in [*others, *confirm]:
        assert (trial["state"], trial["reason"], trial["resumed_from"]) == ("complete", None, [])
        assert (trial["attempts"], trial["epochs"], trial["epochs_computed"]) == (1, 3, 3)
        assert trial["metrics"].keys() >= METRICS
        assert trial["seconds"] > 0
        assert trial["started"]
        assert trial["node"]
        assert trial["run_id"]
        assert (Path(trial["checkpoint"]) / "manifest.json").exists()
    assert len({trial["seed"] for trial in search}) == len(search)
    one = bench.ask("show", "tiny", "confirm-0")
    history = one.pop("history")
    assert one == {"sweep": bench.sweep, **confirm[0]}
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert all(row.keys() >= METRICS for row in history)
    assert history[-1]["val/parzen_ll"] == confirm[0]["metrics"]["val/parzen_ll"]
    assert len(output(bench, "show").splitlines()) == 1 + 14
    assert "val/parzen_ll" in output(bench, "show", "tiny", "confirm-0")


def test_confirm_trains_only_group_winners_with_fresh_seeds(shown: list[dict[str, Any]]) -> None:
    confirm = [t for t in shown if t["stage"] == "confirm"]
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for trial in confirm:
        by_kind.setdefault(trial["params"].get("model.encoder.kind", ""), []).append(trial)
    control = by_kind.pop("")
    assert [t["params"] for t in control] == [{}, {}]
    assert [t["seed"] for t in control] == [confirm_seed(10, 0), confirm_seed(10, 1)]
    assert by_kind.keys() == KINDS
    for kind, trials in by_kind.items():
        finished = [
            t
            for t in shown
            if t["stage"] == "search"
            and t["state"] == "complete"
            and t["params"]["model.encoder.kind"] == kind
        ]
        best = max(finished, key=lambda t: t["metrics"]["val/parzen_ll"])
        assert [t["params"] for t in trials] == [best["params"]] * 2
        assert [t["seed"] for t in trials] == [confirm_seed(10, 0), confirm_seed(10, 1)]


def test_best_reports_means_and_gain_over_confirm_seeds(
    bench: Bench, shown: list[dict[str, Any]]
) -> None:
    best = bench.ask("best", "tiny")
    assert best["confirmed"]
    assert best["seeds"] == [confirm_seed(10, 0), confirm_seed(10, 1)]
    runs = [t for t in shown if t["stage"] == "confirm" and t["config_hash"] == best["config_hash"]]
    for name in ("val/parzen_ll", "test/parzen_ll", "test/recon"):
        figures = best["metrics"][name]
        assert figures["values"] == [run["metrics"][name] for run in runs]
        a, b = figures["values"]
        assert figures["mean"] == pytest.approx((a + b) / 2)
        assert figures["std"] == pytest.approx(abs(a - b) / math.sqrt(2))
        assert figures["se"] == pytest.approx(abs(a - b) / 2)
        low, high = figures["ci95"]
        assert high - low == pytest.approx(2 * 12.7062 * figures["se"], rel=1e-4)
    assert best["checkpoints"] == [run["checkpoint"] for run in runs]
    assert best["run_ids"] == [run["run_id"] for run in runs]
    means = [group["metrics"]["val/parzen_ll"]["mean"] for group in best["groups"]]
    assert means == sorted(means, reverse=True)
    assert {group["value"] for group in best["groups"]} == KINDS
    assert {group["by"] for group in best["groups"]} == {"model.encoder.kind"}
    for group in best["groups"]:
        assert group["verdict"] in {"winner", "worse", "equivalent", "undecided"}
        [searched] = [
            t["metrics"]["val/parzen_ll"]
            for t in shown
            if t["stage"] == "search" and t["config_hash"] == group["config_hash"]
        ]
        confirmed = group["metrics"]["val/parzen_ll"]["mean"]
        assert group["optimism"] == pytest.approx(searched - confirmed)
    means = [best["baseline"]["metrics"]["val/parzen_ll"]["mean"], means[0]]
    assert best["gain"]["mean"] == pytest.approx(means[1] - means[0])
    assert best["gain"]["ci95"][0] < best["gain"]["mean"] < best["gain"]["ci95"][1]
    assert len(best["data_sha256"]) == 64
    assert best["code_version"]
    assert "± is the standard error over seeds" in output(bench, "best")


def test_test_metrics_belong_only_to_confirm_trials(shown: list[dict[str, Any]]) -> None:
    for trial in shown:
        has_test = any(name.startswith("test/") for name in trial["metrics"])
        assert has_test == (trial["stage"] == "confirm")


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize("command", ["status", "show", "best", "export", "report", "evaluate"])
def test_commands_for_an_unknown_sweep_list_the_known_sweeps(bench: Bench, command: str) -> None:
    ended = bench.here(command, "nope")
    assert ended == Outcome(2, "", f"`nope` names no sweep: {bench.sweep}\n")


@pytest.mark.usefixtures("ran")
def test_show_names_an_unknown_trial(bench: Bench) -> None:
    for trial in ("77", "confirm-9", "junk"):
        ended = bench.here("show", "tiny", trial)
        assert (ended.code, ended.out) == (2, "")
        assert f"no trial `{trial}`" in ended.err


@pytest.mark.usefixtures("ran")
def test_sample_draws_from_the_winner_of_a_sweep(bench: Bench) -> None:
    out = bench.folder / "samples.npy"
    assert output(bench, "sample", "tiny", "-n", 25, "--out", out) == f"{out}\n"
    assert np.load(out).shape == (25, 64)


@pytest.mark.usefixtures("ran")
def test_doctor_reports_every_check_as_ok(bench: Bench) -> None:
    ended = bench.tell("doctor", "--json")
    assert (ended.code, ended.document["ok"]) == (0, True)
    checks = {check["check"]: check["detail"] for check in ended.document["checks"]}
    assert checks["study storage"] == "1 sweep"
    assert "CPUs" in checks["Ray"]


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize("width", [100, 80])
@pytest.mark.parametrize(
    "command",
    ["ls", "status", "show", "show tiny 3", "best", "compare", "sweeps", "data list"],
)
def test_tables_are_no_wider_than_the_terminal(
    bench: Bench, command: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    ended = bench.here(*command.split())
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    breakable = [line for line in lines if str(bench.settings.home.parent) not in line]
    assert len(breakable) > 1
    assert max(map(len, breakable)) <= width


# -- evaluate ----------------------------------------------------------------------------------


def test_evaluation_has_samples_curves_and_controls(bench: Bench, ran: Outcome) -> None:
    path = bench.settings.sweep_folder(bench.sweep) / "evaluation.json"
    models = json.loads(path.read_text())["models"]
    assert [model["n_samples"] for model in models] == [20_000] + [10_000] * 7
    assert {model["trial"] for model in models} == set(range(8))
    assert [model["group"] for model in models[-2:]] == [BASELINE] * 2
    assert models[0]["config_hash"] == bench.ask("best", "tiny")["config_hash"]
    for model in models:
        assert (model["n_valid"], model["n_test"], model["dim"]) == (300, 300, 64)
        assert model["curve"][-1]["n_samples"] == model["n_samples"]
        assert model["curve"][-1]["log_likelihood"] == model["log_likelihood"]
        assert model["standard_error"] > 0
        assert model["sigma"] > 0
        controls = [(row["kind"], row["n_samples"]) for row in model["controls"]]
        assert controls == [("train_images", 1_197), ("kmeans", 119)]  # fewer images than samples
        assert (Path(model["checkpoint"]) / "manifest.json").exists()


@pytest.mark.usefixtures("ran")
@pytest.mark.usefixtures("ran")
def test_test_metrics_of_workers_are_those_of_this_process(bench: Bench) -> None:
    """Compute them with the trials' number of threads, to the last bit."""
    data, digits = DataConfig("digits"), bench.settings.data
    training, test = load_training_data(data, digits), load_test_data(data, digits)
    valid = Images.of(training.x_valid, training.y_valid, "cpu")
    evaluation = ResultsReader(bench.settings).evaluation(bench.sweep)
    assert evaluation is not None
    for scored in evaluation["models"]:
        model = aae_core.load(str(scored["checkpoint"]))
        with one_thread():
            want = on_test(model, valid, Images.of(test.x, test.y, "cpu"), scored["seed"], 3)
        assert scored["metrics"] == want


def test_evaluate_prints_a_parzen_document_per_seed(bench: Bench) -> None:
    ended = bench.tell("evaluate", "tiny", "--parzen-samples", 2_000, "--json")
    assert ended.code == 0, ended.err
    models = ended.document["models"]
    assert [model["checkpoint"] for model in models[:2]] == bench.ask("best")["checkpoints"]
    for model in models:
        assert (model["n_samples"], model["n_test"], model["dim"]) == (2_000, 300, 64)
        (point,) = model["curve"]
        assert {"n_samples", "log_likelihood", "standard_error", "sigma"} <= point.keys()
        assert point["log_likelihood"] == pytest.approx(model["log_likelihood"])
        sizes = [(row["kind"], row["n_samples"]) for row in model["controls"]]
        assert sizes == [("train_images", 1_197), ("kmeans", 119)]
        assert all(math.isfinite(row["log_likelihood"]) for row in model["controls"])


def test_parzen_command_same_bits_for_any_actor_count(bench: Bench, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, n in (("s", 20_500), ("v", 20), ("t", 30)):
        np.save(tmp_path / f"{name}.npy", rng.random((n, 30), np.float32))
    s, v, t = (tmp_path / f"{name}.npy" for name in "svt")
    found, points = [], []
    for run, actors in ((bench.here, 1), (bench.tell, 2)):
        out = tmp_path / f"points-{actors}.npy"
        common = ("--actors", actors, "--per-point", out, "--json")
        ended = run("parzen", s, "--test", t, "--valid", v, *common)
        assert (ended.code, ended.err) == (0, "")
        found.append(ended.document | {"seconds": 0})
        points.append(np.load(out).tobytes())
    assert found[0]["blocks"] > 2
    assert found[0] == found[1]
    assert points[0] == points[1]


# -- export ------------------------------------------------------------------------------------


def test_export_and_report_write_their_files(bench: Bench, status: dict[str, Any]) -> None:
    out = bench.folder / "exported"
    document = bench.ask("export", "tiny", "--out", out)
    assert document["sweep"] == status["id"]
    assert set(document["files"]) <= {path.name for path in out.iterdir()}
    assert json.loads((out / "best.json").read_text()) == bench.ask("best")
    with (out / "trials.csv").open() as trials:
        assert len(list(csv.DictReader(trials))) == 14
    assert (out / "checkpoint" / "manifest.json").exists()
    assert (out / "report.html").exists()
    with (out / "curves.csv").open() as curves:
        rows = list(csv.DictReader(curves))
    confirmed = [t for t in bench.ask("show", "tiny")["trials"] if t["stage"] == "confirm"]
    assert len(rows) == sum(trial["epochs"] for trial in confirmed)
    record = json.loads((out / "record.json").read_text())
    assert (record["state"], record["drivers"]) == ("done", 1)
    assert record["stages"]["confirm"]["trials"] == len(confirmed)
    assert record["stages"]["confirm"]["epochs_repeated"] == 0
    assert 0 < record["stages"]["confirm"]["train_hours"] < record["elapsed_hours"]
    assert record["versions"].keys() == {"aae-sweep", "numpy", "torch"}
    ended = bench.here("export", "tiny", "--out", out)
    assert ended == Outcome(2, "", f"{out} exists; name a new folder with --out\n")
    page = bench.folder / "page.html"
    assert bench.ask("report", "tiny", "--out", page) == {"report": str(page)}
    assert "</html>" in page.read_text()


def test_export_figures_only_contains_no_weights_and_no_paths(
    bench: Bench, status: dict[str, Any]
) -> None:
    out = bench.folder / "figures"
    bench.ask("export", "tiny", "--figures-only", "--out", out)
    documents = {f"{name}.json" for name in ("best", "evaluation", "record", "sweep")}
    assert {path.name for path in out.iterdir()} == documents | {"curves.csv", "trials.csv"}
    texts = [path.read_text().replace(status["resume"], "") for path in out.iterdir()]
    assert not any(str(bench.folder) in text or "checkpoint" in text for text in texts)
    assert sum(map(len, texts)) < 200_000


def test_export_registers_the_winner_only_once(bench: Bench, status: dict[str, Any]) -> None:
    best = bench.ask("best")
    registered = bench.ask("export", "tiny", "--register")
    assert registered.keys() == {"sweep", "model"}
    model = registered["model"]
    assert (model["name"], model["version"], model["new"]) == ("tiny", 1, True)
    assert (model["uri"], model["alias"]) == ("models:/tiny/1", "champion")
    assert model["run_id"] == best["run_ids"][0]
    assert bench.ask("export", "tiny", "--register")["model"] == model | {"new": False}
    assert output(bench, "export", "tiny", "--register") == "models:/tiny/1, champion now\n"
    ended = bench.here("export", "tiny", "--as", "other")
    assert ended == Outcome(2, "", "--as other: names a registered model; add --register\n")


# -- MLflow ------------------------------------------------------------------------------------


def test_mlflow_has_every_run_with_tags_and_artifacts(
    bench: Bench, status: dict[str, Any], shown: list[dict[str, Any]]
) -> None:
    client = MlflowClient(bench.settings.tracking_uri)
    runs = client.search_runs([status["mlflow"]["experiment_id"]], max_results=100)
    assert {run.info.status for run in runs} == {"FINISHED", "FAILED"}
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.run_id == status["mlflow"]["run_id"]
    assert parent.data.tags["aae.sweep"] == bench.sweep
    children = {run.info.run_id: run for run in runs if run is not parent}
    assert children.keys() == {trial["run_id"] for trial in shown}
    for trial in shown:
        run = children[trial["run_id"]]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["aae.stage"] == trial["stage"]
        assert run.data.tags["aae.seed"] == str(trial["seed"])
        assert run.data.tags["aae.config_hash"] == trial["config_hash"]
        assert run.data.tags["aae.state"] == trial["state"]
        assert run.data.params["training.epochs"] == "3"
        assert (run.info.status == "FAILED") == (trial["state"] == "diverged")
        assert {n: m for n, m in run.data.metrics.items() if n in METRICS} == pytest.approx(
            {n: m for n, m in trial["metrics"].items() if n in METRICS}
        )
    names = {a.path for a in client.list_artifacts(parent.info.run_id)}
    assert names >= {"sweep.json", "evaluation.json", "samples.png", "latent.png", "report.html"}
    confirmed = next(trial for trial in shown if trial["stage"] == "confirm")
    names = {a.path for a in client.list_artifacts(confirmed["run_id"])}
    assert names >= {"config.json", "evaluation.json", "samples.png", "latent.png", "checkpoint"}


def test_mlflow_has_every_metric_of_the_outbox_once(bench: Bench, ran: Outcome) -> None:
    run_ids = {r.run_id: f"{bench.sweep}/{r.stage}/{r.number}" for r in bench.trials()}
    with sqlite3.connect(bench.settings.home / "mlflow.db") as mlflow:
        rows = mlflow.execute("SELECT run_uuid, key, step, count(*) FROM metrics GROUP BY 1, 2, 3")
        there = {(run_ids[run], key, step): n for run, key, step, n in rows if run in run_ids}
    with sqlite3.connect(bench.settings.outbox) as outbox:
        rows = outbox.execute("SELECT run, name, epoch FROM metric WHERE run LIKE '%/%'")
        here = set(map(tuple, rows))
    assert there == dict.fromkeys(here, 1)


# -- a moved home ------------------------------------------------------------------------------


@pytest.fixture
def moved(bench: Bench, ran: Outcome, tmp_path: Path) -> Iterator[Bench]:
    """Move the home with the registered winner; nothing is left in its old place meanwhile."""
    bench.ask("export", "tiny", "--register")
    there = Bench(tmp_path, TINY)
    # in a process of its own: closing a copied database here would drop this process's locks on it
    subprocess.run(["cp", "-a", bench.settings.home, there.settings.home], check=True)
    away = bench.settings.home.rename(bench.folder / "away")
    yield there
    away.rename(bench.settings.home)


def test_moved_home_has_every_result_of_its_sweep(
    moved: Bench, shown: list[dict[str, Any]]
) -> None:
    home = moved.settings.home
    again = moved.here("run", moved.file)
    assert (again.code, again.err) == (0, f"{moved.sweep} is done; nothing to run\n")
    trials = moved.ask("show", "tiny")["trials"]
    assert [{**t, "checkpoint": 0} for t in trials] == [{**t, "checkpoint": 0} for t in shown]
    checkpoints = [t["checkpoint"] for t in trials if t["stage"] == "confirm"]
    checkpoints += moved.ask("best", "tiny")["checkpoints"]
    evaluation = ResultsReader(moved.settings).evaluation(moved.sweep)
    assert evaluation is not None
    checkpoints += [model["checkpoint"] for model in evaluation["models"]]
    for checkpoint in map(Path, checkpoints):
        assert checkpoint.is_relative_to(home)
        assert (checkpoint / "manifest.json").exists()
    assert Path(moved.ask("status", "tiny")["report"]).is_relative_to(home)
    report = Path(moved.ask("report", "tiny")["report"])
    assert report.is_relative_to(home)
    output(moved, "sample", "tiny", "-n", 25, "--out", moved.folder / "samples.npy")


def test_moved_home_has_every_artifact_in_mlflow(
    moved: Bench, status: dict[str, Any], shown: list[dict[str, Any]]
) -> None:
    assert output(moved, "sync") == "nothing to send\n"
    client = MlflowClient(moved.settings.tracking_uri)
    confirmed = next(trial for trial in shown if trial["stage"] == "confirm")
    checkpoint = client.download_artifacts(confirmed["run_id"], "checkpoint", str(moved.folder))
    assert list(Path(checkpoint).rglob("manifest.json"))
    [logged] = client.search_logged_models([status["mlflow"]["experiment_id"]])
    source = client.get_model_version("tiny", "1").source
    assert source == logged.artifact_location
    model = download_artifacts(source, dst_path=str(moved.folder))
    [manifest] = Path(model).rglob("manifest.json")
    aae_core.load(manifest.parent)
    assert not moved.ask("export", "tiny", "--register")["model"]["new"]


# -- start-up ----------------------------------------------------------------------------------


def imported(bench: Bench, *arguments: str) -> set[str]:
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
    command = [sys.executable, "-c", script]
    ended = subprocess.run(
        command, env=bench.environment, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in ended.stderr.split()}


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("validate", "x.yaml")])
def test_help_and_validate_import_no_slow_package(bench: Bench, arguments: tuple[str, ...]) -> None:
    slow = {"torch", "ray", "mlflow", "optuna", "pandas", "scipy", "sklearn", "plotly"}
    assert imported(bench, *arguments).isdisjoint(slow)


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize("command", ["status", "ls", "show", "best"])
def test_reading_commands_import_neither_torch_nor_ray(bench: Bench, command: str) -> None:
    assert imported(bench, command).isdisjoint({"torch", "ray", "mlflow"})


# -- extend ------------------------------------------------------------------------------------


def test_more_trials_extend_the_same_sweep(bench: Bench, shown: list[dict[str, Any]]) -> None:
    """Test last, because more trials change the sweep."""
    done = bench.run("--set", "search.trials=8")
    assert done.code == 0, done.err
    status = bench.ask("status", "tiny")
    assert (status["id"], status["state"]) == (bench.sweep, "done")
    assert status["planned"]["search"] == 8
    trials = bench.ask("show", "tiny")["trials"]
    old = [t for t in trials if t["stage"] == "search"]
    assert len(old) == 8
    assert old[:6] == [t for t in shown if t["stage"] == "search"]
    confirmed = [t for t in trials if t["stage"] == "confirm"]
    assert [t["seed"] for t in confirmed[:8]] == [
        t["seed"] for t in shown if t["stage"] == "confirm"
    ]
    assert set(bench.mlflow_states().values()) == {"FINISHED", "FAILED"}
