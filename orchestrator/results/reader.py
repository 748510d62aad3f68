"""Read sweeps for every command that shows results: events from the study, numbers from the outbox.

The reader never writes, and needs neither Ray nor torch.  Its documents are those of `--json`.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from optuna import Study

from aae_core.metrics import Direction
from aae_core.reading import digest
from orchestrator import documents
from orchestrator.errors import EnvironmentUnusable, UsageError
from orchestrator.records import TRIAL_STATES, RunRecord, Stage, SweepRunState, conditions
from orchestrator.results import ranking, verdicts
from orchestrator.results.ranking import Candidate, Comparison
from orchestrator.settings import Settings
from orchestrator.study.lock import is_held
from orchestrator.study.queue import queued, shares
from orchestrator.study.state import SweepState
from orchestrator.study.study import StageStudy, open_storage, sweep_ids
from orchestrator.sweepfile.spec import SweepSpec
from orchestrator.text import count, number
from orchestrator.tracking.outbox import Outbox

DEPARTURES = "aae.departures"  # tag of a trial's run: how its training departs from the paper's


@dataclass(frozen=True)
class Picture:
    path: Path  # a PNG
    title: str
    alt: str


@dataclass(frozen=True)
class SweepView:
    """Everything that a report shows of one sweep."""

    status: documents.Status
    trials: list[RunRecord]
    curves: dict[tuple[str, int], list[dict[str, float]]]  # (stage, number) -> a row per epoch
    best: documents.Best | None
    evaluation: documents.Evaluation | None
    study: Study | None  # of the search; read only
    pictures: list[Picture]
    spec: dict[str, Any]  # resolved
    spec_text: str  # as its author wrote it
    space: dict[str, Any]


class ResultsReader:
    """Reader of the studies and the outbox of `settings`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._storage = open_storage(settings, read_only=True)
        self._outbox = Outbox(settings.outbox, read_only=True)

    def sweeps(self) -> list[str]:
        """Return the sweep ids, oldest first."""
        return sweep_ids(self._storage)

    def resolve(self, name: str) -> str:
        """Return the sweep id for an id, an id's prefix, a name (its latest sweep) or `latest`."""
        known = self.sweeps()
        if not known:
            raise UsageError(nothing_yet(self.settings))
        if name == "latest":
            return max(known, key=lambda sweep: self.state(sweep).touched)
        if name in known:
            return name
        named = [sweep for sweep in known if self.state(sweep).name == name]
        if named:
            return max(named, key=lambda sweep: self.state(sweep).touched)
        begun = [sweep for sweep in known if sweep.startswith(name)]
        if len(begun) == 1:
            return begun[0]
        listed = ", ".join(begun or known)
        raise UsageError(f"`{name}` names {'several sweeps' if begun else 'no sweep'}: {listed}")

    def knows(self, name: str) -> bool:
        """Return True if a sweep has this name or id."""
        known = self.sweeps()
        return name in known or any(self.state(sweep).name == name for sweep in known)

    def is_done(self, spec: SweepSpec) -> bool:
        """Return True if the same sweep file has been run to its end."""
        study = StageStudy.read(self._storage, spec.sweep_id, "search")
        return study is not None and study.state.done == digest(spec.resolved())

    def status(self, sweep: str) -> documents.Status:
        search = self._search(sweep)
        records = [*self.trials(sweep, "search"), *self.trials(sweep, "confirm")]
        counts = {state: sum(r.state == state for r in records) for state in TRIAL_STATES}
        parent = self._outbox.run(sweep)
        state = search.state
        done = state.done is not None
        running = is_held(self.settings, sweep)
        return {
            "sweep": state.name,
            "id": sweep,
            "config_hash": sweep.rsplit("-", 1)[-1],
            "stage": "done" if done else state.stage,
            "state": _state(state, running),
            "trials": counts,
            "planned": state.planned,
            "objective": self.objective(sweep),
            "secondary_objectives": [
                {"metric": m, "direction": d} for m, d in [*self.objectives(sweep).items()][1:]
            ],
            "best": self._best_trial(sweep),
            "elapsed_seconds": state.elapsed,
            "paused": running and state.request == "pause",
            "eta_seconds": self._eta(sweep, records) if running else (0.0 if done else None),
            **_consumed(records, state.spec.get("resources") or {}),
            "unsynced": self._outbox.unsynced(sweep),
            "mlflow": {
                "experiment_id": parent.experiment_id if parent else None,
                "run_id": parent.run_id if parent else None,
            },
            "report": str(self.settings.report(sweep)) if state.report else None,
            "resume": state.resume,
        }

    def queue(self) -> list[documents.QueuedSweep]:
        """Describe the queued sweeps whose drivers run, in the order of service."""
        places = queued(self.settings, self._storage)
        parts = shares(places)
        return [
            {"id": sweep, "stage": self.state(sweep).stage, "share": parts[sweep], **place}
            for sweep, place in places.items()
        ]

    def objective(self, sweep: str) -> documents.DirectedMetric:
        metric, direction = next(iter(self.objectives(sweep).items()))
        return {"metric": metric, "direction": direction}

    def objectives(self, sweep: str) -> dict[str, Direction]:
        """Return the objectives with their directions, the main objective first."""
        return self._search(sweep).objectives

    def trials(self, sweep: str, stage: Stage | None = None) -> list[RunRecord]:
        """Return the trials with their last metrics, search before confirm."""
        run_ids = self._outbox.run_ids(sweep)
        found = []
        for each in ("search", "confirm") if stage is None else (stage,):
            study = StageStudy.read(self._storage, sweep, each)
            for record in study.records() if study else []:
                key = run_key(sweep, record.stage, record.number)
                metrics = self._outbox.last(key)
                metrics.pop("epoch", None)
                found.append(
                    replace(record, metrics=record.metrics | metrics, run_id=run_ids.get(key))
                )
        return found

    def curve(self, sweep: str, record: RunRecord) -> list[dict[str, float]]:
        """Return one row per epoch: {"epoch": 1, "train/recon": …}."""
        return self._outbox.history(run_key(sweep, record.stage, record.number))

    def candidates(self, sweep: str) -> tuple[list[Candidate], Candidate | None]:
        """Return the confirmed candidates, and the control: the file's own configuration."""
        study = StageStudy.read(self._storage, sweep, "confirm")
        baseline = study.state.baseline if study else None
        return ranking.apart(ranking.candidates(self.trials(sweep, "confirm")), baseline)

    def best(self, sweep: str) -> documents.Best | None:
        """Describe the confirmed winner, or else the search's best with `confirmed` false."""
        objectives = self.objectives(sweep)
        metric, direction = next(iter(objectives.items()))
        confirm = self.spec(sweep)["confirm"]
        found, control = self.candidates(sweep)
        ranked = ranking.rank(found, metric, direction, seeds=confirm["seeds"])
        confirmed = bool(ranked)
        if not ranked:
            searched = self.trials(sweep, "search")
            best = ranking.best_trials(searched, objectives, top=1, per=None)
            ranked = [Candidate(r.config_hash, r.params, (r,)) for r in best]
        if not ranked:
            return None
        winner = ranked[0]
        per, margin = confirm["per"], confirm.get("margin")
        promised = self._promised(sweep, ranked) if confirmed else {}
        compared = [None, *ranking.versus_best(ranked, metric)]
        tied = [c.config_hash for c, v in zip(ranked, compared, strict=True) if v and v.tied]
        document: documents.Best = {
            "sweep": sweep,
            **_describe(winner),
            "confirmed": confirmed,
            "departures": self._departures(sweep, winner.runs[0]),
            "groups": [
                {
                    **_compared(c, versus),
                    "by": per,
                    "value": c.params.get(per) if per else None,
                    "tied_with_best": versus is None or versus.tied,
                    "optimism": _optimism(c, metric, promised.get(c.config_hash)),
                    "verdict": (
                        verdicts.verdict(versus, direction, margin) if confirmed else "undecided"
                    ),
                }
                for c, versus in zip(ranked, compared, strict=True)
            ],
            "tied_with": sorted(tied),
            "objective": {"metric": metric, "direction": direction},
            "margin": margin,
            "baseline": _control(control, winner, metric),
            "gain": verdicts.gain(winner, control, metric, direction) if confirmed else None,
            "data_sha256": self.data_sha256(sweep),
            "code_version": self.state(sweep).code_version,
        }
        return document

    def tags(self, sweep: str, record: RunRecord) -> dict[str, str]:
        """Return the tags of a trial's run: versions, processor and threads of its training."""
        run = self._outbox.run(run_key(sweep, record.stage, record.number))
        return dict(run.tags) if run else {}

    def state(self, sweep: str) -> SweepState:
        """Return what the driver recorded of the sweep as a whole."""
        return self._search(sweep).state

    def evaluation(self, sweep: str) -> documents.Evaluation | None:
        """Return the last evaluation on the test set, or None."""
        path = self.settings.evaluation(sweep)
        if not path.exists():
            return None
        document: documents.Evaluation = json.loads(path.read_text())
        for model in document["models"]:
            if recorded := model["checkpoint"]:
                model["checkpoint"] = str(self.settings.checkpoint(sweep, recorded))
        return document

    def spec(self, sweep: str) -> dict[str, Any]:
        """Return the resolved sweep file. Raises EnvironmentUnusable if the study has none."""
        spec = self.state(sweep).spec
        if not {"search", "confirm"} <= spec.keys():
            raise EnvironmentUnusable(
                f"the study of {sweep} has no sweep file: its driver has just started, or another "
                "program wrote to the study; run the sweep's file again"
            )
        return spec

    def data_sha256(self, sweep: str) -> str | None:
        """Return the checksum of the training and validation images; None before they are read."""
        return self.state(sweep).data_sha256

    def spec_text(self, sweep: str) -> str:
        return self.state(sweep).spec_text

    def view(self, sweep: str) -> SweepView:
        trials = self.trials(sweep)
        search, spec = self._search(sweep), self.spec(sweep)
        folder = self.settings.pictures_folder(sweep)
        return SweepView(
            status=self.status(sweep),
            trials=trials,
            curves={(r.stage, r.number): self.curve(sweep, r) for r in trials},
            best=self.best(sweep),
            evaluation=self.evaluation(sweep),
            study=search.optuna_study if trials else None,
            pictures=[
                Picture(folder / name, title, alt)
                for name, title, alt in PICTURES
                if (folder / name).exists()
            ],
            spec=spec,
            spec_text=self.spec_text(sweep),
            space=(spec.get("search") or {}).get("space", {}),
        )

    def _search(self, sweep: str) -> StageStudy:
        study = StageStudy.read(self._storage, sweep, "search")
        if study is None:
            raise UsageError(f"`{sweep}` names no sweep")
        return study

    def _departures(self, sweep: str, record: RunRecord) -> list[str]:
        """Return how a trial departs from the paper; empty if no departures are recorded."""
        departures = self.tags(sweep, record).get(DEPARTURES)
        return departures.split("; ") if departures else []

    def _promised(self, sweep: str, confirmed: list[Candidate]) -> dict[str, float]:
        """Return the value by which the search ranked each of these configurations, by hash."""
        search, hashes = self._search(sweep), {c.config_hash for c in confirmed}
        known = [record for record in search.records() if record.config_hash in hashes]
        metric = next(iter(search.objectives))
        ranked = ranking.best_trials(known, search.objectives, top=len(known), per=None)
        return {record.config_hash: record.metrics[metric] for record in ranked}

    def _best_trial(self, sweep: str) -> documents.BestTrial | None:
        best = self.best(sweep)
        if best is None:
            return None
        metric = self.objective(sweep)["metric"]
        figures = best["metrics"][metric]
        return {
            "trial": best["trials"][0],
            "metric": metric,
            "value": figures["mean"],
            "se": figures["se"],
            "confirmed": best["confirmed"],
        }

    def _eta(self, sweep: str, records: list[RunRecord]) -> float | None:
        """Estimate the seconds left, with the planned trials at the pace of the ended trials."""
        state = self.state(sweep)
        ended = sum(r.state not in ("running", "waiting") for r in records)
        planned = sum(state.planned.values())
        if not ended:
            return None
        return state.elapsed / ended * max(planned - ended, 0)


def _consumed(records: list[RunRecord], resources: dict[str, Any]) -> documents.Consumption:
    seconds = sum(record.train_seconds for record in records)
    energies = [r.energy_joules for r in records if r.energy_joules is not None]
    return {
        "train_seconds": seconds,
        "energy_joules": sum(energies) if energies else None,
        "cost": cost(seconds, resources),
    }


def cost(seconds: float, resources: dict[str, Any]) -> documents.Money | None:
    """Return the price of some seconds of training; None without `resources.price_per_hour`."""
    price = resources.get("price_per_hour")
    if price is None:
        return None
    return {"amount": price * seconds / 3600, "currency": resources.get("currency")}


def _state(state: SweepState, running: bool) -> SweepRunState:
    """Return the sweep's state; `running`, left by a killed driver, becomes `interrupted`."""
    if state.done is not None or running:
        return "running" if state.done is None else "done"
    return "interrupted" if state.state == "running" else state.state


PICTURES = (
    (
        "samples.png",
        "Samples",
        "Samples of the winner; the last column shows the training image nearest to the last "
        "sample of its row",
    ),
    (
        "latent.png",
        "Codes of validation images",
        "Validation codes by label over draws of the prior; codes of more than two dimensions are "
        "projected to the plane of the cluster heads or to the principal axes",
    ),
    (
        "manifold.png",
        "Manifold",
        "Decoded even percentiles of the prior; three petals of a mixture",
    ),
    ("styles.png", "Styles and labels", "One row per style, one column per label"),
    (
        "clusters.png",
        "Clusters",
        "One row per cluster: its head, decoded at z = 0, then its validation images",
    ),
    ("walk.png", "Walk", "One row per walk from one draw of the prior to another"),
)


def summary(best: documents.Best) -> str:
    """Summarise the document of `best` in Markdown: metrics over all seeds, gain, parameters."""
    figures = {
        name: number(found["mean"], found["se"])
        for name, found in best["metrics"].items()
        if found["mean"] is not None
    }
    splits = ("val", "test")
    names = dict.fromkeys(
        name for split, _, name in (key.partition("/") for key in figures) if split in splits
    )
    metrics = [[name, *(figures.get(f"{s}/{name}", "–") for s in splits)] for name in names]
    parts = (
        f"**{best['sweep']}**: the winner over {count(len(best['seeds']), 'seed')}",
        _markdown(["metric", "validation", "test"], metrics),
        verdicts.gain_in_words(best),
        _markdown(["setting", "value"], [[path, str(v)] for path, v in best["params"].items()]),
    )
    return "\n\n".join(filter(None, parts))


def _markdown(headers: list[str], rows: list[list[str]]) -> str | None:
    """Return a table in Markdown, None without rows."""
    if not rows:
        return None
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def nothing_yet(settings: Settings) -> str:
    return f"no sweep has been run in {settings.home}; begin with: aae-sweep run quickstart"


def run_key(sweep: str, stage: str, number: int) -> str:
    """Return the key of a trial's run in the outbox."""
    return f"{sweep}/{stage}/{number}"


def as_document(record: RunRecord) -> dict[str, Any]:
    """Return a trial for `--json`; non-finite numbers become null."""
    document = asdict(record)
    document["metrics"] = finite(record.metrics)
    document["conditions"] = conditions(record.metrics)
    return document


def as_row(record: RunRecord) -> dict[str, Any]:
    """Flatten a trial: a column per field, parameter and metric."""
    document = as_document(record)
    params: dict[str, Any] = document.pop("params")
    metrics: dict[str, Any] = document.pop("metrics")
    return {**document, **params, **metrics}


def finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _optimism(candidate: Candidate, metric: str, promised: float | None) -> float | None:
    """Return the search's value, `promised`, minus the confirmed mean."""
    mean = ranking.summarise(list(candidate.values(metric).values()))["mean"]
    if promised is None or mean is None or not math.isfinite(promised):
        return None
    return promised - mean


def _control(
    control: Candidate | None, winner: Candidate, metric: str
) -> documents.Compared | None:
    """Describe the control like a candidate, beside the winner; its parameters are the file's."""
    if control is None:
        return None
    versus = ranking.compare(control, winner, metric)
    return {**_compared(control, versus), "params": {}}


def _compared(candidate: Candidate, versus: Comparison | None) -> documents.Compared:
    document = {
        **_describe(candidate),
        "versus_best": versus_document(versus),
        "difference": verdicts.difference(versus),
    }
    return cast(documents.Compared, document)


def versus_document(comparison: Comparison | None) -> documents.Versus | None:
    return cast(documents.Versus, asdict(comparison)) if comparison else None


def _describe(candidate: Candidate) -> documents.CandidateFigures:
    names = sorted({name for run in candidate.runs for name in run.metrics})
    return {
        "params": candidate.params,
        "config_hash": candidate.config_hash,
        "seeds": candidate.seeds,
        "trials": [run.number for run in candidate.runs],
        "metrics": {
            name: ranking.summarise(list(candidate.values(name).values())) for name in names
        },
        "checkpoints": [run.checkpoint for run in candidate.runs],
        "run_ids": [run.run_id for run in candidate.runs],
    }
