"""Comparison of confirmed candidates: settings, differences and their significance."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from dashboards import curves, figures, page, style, tables
from dashboards.confirmed_sections import standing
from dashboards.tables import number, records
from dashboards.verdict import unit
from orchestrator.documents import Compared, ComparisonDocument, ScoredModel
from orchestrator.results.verdicts import rivals_in_words
from orchestrator.text import MISSING

if TYPE_CHECKING:
    from orchestrator.results.reader import SweepView


@dataclass(frozen=True)
class ComparedCandidates:
    """A document of `aae-sweep compare --json`, and the views of its sweeps by sweep id."""

    document: ComparisonDocument
    views: "Mapping[str, SweepView]"

    @property
    def metric(self) -> str:
        return str(self.document["metric"])

    @property
    def candidates(self) -> Sequence[Compared]:
        return self.document["candidates"]

    @cached_property
    def objective(self) -> style.Objective:
        return style.Objective(self.metric, unit(self.metric), self.document["direction"])

    @cached_property
    def labels(self) -> list[str]:
        """A unique label for each candidate.

        The label has the sweep's id if there are several sweeps, the value that the sweep compares,
        and the configuration's hash if these parts are ambiguous.
        """
        names = [self._name(candidate) for candidate in self.candidates]
        counts = Counter(names)
        return [
            name if name and counts[name] == 1 else f"{name} {candidate['config_hash']}".strip()
            for name, candidate in zip(names, self.candidates, strict=True)
        ]

    @cached_property
    def looks(self) -> dict[str, style.Look]:
        return style.looks(self.labels)

    def _name(self, candidate: Compared) -> str:
        per = (self.views[candidate["sweep"]].spec.get("confirm") or {}).get("per")
        sweep = candidate["sweep"] if len(self.views) > 1 else ""
        return " ".join(filter(None, [sweep, str(candidate["params"].get(per or "", ""))]))


def sections(found: ComparedCandidates) -> list[page.Section]:
    made = [
        page.Section("candidates", "Candidates", _candidates(found)),
        page.Section("differences", "Minus the best", _differences(found)),
        page.Section("settings", "What differs", _settings(found)),
        page.Section("curves", "Learning curves", _curves(found)),
        page.Section("parzen", "Parzen log-likelihood", _parzen(found)),
    ]
    return [section for section in made if section.body]


def hero(found: ComparedCandidates) -> str:
    (best, *others), (label, *labels) = found.candidates, found.labels
    figures_of = best["metrics"][found.metric]
    tied = [name for name, c in zip(labels, others, strict=True) if c["tied_with_best"]]
    rest = f"; not distinguishable from: {', '.join(tied)}" if tied else ""
    if others and not tied:
        rest = "; distinguishable from every other candidate"
    named = zip(labels, others, strict=True)
    if by_margin := rivals_in_words(named, found.metric, found.document["margin"]):
        rest = f"; {by_margin}"
    value = f"{found.metric} {number(figures_of['mean'], figures_of['se'])} "
    remark = "± is the standard error over seeds."
    if found.document["best_by"] != found.metric:
        remark += (
            f" The best is the best by {found.document['best_by']}: the test set chooses nothing."
        )
    other_data = len(set(found.document["data_sha256"].values())) > 1
    warning = "These sweeps used different data, so more than their configurations differs."
    return (
        f'<p class="verdict"><strong>{page.text(label)}</strong> '
        + page.unbroken(
            f"{'is best' if others else 'stands alone'}: {value}{unit(found.metric)}{rest}."
        )
        + f"</p>{page.paragraph(remark, 'quiet')}"
        + (page.paragraph(warning, "notice") if other_data else "")
    )


def difference_frame(found: ComparedCandidates) -> pd.DataFrame:
    """Return a row for each candidate but the best: its mean minus the best's, 95 % interval."""
    rows = [
        (label, label, versus["difference"], *(versus["ci95"] or (None, None)))
        for label, candidate in zip(found.labels, found.candidates, strict=True)
        if (versus := candidate["versus_best"]) and versus["difference"] is not None
    ]
    frame = pd.DataFrame(rows, columns=["label", "group", "difference", "low", "high"])
    return frame.astype(dict.fromkeys(["difference", "low", "high"], float))


def settings_frame(found: ComparedCandidates) -> pd.DataFrame:
    """Return the settings in which candidates differ: a row per setting, a column per candidate."""
    columns = {
        label: {**_fixed(found.views[c["sweep"]]), **c["params"]}
        for label, c in zip(found.labels, found.candidates, strict=True)
    }
    paths = dict.fromkeys(path for settings in columns.values() for path in settings)
    values = {
        path: [_value_text(settings.get(path)) for settings in columns.values()] for path in paths
    }
    rows = [[path, *cells] for path, cells in values.items() if len(set(cells)) > 1]
    return pd.DataFrame(rows, columns=["setting", *columns])


def _candidates(found: ComparedCandidates) -> str:
    rows = [
        (label, label, s["values"], s["mean"], *(s["ci95"] or (None, None)))
        for label, c in zip(found.labels, found.candidates, strict=True)
        for s in [c["metrics"][found.metric]]
    ]
    frame = pd.DataFrame(rows, columns=["label", "group", "values", "mean", "low", "high"])
    margin = found.document["margin"]
    return standing(found.candidates, found.labels, found.metric, margin) + page.chart(
        figures.confirmed_figure(
            frame.astype(dict.fromkeys(["mean", "low", "high"], float)),
            found.looks,
            found.objective.title,
        ),
        f"{found.metric} of each candidate.",
        "Filled: mean and 95 % interval over seeds (t). Open: the seeds themselves.",
    )


def _differences(found: ComparedCandidates) -> str:
    frame = difference_frame(found)
    if frame.empty:
        return ""
    differences = (f"{r['label']} {tables.number(r['difference'])}" for r in records(frame))
    return page.chart(
        figures.difference_figure(
            frame, found.looks, f"{found.objective.title}, minus the best", found.document["margin"]
        ),
        f"{found.metric} of each candidate minus the best's: {'; '.join(differences)}.",
        "Each comparison has its own 95 % interval: one that spans zero may be chance. Shared "
        "seeds are compared seed by seed, so these intervals are often narrower than those above.",
    )


def _settings(found: ComparedCandidates) -> str:
    frame = settings_frame(found)
    caption = "Every setting that is not the same for all; – where a branch has no such setting."
    return "" if frame.empty else page.table(frame, caption)


def _curves(found: ComparedCandidates) -> str:
    """Draw the curves of the confirmations.

    The label replaces the stage, since trial numbers repeat between sweeps.
    """
    gathered: dict[tuple[str, int], Any] = {}
    frames = []
    for label, candidate in zip(found.labels, found.candidates, strict=True):
        view = found.views[candidate["sweep"]]
        mine = [
            t
            for t in view.trials
            if t.stage == "confirm" and t.config_hash == candidate["config_hash"]
        ]
        gathered |= {(label, t.number): view.curves["confirm", t.number] for t in mine}
        frames.append(tables.trials_frame(mine, found.metric).assign(stage=label, group=label))
    trials = pd.concat(frames, ignore_index=True)
    drawn = curves.drawn_trials(trials, gathered, found.objective)
    if drawn.empty:
        return ""
    return page.chart(
        curves.curves_figure(gathered, trials, found.looks, found.objective),
        f"{found.metric} over epochs of {len(drawn)} confirmations.",
        "One line per seed.",
        page.as_table(
            page.table(
                tables.curves_frame(gathered, drawn, found.metric),
                f"{found.objective.title} after quarters of the epochs that each trial ran.",
                right=["trial"],
                page_size=page.ROWS,
            )
        ),
    )


def _parzen(found: ComparedCandidates) -> str:
    frames: list[pd.DataFrame] = []
    models: list[ScoredModel] = []
    for name, view in found.views.items():
        scores = tables.parzen_frame(view.evaluation)
        per = (view.spec.get("confirm") or {}).get("per")
        known = {
            str(c["params"].get(per or "", "")): label
            for c, label in zip(found.candidates, found.labels, strict=True)
            if c["sweep"] == name
        }
        frames.append(scores[scores["group"].isin(known)].replace({"group": known}))
        models += (view.evaluation or {"models": []})["models"]
    scores = pd.concat(frames, ignore_index=True)
    if scores.empty:
        return ""
    same_data = len(set(found.document["data_sha256"].values())) == 1
    controls = tables.controls_frame(models if same_data else [])
    return page.chart(
        figures.parzen_figure(scores, found.looks, controls, {}),
        f"Parzen log-likelihood of the test set over the number of samples, {len(scores)} points.",
        figures.PARZEN_LEGEND,
    )


def _fixed(view: "SweepView") -> dict[str, Any]:
    """Return the sweep's settings that its search does not vary, by path."""
    found: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for name, each in value.items():
                walk(each, f"{path}.{name}")
        elif path not in view.space:
            found[path] = value

    for part in ("data", "model", "training"):
        walk(view.spec.get(part) or {}, part)
    return found


def _value_text(value: Any) -> str:
    if value is None:
        return MISSING
    return f"{value:.4g}" if isinstance(value, float) else str(value)
