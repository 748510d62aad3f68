"""A sweep that never ran, with known numbers for every part of a report."""

import json
import math
import random
import struct
import zlib
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna

from orchestrator.errors import UsageError
from orchestrator.records import TRIAL_STATES, RunRecord
from orchestrator.results import ranking, verdicts
from orchestrator.results.reader import Picture, SweepView

ENCODERS = ("deterministic", "gaussian", "universal")
BEST_REACHED = {"deterministic": 321.0, "gaussian": 326.5, "universal": 325.8}
METRIC = "val/parzen_ll"
HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'
SPACE: dict[str, Any] = {
    "model.encoder.kind": {"choice": list(ENCODERS)},
    "model.encoder.noise_dim": {
        "int": [2, 64],
        "log": True,
        "when": {"model.encoder.kind": "universal"},
    },
    "model.prior.std": {"float": [0.5, 20.0], "log": True},
    "model.code_dim": {"int": [4, 16]},
    "training.reconstruction.lr": {"float": [1e-3, 3e-2], "log": True},
    "training.adversarial.lr": {"float": [1e-2, 3e-1], "log": True},
    "training.schedule.kind": {"choice": ["constant", "step", "cosine"]},
}


def make_view(folder: Path, n_search: int = 24, epochs: int = 30) -> SweepView:
    """Return a finished sweep on MNIST: every fourth trial pruned, one diverged, one failed."""
    rng = random.Random(0)
    curves: dict[tuple[str, int], list[dict[str, float]]] = {}
    search = [_trial("search", n, _suggest(n, rng), epochs, curves, rng) for n in range(n_search)]
    winners = [_best_trial(search, encoder).params for encoder in ENCODERS]
    confirm = [
        _trial("confirm", 3 * i + seed, params, epochs, curves, rng)
        for i, params in enumerate(winners)
        for seed in range(3)
    ]
    trials = [*search, *confirm]
    return SweepView(
        status=_status(trials),
        trials=trials,
        curves=curves,
        best=_best(confirm),
        evaluation=_evaluation(confirm),
        study=_study(search),
        pictures=[
            Picture(_png(folder / "samples.png", 440, 240), "Samples", "A grid of 60 digits"),
            Picture(_png(folder / "latent.png", 320, 320), "Code space", "Codes of ten digits"),
        ],
        spec={
            "name": "likelihood_mnist",
            "seed": 0,
            "data": {"name": "mnist", "path": None, "labels": None},
            "model": {"kind": "aae", "code_dim": 8, "clusters": 16},
            "search": {"balance": "model.encoder.kind", "trials": n_search},
            "confirm": {"top": 1, "per": "model.encoder.kind", "seeds": 3},
        },
        spec_text="# aae-sweep run sweeps/likelihood_mnist.yaml\nname: likelihood_mnist\nseed: 0\n",
        space=SPACE,
    )


class ResultsReader:
    """A stand-in for the live page's reader, with one sweep that a test can advance."""

    def __init__(self, whole: SweepView) -> None:
        self.whole = self._shown = whole
        self.views = 0
        self.empty = False

    def show(self, trials: list[RunRecord], **changes: Any) -> None:
        status = {**self.whole.status, "state": "running", "trials": count_states(trials)}
        self._shown = replace(self.whole, status=status, trials=trials, **changes)

    def sweeps(self) -> list[str]:
        return [] if self.empty else [self.whole.status["id"]]

    def resolve(self, name: str) -> str:
        if name not in ("latest", self.whole.status["id"]):
            raise UsageError(f"`{name}` names no sweep")
        return str(self.whole.status["id"])

    def status(self, _: str) -> dict[str, Any]:
        return self._shown.status

    def view(self, _: str) -> SweepView:
        self.views += 1
        return self._shown


def as_semi_supervised(view: SweepView) -> SweepView:
    """Return the same sweep with the error at 100 labels as its objective: lower is better."""
    trials = [replace(t, metrics=_as_errors(t.metrics)) for t in view.trials]
    groups = [
        group
        | {
            "metrics": {
                _ERRORS[name]: ranking.summarise([_error(v) for v in figures["values"]])
                for name, figures in group["metrics"].items()
                if name in _ERRORS
            }
        }
        for group in view.best["groups"]
    ]
    models = [
        {
            **{name: model[name] for name in ("checkpoint", "seed", "group")},
            "metrics": {"test/error": 2.0, "test/recon": 17.0},
        }
        for model in view.evaluation["models"]
    ]
    study = optuna.create_study(direction="minimize")
    study.add_trials(
        optuna.trial.create_trial(
            params=t.params, distributions=t.distributions, value=_error(t.value)
        )
        for t in view.study.trials
        if t.value is not None
    )
    return replace(
        view,
        status=view.status | {"objective": {"metric": "val/error", "direction": "minimize"}},
        trials=trials,
        curves={key: [_as_errors(point) for point in curve] for key, curve in view.curves.items()},
        best=view.best | {"groups": groups, "metrics": groups[0]["metrics"]},
        evaluation={"models": models},
        study=study,
        spec=view.spec
        | {
            "data": view.spec["data"] | {"labels": 100},
            "model": view.spec["model"] | {"kind": "semi_supervised"},
        },
    )


_ERRORS = {METRIC: "val/error", "test/parzen_ll": "test/error"}


def _error(log_likelihood: float) -> float:
    """Return an error in per cent that falls as the likelihood rises."""
    return (345 - log_likelihood) / 10


def _as_errors(metrics: dict[str, float]) -> dict[str, float]:
    return {
        _ERRORS.get(name, name): _error(value) if name in _ERRORS else value
        for name, value in metrics.items()
    }


def with_control(view: SweepView, level: float, margin: float | None) -> SweepView:
    """Return the same sweep with a margin and with a control of mean `level` and the same seeds."""
    winner, *others = (
        ranking.Candidate(group["config_hash"], group["params"], tuple(runs))
        for group in view.best["groups"]
        for runs in [[t for t in view.trials if t.config_hash == group["config_hash"]]]
    )
    control = [
        replace(
            run,
            number=100 + place,
            config_hash="ba5e11e0",
            params={},
            metrics={METRIC: level + (place - 1) / 4, "test/parzen_ll": level - 2},
        )
        for place, run in enumerate(winner.runs)
    ]
    [found] = ranking.candidates(control)
    versus = ranking.compare(found, winner, METRIC)
    ranks = [None, *ranking.versus_best([winner, *others], METRIC)]
    groups = [
        group | {"verdict": verdicts.verdict(rank, "maximize", margin)}
        for group, rank in zip(view.best["groups"], ranks, strict=True)
    ]
    baseline = {
        "params": {},
        "config_hash": "ba5e11e0",
        "seeds": found.seeds,
        "metrics": {
            name: ranking.summarise(list(found.values(name).values()))
            for name in (METRIC, "test/parzen_ll")
        },
        "versus_best": asdict(versus),
        "difference": verdicts.difference(versus),
    }
    key = ("confirm", view.best["trials"][0])
    return replace(
        view,
        trials=[*view.trials, *control],
        curves=view.curves | {("confirm", r.number): view.curves[key] for r in control},
        best=view.best
        | {
            "groups": groups,
            "margin": margin,
            "baseline": baseline,
            "gain": verdicts.gain(winner, found, METRIC, "maximize"),
        },
    )


def without_results(view: SweepView, **changes: Any) -> SweepView:
    """Return the same sweep before its first results."""
    return replace(
        view, best=None, evaluation=None, study=None, pictures=[], curves={}, trials=[], **changes
    )


def hostile(view: SweepView) -> SweepView:
    """Return the same sweep with markup in every name."""
    assert view.best is not None
    assert view.evaluation is not None
    return replace(
        view,
        status={**view.status, "sweep": HOSTILE, "id": HOSTILE, "resume": HOSTILE},
        trials=[
            replace(t, params=_hostile(t.params), reason=HOSTILE, node=HOSTILE) for t in view.trials
        ],
        best=_hostile(view.best),
        evaluation=_hostile(view.evaluation),
        study=None,
        pictures=[replace(p, title=HOSTILE, alt=HOSTILE) for p in view.pictures],
        spec_text=HOSTILE,
        spec={**view.spec, "name": HOSTILE},
    )


def _hostile(document: Any) -> Any:
    text = json.dumps(document).replace('"gaussian"', json.dumps(HOSTILE))
    return json.loads(text.replace("prior.std", "<b>p"))


def count_states(trials: list[RunRecord]) -> dict[str, int]:
    return {state: sum(trial.state == state for trial in trials) for state in TRIAL_STATES}


def _suggest(number: int, rng: random.Random) -> dict[str, Any]:
    encoder = ENCODERS[number % 3]
    params = {
        "model.encoder.kind": encoder,
        "model.prior.std": round(10 ** rng.uniform(-0.3, 1.3), 3),
        "model.code_dim": rng.randint(4, 16),
        "training.reconstruction.lr": 10 ** rng.uniform(-2.9, -1.55),
        "training.adversarial.lr": 10 ** rng.uniform(-1.9, -0.55),
        "training.schedule.kind": rng.choice(["constant", "step", "cosine"]),
    }
    return params | (
        {"model.encoder.noise_dim": rng.randint(2, 64)} if encoder == "universal" else {}
    )


def _trial(
    stage: Any,
    number: int,
    params: dict[str, Any],
    epochs: int,
    curves: dict[tuple[str, int], list[dict[str, float]]],
    rng: random.Random,
) -> RunRecord:
    state, reason, last = "complete", None, epochs
    if stage == "search" and number % 4 == 3:
        state, reason, last = "pruned", "successive halving, rung 1", epochs // 3
    elif stage == "search" and number == 6:
        state, reason, last = "diverged", "train/gen_z is not finite in epoch 4", 4
    elif stage == "search" and number == 10:
        state, reason, last = "failed", "worker killed 3 times", 7
    lost = stage == "search" and number % 11 == 5
    level = BEST_REACHED[params["model.encoder.kind"]] + rng.gauss(0, 1.3)
    if stage == "search":
        level -= 2.2 * abs(params["model.code_dim"] - 6)
        level -= 14 * abs(math.log10(params["model.prior.std"] / 5))
    curve = [
        {
            "epoch": epoch,
            METRIC: level - 220 * math.exp(-epoch / 3.5) + rng.gauss(0, 0.8),
            "val/recon": 30 - params["model.code_dim"] - params["model.prior.std"] / 8,
        }
        for epoch in range(1, last + 1)
    ]
    curves[stage, number] = curve
    start = datetime(2026, 3, 1, 9, tzinfo=UTC) + timedelta(minutes=number // 4 * 9)
    if stage == "confirm":
        start += timedelta(hours=1, minutes=10)
    return RunRecord(
        number=number,
        stage=stage,
        state=state,  # type: ignore[arg-type]
        seed=1000 + number if stage == "search" else 2001 + 2 * (number % 3),
        config_hash=f"{'ba5e' if stage == 'search' else 'c0ff'}{number // 3:08d}",
        params=params,
        reason=reason,
        attempts=2 if lost else 1,
        resumed_from=[last // 2] if lost else [],
        node=f"10.0.0.{2 + number % 2}",
        epochs=last,
        epochs_computed=last,
        metrics={
            METRIC: curve[-1][METRIC],
            **(
                {
                    "val/parzen_codes": curve[-1][METRIC] + 16.3,
                    "val/prior_gap": 16.3,
                    "test/parzen_ll": curve[-1][METRIC] - 2.0,
                }
                if stage == "confirm"
                else {"val/recon": curve[-1]["val/recon"]}
            ),
        },
        checkpoint=f"trials/{stage}-{number:04d}/1/epoch-{last:05d}",
        started=start.isoformat(),
        seconds=17.0 * last + rng.uniform(0, 20),
    )


def _best_trial(search: list[RunRecord], encoder: str) -> RunRecord:
    members = [
        trial
        for trial in search
        if trial.params["model.encoder.kind"] == encoder and trial.state == "complete"
    ]
    return max(members, key=lambda trial: trial.metrics[METRIC])


def _status(trials: list[RunRecord]) -> dict[str, Any]:
    return {
        "sweep": "likelihood_mnist",
        "id": "likelihood_mnist-1a2b3c4d",
        "config_hash": "9f8e7d6c5b4a",
        "stage": "done",
        "state": "done",
        "trials": count_states(trials),
        "objective": {"metric": METRIC, "direction": "maximize"},
        "secondary_objectives": [{"metric": "val/recon", "direction": "minimize"}],
        "best": {"trial": 1, "metric": METRIC, "value": 326.0, "se": 0.4, "confirmed": True},
        "planned": {"search": len(trials), "confirm": 9},
        "elapsed_seconds": 7860.0,
        "eta_seconds": None,
        "train_seconds": 3600.0,
        "energy_joules": 7.2e5,
        "cost": {"amount": 2.5, "currency": "EUR"},
        "resume": "aae-sweep run sweeps/likelihood_mnist.yaml",
    }


def _best(confirm: list[RunRecord]) -> dict[str, Any]:
    """Return the document that `ResultsReader` returns, by the same selection."""
    ranked = ranking.rank(ranking.candidates(confirm), METRIC, "maximize")
    compared = [None, *ranking.versus_best(ranked, METRIC)]
    groups = [
        {
            "by": "model.encoder.kind",
            "value": candidate.params["model.encoder.kind"],
            "params": candidate.params,
            "config_hash": candidate.config_hash,
            "seeds": candidate.seeds,
            "trials": [run.number for run in candidate.runs],
            "metrics": {
                name: ranking.summarise(list(candidate.values(name).values()))
                for name in (METRIC, "val/parzen_codes", "val/prior_gap", "test/parzen_ll")
            },
            "checkpoints": [run.checkpoint for run in candidate.runs],
            "run_ids": [],
            "tied_with_best": versus is None or versus.tied,
            "versus_best": asdict(versus) if versus else None,
            "difference": verdicts.difference(versus),
            "verdict": verdicts.verdict(versus, "maximize", None),
            "optimism": 1.25,
        }
        for candidate, versus in zip(ranked, compared, strict=True)
    ]
    first, *others = groups
    return first | {
        "confirmed": True,
        "groups": groups,
        "tied_with": [group["config_hash"] for group in others if group["tied_with_best"]],
        "objective": {"metric": METRIC, "direction": "maximize"},
        "margin": None,
        "baseline": None,
        "gain": None,
        "data_sha256": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "code_version": "0.1.0+g70e2917",
    }


def _evaluation(confirm: list[RunRecord]) -> dict[str, Any]:
    return {"models": [_scored(trial) for trial in confirm if trial.number % 3 == 0]}


def _scored(trial: RunRecord) -> dict[str, Any]:
    base = trial.metrics["test/parzen_ll"]
    curve = [
        {
            "n_samples": 10**power,
            "log_likelihood": base + 27.0 * (power - 4),
            "standard_error": 1.9,
            "sigma": 0.167 * 0.9 ** (power - 4),
            "log_likelihood_grid": base + 27.0 * (power - 4) - 0.7 * (power - 3),
            "standard_error_grid": 1.8,
            "sigma_grid": 0.167 if power < 6 else 0.129,
        }
        for power in (4, 5, 6, 7)
    ]
    return {
        **curve[-1],
        "n_valid": 1000,
        "n_test": 10_000,
        "dim": 784,
        "sigma_at_edge": False,
        "seconds": 812.0,
        "checkpoint": trial.checkpoint,
        "seed": trial.seed,
        "group": trial.params["model.encoder.kind"],
        "curve": curve,
        "controls": [
            _control("train_images", 10_000, 248.8),
            _control("train_images", 50_000, 282.4),
            _control("kmeans", 10_000, 344.3),
        ],
    }


def _control(kind: str, n: int, log_likelihood: float) -> dict[str, Any]:
    return {
        "kind": kind,
        "n_samples": n,
        "log_likelihood": log_likelihood,
        "standard_error": 1.8,
        "sigma": 0.156,
        "log_likelihood_grid": log_likelihood - 4.5,
    }


def _study(search: list[RunRecord]) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        optuna.trial.create_trial(
            params=trial.params,
            distributions={path: _distribution(SPACE[path]) for path in trial.params},
            value=trial.metrics[METRIC],
        )
        for trial in search
        if trial.state == "complete"
    )
    return study


def _distribution(entry: dict[str, Any]) -> optuna.distributions.BaseDistribution:
    if "choice" in entry:
        return optuna.distributions.CategoricalDistribution(entry["choice"])
    if "int" in entry:
        return optuna.distributions.IntDistribution(*entry["int"], log=entry.get("log", False))
    return optuna.distributions.FloatDistribution(*entry["float"], log=entry.get("log", False))


def _png(path: Path, width: int, height: int) -> Path:
    """Write a grey gradient with a minimal PNG writer."""
    rows = b"".join(
        b"\0" + bytes((x * 7 + y * 3) % 256 for x in range(width)) for y in range(height)
    )

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path
