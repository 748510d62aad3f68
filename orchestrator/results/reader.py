"""Read sweeps for every command that shows results: events from the study, numbers from the outbox.

The reader never writes, and needs neither Ray nor torch.  Its documents are those of `--json`.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optuna import Study

from aae_core.config import digest
from orchestrator.errors import UsageError
from orchestrator.records import TRIAL_STATES, Direction, RunRecord, Stage, conditions
from orchestrator.results import ranking, verdicts
from orchestrator.results.ranking import Candidate, Comparison
from orchestrator.settings import Settings
from orchestrator.study.lock import is_held
from orchestrator.study.study import Ledger, open_storage, sweep_ids
from orchestrator.sweepfile.spec import SweepSpec
from orchestrator.tracking.outbox import Spool

DEPARTURES = "aae.departures"  # tag of a trial's run: how its training departs from the paper's


@dataclass(frozen=True)
class Picture:
    path: Path  # a PNG
    title: str
    alt: str


@dataclass(frozen=True)
class SweepView:
    """Everything that a report shows of one sweep."""

    status: dict[str, Any]
    trials: list[RunRecord]
    curves: dict[tuple[str, int], list[dict[str, float]]]  # (stage, number) -> a row per epoch
    best: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    study: Study | None  # of the search; read only
    pictures: list[Picture]
    spec: dict[str, Any]  # resolved
    spec_text: str  # as its author wrote it
    space: dict[str, Any]


class History:
    """Reader of the studies and the outbox of `settings`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._storage = open_storage(settings, read_only=True)
        self._spool = Spool(settings.spool, read_only=True)

    def sweeps(self) -> list[str]:
        """Return the sweep ids, oldest first."""
        return sweep_ids(self._storage)

    def resolve(self, name: str) -> str:
        """Return the sweep id for an id, an id's prefix, a name (its latest sweep) or `latest`."""
        known = self.sweeps()
        if not known:
            raise UsageError(nothing_yet(self.settings))
        if name == "latest":
            return max(known, key=lambda sweep: self._search(sweep).attribute("touched", ""))
        if name in known:
            return name
        named = [sweep for sweep in known if self._search(sweep).attribute("name") == name]
        if named:
            return max(named, key=lambda sweep: self._search(sweep).attribute("touched", ""))
        begun = [sweep for sweep in known if sweep.startswith(name)]
        if len(begun) == 1:
            return begun[0]
        told = ", ".join(begun or known)
        raise UsageError(f"`{name}` names {'several sweeps' if begun else 'no sweep'}: {told}")

    def is_done(self, spec: SweepSpec) -> bool:
        """Return True if the same sweep file has been run to its end."""
        ledger = Ledger.read(self._storage, spec.sweep_id, "search")
        return ledger is not None and ledger.attribute("done") == digest(spec.resolved())

    def status(self, sweep: str) -> dict[str, Any]:
        search = self._search(sweep)
        records = [*self.trials(sweep, "search"), *self.trials(sweep, "confirm")]
        counts = {state: sum(r.state == state for r in records) for state in TRIAL_STATES}
        parent = self._spool.run(sweep)
        done = search.attribute("done") is not None
        running = is_held(self.settings, sweep)
        return {
            "sweep": search.attribute("name"),
            "id": sweep,
            "config_hash": sweep.rsplit("-", 1)[-1],
            "stage": "done" if done else search.attribute("stage", "search"),
            "state": _state(search, done, running),
            "trials": counts,
            "planned": search.attribute("planned", {}),
            "objective": self.objective(sweep),
            "also": [{"metric": m, "direction": d} for m, d in [*self.goals(sweep).items()][1:]],
            "best": self._best_trial(sweep),
            "elapsed_seconds": search.attribute("elapsed", 0.0),
            "paused": running and search.attribute("wish") == "pause",
            "eta_seconds": self._eta(sweep, records) if running else (0.0 if done else None),
            "unsynced": self._spool.unsynced(sweep),
            "mlflow": {
                "experiment_id": parent.experiment_id if parent else None,
                "run_id": parent.run_id if parent else None,
            },
            "report": search.attribute("report"),
            "resume": search.attribute("resume"),
        }

    def objective(self, sweep: str) -> dict[str, str]:
        metric, direction = next(iter(self.goals(sweep).items()))
        return {"metric": metric, "direction": direction}

    def goals(self, sweep: str) -> dict[str, Direction]:
        """Return the objectives with their directions, the main objective first."""
        return self._search(sweep).goals

    def trials(self, sweep: str, stage: Stage | None = None) -> list[RunRecord]:
        """Return the trials with their last metrics, search before confirm."""
        run_ids = self._spool.run_ids(sweep)
        found = []
        for each in ("search", "confirm") if stage is None else (stage,):
            ledger = Ledger.read(self._storage, sweep, each)
            for record in ledger.records() if ledger else []:
                key = run_key(sweep, record.stage, record.number)
                metrics = self._spool.last(key)
                metrics.pop("epoch", None)
                found.append(
                    replace(record, metrics=record.metrics | metrics, run_id=run_ids.get(key))
                )
        return found

    def curve(self, sweep: str, record: RunRecord) -> list[dict[str, float]]:
        """Return one row per epoch: {"epoch": 1, "train/recon": …}."""
        return self._spool.history(run_key(sweep, record.stage, record.number))

    def candidates(self, sweep: str) -> tuple[list[Candidate], Candidate | None]:
        """Return the confirmed candidates, and the control: the file's own configuration."""
        ledger = Ledger.read(self._storage, sweep, "confirm")
        baseline = ledger.attribute("baseline") if ledger else None
        return ranking.apart(ranking.candidates(self.trials(sweep, "confirm")), baseline)

    def best(self, sweep: str) -> dict[str, Any] | None:
        """Describe the confirmed winner, or else the search's best with `confirmed` false."""
        goals = self.goals(sweep)
        metric, direction = next(iter(goals.items()))
        confirm = self.spec(sweep)["confirm"]
        found, control = self.candidates(sweep)
        ranked = ranking.rank(found, metric, direction, seeds=confirm["seeds"])
        confirmed = bool(ranked)
        if not ranked:
            leader = ranking.contenders(self.trials(sweep, "search"), goals, top=1, per=None)
            ranked = [Candidate(r.config_hash, r.params, (r,)) for r in leader]
        if not ranked:
            return None
        winner, search = ranked[0], self._search(sweep)
        per, margin = confirm["per"], confirm.get("margin")
        promised = self._promised(sweep, ranked) if confirmed else {}
        compared = [None, *ranking.versus_best(ranked, metric)]
        tied = [c.config_hash for c, v in zip(ranked, compared, strict=True) if v and v.tied]
        return {
            "sweep": sweep,
            **_describe(winner),
            "confirmed": confirmed,
            "departures": self._departures(sweep, winner.runs[0]),
            "groups": [
                {
                    "by": per,
                    "value": c.params.get(per) if per else None,
                    "tied_with_best": versus is None or versus.tied,
                    "versus_best": asdict(versus) if versus else None,
                    **_describe(c),
                    **_judged(c, versus, metric, promised.get(c.config_hash)),
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
            "code_version": search.attribute("code_version"),
        }

    def tags(self, sweep: str, record: RunRecord) -> dict[str, str]:
        """Return the tags of a trial's run: versions, processor and threads of its training."""
        run = self._spool.run(run_key(sweep, record.stage, record.number))
        return dict(run.tags) if run else {}

    def attribute(self, sweep: str, name: str, default: Any = None) -> Any:
        """Return an attribute that the driver recorded for a sweep."""
        return self._search(sweep).attribute(name, default)

    def evaluation(self, sweep: str) -> dict[str, Any] | None:
        """Return the last evaluation on the test set, or None."""
        path = evaluation_path(self.settings, sweep)
        if not path.exists():
            return None
        document: dict[str, Any] = json.loads(path.read_text())
        return document

    def spec(self, sweep: str) -> dict[str, Any]:
        """Return the resolved sweep file."""
        spec: dict[str, Any] = self._search(sweep).attribute("spec")
        return spec

    def data_sha256(self, sweep: str) -> str | None:
        """Return the checksum of the training and validation images; None before they are read."""
        checksum: str | None = self._search(sweep).attribute("data_sha256")
        return checksum

    def spec_text(self, sweep: str) -> str:
        return str(self._search(sweep).attribute("spec_text", ""))

    def view(self, sweep: str) -> SweepView:
        trials = self.trials(sweep)
        search, spec = self._search(sweep), self.spec(sweep)
        folder = self.settings.sweep_folder(sweep) / "pictures"
        return SweepView(
            status=self.status(sweep),
            trials=trials,
            curves={(r.stage, r.number): self.curve(sweep, r) for r in trials},
            best=self.best(sweep),
            evaluation=self.evaluation(sweep),
            study=search.study if trials else None,
            pictures=[
                Picture(folder / name, title, alt)
                for name, title, alt in PICTURES
                if (folder / name).exists()
            ],
            spec=spec,
            spec_text=self.spec_text(sweep),
            space=(spec.get("search") or {}).get("space", {}),
        )

    def _search(self, sweep: str) -> Ledger:
        ledger = Ledger.read(self._storage, sweep, "search")
        if ledger is None:
            raise UsageError(f"`{sweep}` names no sweep")
        return ledger

    def _departures(self, sweep: str, record: RunRecord) -> list[str]:
        """Return how a trial departs from the paper; empty if no departures are recorded."""
        departures = self.tags(sweep, record).get(DEPARTURES)
        return departures.split("; ") if departures else []

    def _promised(self, sweep: str, confirmed: list[Candidate]) -> dict[str, float]:
        """Return the value by which the search ranked each of these configurations, by hash."""
        search, hashes = self._search(sweep), {c.config_hash for c in confirmed}
        known = [record for record in search.records() if record.config_hash in hashes]
        metric = next(iter(search.goals))
        ranked = ranking.contenders(known, search.goals, top=len(known), per=None)
        return {record.config_hash: record.metrics[metric] for record in ranked}

    def _best_trial(self, sweep: str) -> dict[str, Any] | None:
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
        search = self._search(sweep)
        ended = sum(r.state not in ("running", "waiting") for r in records)
        planned = sum(search.attribute("planned", {}).values())
        if not ended:
            return None
        elapsed: float = search.attribute("elapsed", 0.0)
        left: int = max(planned - ended, 0)
        return elapsed / ended * left


def _state(search: Ledger, done: bool, running: bool) -> str:
    """Return the sweep's state; `running`, left by a killed driver, becomes `interrupted`."""
    if done or running:
        return "done" if done else "running"
    noted: str = search.attribute("state", "interrupted")
    return "interrupted" if noted == "running" else noted


PICTURES = (
    (
        "samples.png",
        "Samples",
        "Samples of the winner; the last column shows the training image nearest to the one "
        "before it",
    ),
    (
        "latent.png",
        "Codes of validation images",
        "Validation codes by label over draws of the prior, in two dimensions: their own, those of "
        "the cluster heads, or the principal axes",
    ),
    (
        "manifold.png",
        "Manifold",
        "What the decoder makes of even percentiles of the prior, of a mixture for three petals",
    ),
    ("styles.png", "Styles and labels", "A row is one style, a column one label"),
    (
        "clusters.png",
        "Clusters",
        "A row is one cluster: first its head, the decoder at z = 0, then validation images of it",
    ),
    ("walk.png", "Walk", "From one draw of the prior to another, a row each"),
)


def summary(best: dict[str, Any]) -> str:
    """Summarise the document of `best`: metrics over all seeds, the search's gain, parameters."""
    n = len(best["seeds"])
    figures = (
        f"{name} {found['mean']:.5g}" + (f" ± {found['se']:.2g}" if found["se"] else "")
        for name, found in best["metrics"].items()
        if name.startswith(("val/", "test/")) and found["mean"] is not None
    )
    params = (f"{path} = {value}" for path, value in best["params"].items())
    seeds = f"{best['sweep']}, {n} seed{'s' if n > 1 else ''}"
    gained = verdicts.gain_in_words(best)
    paragraphs = (f"{seeds}: {', '.join(figures)}", gained, ", ".join(params))
    return "\n\n".join(filter(None, paragraphs))


def nothing_yet(settings: Settings) -> str:
    return (
        f"no sweep has been run in {settings.home}; "
        "begin with: aae-sweep run sweeps/quickstart.yaml"
    )


def run_key(sweep: str, stage: str, number: int) -> str:
    """Return the key of a trial's run in the outbox."""
    return f"{sweep}/{stage}/{number}"


def evaluation_path(settings: Settings, sweep: str) -> Path:
    return settings.sweep_folder(sweep) / "evaluation.json"


def as_document(record: RunRecord) -> dict[str, Any]:
    """Return a trial for `--json`; non-finite numbers become null."""
    document = asdict(record)
    document["metrics"] = finite(record.metrics)
    document["conditions"] = conditions(record.metrics)
    return document


def finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _judged(
    candidate: Candidate, versus: Comparison | None, metric: str, promised: float | None
) -> dict[str, Any]:
    """Return a candidate's optimism, and its difference from the winner.

    optimism: the search's value, `promised`, minus the confirmed mean.
    """
    mean = ranking.summarise(list(candidate.values(metric).values()))["mean"]
    known = promised is not None and math.isfinite(promised) and mean is not None
    return {
        "optimism": promised - mean if known else None,
        "difference": verdicts.difference(versus),
    }


def _control(control: Candidate | None, winner: Candidate, metric: str) -> dict[str, Any] | None:
    """Describe the control like a candidate, beside the winner; its parameters are the file's."""
    if control is None:
        return None
    versus = ranking.compare(control, winner, metric)
    return {
        **_describe(control),
        "params": {},
        "versus_best": asdict(versus),
        "difference": verdicts.difference(versus),
    }


def _describe(candidate: Candidate) -> dict[str, Any]:
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
