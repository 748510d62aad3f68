"""Test a whole sweep of the digits through the command line: its outputs and its extension."""

import json
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sweep_command import Bench

from orchestrator.records import BASELINE
from orchestrator.study.study import confirm_seed

TINY = """
name: tiny
seed: 10  # its first trial draws the learning rate that diverges
data: {name: digits}
model: {hidden: [16], code_dim: 4, init_std: 0.2, output: linear}
training:
  epochs: 3
  reconstruction: {optimizer: adam, lr: 5e-3}
  adversarial: {optimizer: adam, lr: 1e-3}
search:
  sampler: {kind: random}
  balance: model.encoder.kind
  trials: 6
  space:
    model.encoder.kind: {choice: [deterministic, gaussian, universal]}
    model.encoder.noise_dim: {int: [2, 8], when: {model.encoder.kind: universal}}
    model.prior.std: {float: [0.5, 4], log: true}
    training.reconstruction.lr: {choice: [5e-3, 2e-3, 1e18]}
confirm: {per: model.encoder.kind, seeds: 2, margin: 2.5}
evaluate: {parzen: {samples: 20_000, screen_samples: 10_000}}
"""
KINDS = {"deterministic", "gaussian", "universal"}
METRICS = {"train/recon", "train/disc_z", "train/gen_z", "val/recon", "val/parzen_ll"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return the sweep at its end."""
    bench = Bench(tmp_path_factory.mktemp("tiny"), TINY)
    done = bench.run()
    assert done.returncode == 0, done.stderr  # 0 although a trial diverged: divergence is a result
    return bench


@pytest.fixture(scope="module")
def shown(bench: Bench) -> list[dict[str, Any]]:
    trials: list[dict[str, Any]] = bench.ask("show", "tiny")["trials"]
    return trials


def test_status_of_a_done_sweep_counts_its_trials(bench: Bench) -> None:
    status = bench.ask("status", "tiny")
    assert (status["sweep"], status["stage"], status["state"]) == ("tiny", "done", "done")
    assert status["id"] == f"tiny-{status['config_hash']}"
    assert status["trials"] == {
        "complete": 13,
        "diverged": 1,
        "pruned": 0,
        "failed": 0,
        "running": 0,
        "waiting": 0,
    }
    assert status["objective"] == {"metric": "val/parzen_ll", "direction": "maximize"}
    assert status["best"]["metric"] == "val/parzen_ll"
    assert status["best"]["confirmed"]
    assert status["unsynced"] == 0
    assert status["eta_seconds"] == 0
    assert 0 < status["elapsed_seconds"] < 600
    assert status["resume"] == f"aae-sweep run {bench.file}"
    assert "</html>" in Path(status["report"]).read_text()


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
        assert (Path(trial["checkpoint"]) / "manifest.json").exists()
    history = bench.ask("show", "tiny", "confirm-0")["history"]
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert all(row.keys() >= METRICS for row in history)


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
        assert figures["mean"] == pytest.approx(sum(figures["values"]) / 2)
        assert figures["ci95"][0] < figures["mean"] < figures["ci95"][1]
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


def test_test_metrics_belong_only_to_confirm_trials(shown: list[dict[str, Any]]) -> None:
    for trial in shown:
        has_test = any(name.startswith("test/") for name in trial["metrics"])
        assert has_test == (trial["stage"] == "confirm")


def test_evaluation_has_samples_curves_and_controls(bench: Bench) -> None:
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


def test_mlflow_has_every_run_with_tags_and_artifacts(
    bench: Bench, shown: list[dict[str, Any]]
) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(bench.settings.tracking_uri)
    status = bench.ask("status", "tiny")
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


def test_mlflow_has_every_metric_of_the_outbox_once(bench: Bench) -> None:
    run_ids = {r.run_id: f"{bench.sweep}/{r.stage}/{r.number}" for r in bench.trials()}
    with sqlite3.connect(bench.settings.home / "mlflow.db") as mlflow:
        rows = mlflow.execute("SELECT run_uuid, key, step, count(*) FROM metrics GROUP BY 1, 2, 3")
        there = {(run_ids[run], key, step): n for run, key, step, n in rows if run in run_ids}
    with sqlite3.connect(bench.settings.outbox) as outbox:
        rows = outbox.execute("SELECT run, name, epoch FROM metric WHERE run LIKE '%/%'")
        here = set(map(tuple, rows))
    assert there == dict.fromkeys(here, 1)


def test_run_of_a_done_sweep_changes_nothing(bench: Bench, shown: list[dict[str, Any]]) -> None:
    began = time.monotonic()
    before = bench.ask("status", "tiny")
    again = bench.run()
    assert again.returncode == 0
    assert "done; nothing to run" in again.stderr
    assert time.monotonic() - began < 30
    assert bench.ask("status", "tiny") == before
    assert bench.ask("show", "tiny")["trials"] == shown


def test_more_trials_extend_the_same_sweep(bench: Bench, shown: list[dict[str, Any]]) -> None:
    """Test last, because more trials change the sweep."""
    done = bench.run("--set", "search.trials=8")
    assert done.returncode == 0, done.stderr
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
