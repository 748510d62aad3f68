"""The reader on homes in every state, without Ray and without torch."""

import json
import subprocess
import sys
from typing import Any

import pytest
from sweep_file import make_spec

from orchestrator.errors import UsageError
from orchestrator.results.reader import ResultsReader, as_document, run_key, summary
from orchestrator.settings import Settings
from orchestrator.study.lock import held
from orchestrator.study.study import StageStudy, confirm_seed, open_storage
from orchestrator.sweepfile.spec import SweepSpec
from orchestrator.tracking.outbox import Outbox

KINDS = ["gaussian", "universal"]
STATUS_KEYS = {
    "sweep", "id", "config_hash", "stage", "state", "trials", "objective", "best",
    "elapsed_seconds", "eta_seconds", "unsynced", "mlflow", "report", "resume",
}  # fmt: skip
BEST_KEYS = {
    "params", "config_hash", "seeds", "confirmed", "metrics", "groups", "tied_with",
    "checkpoints", "run_ids", "data_sha256", "code_version", "baseline", "gain",
}  # fmt: skip
TRIAL_KEYS = {
    "number", "stage", "state", "reason", "attempts", "epochs", "epochs_computed", "resumed_from",
    "config_hash", "params", "seed", "metrics", "checkpoint", "node", "run_id", "started",
    "seconds",
}  # fmt: skip


def spec_of(name: str, seed: int = 0) -> SweepSpec:
    space = {
        "model.encoder.kind": {"choice": KINDS},
        "model.prior.std": {"float": [0.5, 20]},
    }
    search = {"trials": 4, "balance": "model.encoder.kind", "space": space}
    return make_spec(name, seed=seed, search=search, confirm={"per": "model.encoder.kind"})


def begin(settings: Settings, spec: SweepSpec, touched: str) -> StageStudy:
    search = StageStudy.create(open_storage(settings), spec, "search")
    search.note(
        name=spec.name,
        spec=spec.resolved(),
        spec_text="name: …",
        resume=f"aae-sweep run {spec.name}.yaml",
        planned={"search": 4, "confirm": 4},
        touched=touched,
        state="running",
        data_sha256="0" * 64,
        code_version="1",
    )
    with Outbox(settings.outbox) as outbox:
        outbox.open_run(spec.sweep_id, sweep_id=spec.sweep_id, experiment="e", name="n")
    return search


def train(
    settings: Settings, study: StageStudy, spec: SweepSpec, number: int, value: float
) -> None:
    study.started(number, "here", None)
    study.epoch(number, 1, [value], "/checkpoints/1", trained=True)
    study.end(number, "complete", value, None)
    key = run_key(spec.sweep_id, study.stage, number)
    with Outbox(settings.outbox) as outbox:
        outbox.open_run(key, sweep_id=spec.sweep_id, experiment="e", name="n", parent=spec.sweep_id)
        outbox.log(key, 1, {"val/parzen_ll": value, "train/recon": float("inf")})


@pytest.fixture
def spec() -> SweepSpec:
    return spec_of("one")


@pytest.fixture
def searched(settings: Settings, spec: SweepSpec) -> ResultsReader:
    """Four trials at 0, 1, 2, 3 nats."""
    study = begin(settings, spec, "2030")
    for value in range(4):
        train(settings, study, spec, study.ask(spec).number, float(value))
    return ResultsReader(settings)


@pytest.fixture
def confirmed(settings: Settings, spec: SweepSpec, searched: ResultsReader) -> ResultsReader:
    """The best of each encoder confirmed with two seeds: 10 and 12, 20 and 22 nats."""
    queue = StageStudy.create(open_storage(settings), spec, "confirm")
    queue.enqueue(
        {"params": {"model.encoder.kind": kind}, "seed": confirm_seed(0, seed)}
        for seed in range(2)
        for kind in KINDS
    )
    for value in (10.0, 20.0, 12.0, 22.0):
        attempt = queue.pop(spec)
        train(settings, queue, spec, attempt.number, value)
    return searched


def test_reader_of_an_empty_home_names_the_first_command(settings: Settings) -> None:
    reader = ResultsReader(settings)
    assert reader.sweeps() == []
    for name in ("latest", "anything"):
        with pytest.raises(UsageError, match="begin with: aae-sweep run") as caught:
            reader.resolve(name)
        assert str(settings.home) in str(caught.value)
    with pytest.raises(UsageError, match="`gone` names no sweep"):
        reader.status("gone")


def test_resolve_finds_sweeps_by_id_name_prefix_or_latest(settings: Settings) -> None:
    old, new, other = spec_of("one", 0), spec_of("one", 1), spec_of("other")
    for touched, each in (("2031", other), ("2029", old), ("2030", new)):
        begin(settings, each, touched)
    reader = ResultsReader(settings)
    assert reader.resolve(old.sweep_id) == old.sweep_id
    assert reader.resolve("one") == new.sweep_id
    assert reader.resolve("latest") == other.sweep_id
    assert reader.resolve("ot") == other.sweep_id
    assert reader.resolve(old.sweep_id[:-1]) == old.sweep_id
    with pytest.raises(UsageError, match="names several sweeps"):
        reader.resolve("on")
    with pytest.raises(UsageError, match="names no sweep") as caught:
        reader.resolve("two")
    assert other.sweep_id in str(caught.value)


def test_status_keeps_its_contract_before_the_first_trial(
    settings: Settings, spec: SweepSpec
) -> None:
    begin(settings, spec, "2030")
    status = ResultsReader(settings).status(spec.sweep_id)
    assert status.keys() >= STATUS_KEYS
    assert status["best"] is None
    assert status["eta_seconds"] is None
    assert set(status["trials"].values()) == {0}
    assert ResultsReader(settings).best(spec.sweep_id) is None


def test_status_distinguishes_running_from_killed_drivers(
    settings: Settings, spec: SweepSpec
) -> None:
    search = begin(settings, spec, "2030")
    reader = ResultsReader(settings)
    with held(settings, spec.sweep_id):
        assert reader.status(spec.sweep_id)["state"] == "running"
    assert reader.status(spec.sweep_id)["state"] == "interrupted"
    search.note(state="failed")
    assert reader.status(spec.sweep_id)["state"] == "failed"


def test_status_of_a_search_keeps_its_contract(searched: ResultsReader, spec: SweepSpec) -> None:
    status = searched.status(spec.sweep_id)
    assert status.keys() >= STATUS_KEYS
    assert status["trials"].keys() >= {"complete", "pruned", "diverged", "failed", "running"}
    assert status["trials"]["complete"] == 4
    assert status["objective"] == {"metric": "val/parzen_ll", "direction": "maximize"}
    assert (status["best"]["trial"], status["best"]["value"]) == (3, 3.0)
    assert status["best"]["confirmed"] is False
    assert status["unsynced"] > 0
    assert status["mlflow"] == {"experiment_id": None, "run_id": None}
    json.dumps(status, allow_nan=False)


def test_status_sums_time_energy_and_price_of_all_epochs(settings: Settings) -> None:
    spec = make_spec(search={"trials": 2}, resources={"price_per_hour": 1.8, "currency": "EUR"})
    study = begin(settings, spec, "2030")
    for joules in (None, 3.0):
        number = study.ask(spec).number
        for epoch in (1, 2):
            study.epoch(number, epoch, [0.0], None, trained=True, seconds=500.0, joules=joules)
    study.save()
    reader = ResultsReader(settings)
    status = reader.status(spec.sweep_id)
    assert (status["train_seconds"], status["energy_joules"]) == (2000.0, 6.0)
    assert status["cost"] == {"amount": pytest.approx(1.0), "currency": "EUR"}
    assert [r.energy_joules for r in reader.trials(spec.sweep_id)] == [None, 6.0]


def test_status_has_neither_energy_nor_price_where_none_is_known(
    searched: ResultsReader, spec: SweepSpec
) -> None:
    status = searched.status(spec.sweep_id)
    assert (status["energy_joules"], status["cost"]) == (None, None)


def test_best_of_a_search_is_not_confirmed(searched: ResultsReader, spec: SweepSpec) -> None:
    best: Any = searched.best(spec.sweep_id)
    assert best.keys() >= BEST_KEYS
    assert best["confirmed"] is False
    assert best["metrics"]["val/parzen_ll"]["mean"] == 3.0
    assert best["metrics"]["val/parzen_ll"]["se"] is None


def test_best_of_a_confirmed_sweep_has_groups_and_errors(
    confirmed: ResultsReader, spec: SweepSpec
) -> None:
    best: Any = confirmed.best(spec.sweep_id)
    assert best.keys() >= BEST_KEYS
    assert best["confirmed"] is True
    assert best["params"] == {"model.encoder.kind": "universal"}
    assert best["seeds"] == [confirm_seed(0, 0), confirm_seed(0, 1)]
    figures = best["metrics"]["val/parzen_ll"]
    assert (figures["mean"], figures["se"], figures["values"]) == (21.0, 1.0, [20.0, 22.0])
    assert [(g["by"], g["value"], g["trials"]) for g in best["groups"]] == [
        ("model.encoder.kind", "universal", [1, 3]),
        ("model.encoder.kind", "gaussian", [0, 2]),
    ]
    assert best["groups"][1]["metrics"]["val/parzen_ll"]["mean"] == 11.0
    assert best["checkpoints"] == ["/checkpoints/1"] * 2


def test_best_without_control_has_verdicts_and_no_gain(
    confirmed: ResultsReader, spec: SweepSpec
) -> None:
    best: Any = confirmed.best(spec.sweep_id)
    assert (best["baseline"], best["gain"]) == (None, None)
    winner, behind = best["groups"]
    assert (winner["verdict"], winner["difference"]) == ("winner", None)
    # The difference is -10 at both seeds: without spread, two seeds decide.
    assert behind["verdict"] == "worse"
    assert behind["difference"] == {"mean": -10.0, "ci95": [-10.0, -10.0], "detectable": 0.0}
    assert [group["optimism"] for group in best["groups"]] == [
        None,
        None,
    ]  # not the searched parameters


def test_best_measures_gain_and_optimism_against_the_control(
    settings: Settings, spec: SweepSpec, searched: ResultsReader
) -> None:
    queue = StageStudy.create(open_storage(settings), spec, "confirm")
    chosen = searched.trials(spec.sweep_id, "search")[3].params  # at 3 nats
    queue.note(baseline=spec.baseline_hash)
    queue.enqueue({"params": p, "seed": s} for p in (chosen, {}) for s in (1, 3))
    for value in (2.0, 3.0, 50.0, 53.0):
        attempt = queue.pop(spec)
        train(settings, queue, spec, attempt.number, value)
    best: Any = searched.best(spec.sweep_id)
    assert best["params"] == chosen  # the control is far better but no candidate
    [group] = best["groups"]
    assert group["optimism"] == 3.0 - 2.5
    assert best["baseline"]["params"] == {}
    assert best["baseline"]["metrics"]["val/parzen_ll"]["mean"] == 51.5
    assert best["gain"]["mean"] == -49.0
    assert best["gain"]["ci95"] == pytest.approx([-49 - 12.706205, -49 + 12.706205])
    written = summary(best).split("\n\n")
    assert written[0] == f"**{spec.sweep_id}**: the winner over 2 seeds"
    assert written[1].splitlines()[:2] == ["| metric | validation | test |", "| --- | --- | --- |"]
    assert "| parzen_ll | 2.50 ± 0.50 | – |" in written[1].splitlines()
    assert "the file's own configuration is better than the winner by 49 nats" in written[2]
    assert {f"| {path} | {value} |" for path, value in chosen.items()} <= {*written[3].splitlines()}
    json.dumps(best, allow_nan=False)


def test_trial_document_keeps_its_contract(confirmed: ResultsReader, spec: SweepSpec) -> None:
    records = confirmed.trials(spec.sweep_id)
    assert [(r.stage, r.number) for r in records] == [
        (stage, n) for stage in ("search", "confirm") for n in range(4)
    ]
    document = as_document(records[0])
    assert document.keys() >= TRIAL_KEYS
    assert document["metrics"] == {"val/parzen_ll": 0.0, "train/recon": None}
    json.dumps(document, allow_nan=False)
    [row] = confirmed.curve(spec.sweep_id, records[0])
    assert (row["epoch"], row["val/parzen_ll"]) == (1, 0.0)


def test_view_holds_the_whole_sweep(confirmed: ResultsReader, spec: SweepSpec) -> None:
    view = confirmed.view(spec.sweep_id)
    assert len(view.trials) == len(view.curves) == 8
    assert view.evaluation is None
    assert view.study is not None
    assert view.space.keys() == {"model.encoder.kind", "model.prior.std"}
    assert view.pictures == []


def test_reader_imports_neither_ray_nor_torch_nor_mlflow() -> None:
    program = (
        "import sys, orchestrator.results.reader; "
        "print(sorted({'ray', 'torch', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
