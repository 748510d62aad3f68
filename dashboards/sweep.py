"""Data of a sweep for the report's sections: the view, and cached values that sections share."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dashboards import page, paper, style, tables
from dashboards.verdict import unit
from orchestrator.records import BASELINE, is_baseline

if TYPE_CHECKING:
    from orchestrator.results.reader import SweepView

GLYPHS = dict(zip(style.SYMBOLS, "●◆■▲✚✖", strict=True))


@dataclass(frozen=True)
class Sweep:
    view: "SweepView"
    prefix: str = ""  # for the ids of its sections

    @cached_property
    def objective(self) -> style.Objective:
        objective = self.view.status["objective"]
        metric = objective["metric"]
        return style.Objective(metric, unit(metric), objective["direction"])

    @cached_property
    def secondary(self) -> list[style.Objective]:
        """The objectives beside the first one."""
        return [
            style.Objective(objective["metric"], unit(objective["metric"]), objective["direction"])
            for objective in self.view.status["secondary_objectives"]
        ]

    @cached_property
    def group_by(self) -> str | None:
        """The parameter that the sweep compares: `confirm.per`, else `search.balance`."""
        spec = self.view.spec
        per = (spec.get("confirm") or {}).get("per") or (spec.get("search") or {}).get("balance")
        return str(per) if per else None

    @cached_property
    def trials(self) -> pd.DataFrame:
        frame = tables.trials_frame(self.view.trials, self.objective.metric, self.group_by)
        searched = self.view.spec.get("search") is not None
        control = [is_baseline(trial, searched=searched) for trial in self.view.trials]
        frame.loc[np.array(control, bool), "group"] = BASELINE
        return frame

    @cached_property
    def search(self) -> pd.DataFrame:
        return self.trials[self.trials["stage"] == "search"]

    @cached_property
    def finished(self) -> pd.DataFrame:
        return tables.finished(self.search)

    @cached_property
    def parameters(self) -> pd.DataFrame:
        return tables.parameters_frame(self.view.trials)

    @cached_property
    def names(self) -> dict[str, str]:
        return tables.short_names(tables.columns(self.parameters))

    @cached_property
    def searched(self) -> list[str]:
        """Parameters that took more than one value among finished search trials."""
        values = self.parameters.loc[self.finished.index]
        return [path for path in tables.columns(values) if values[path].nunique() > 1]

    @cached_property
    def logarithmic(self) -> list[str]:
        return [path for path, entry in self.view.space.items() if entry.get("log")]

    @cached_property
    def confirmed(self) -> pd.DataFrame:
        return tables.confirmed_frame(self.view.best, self.group_by)

    @cached_property
    def scores(self) -> pd.DataFrame:
        return tables.parzen_frame(self.view.evaluation)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Architectures that the sweep trains."""
        varied = self.view.space.get("model.kind")
        return tuple(varied["choice"]) if varied else (self.view.spec["model"]["kind"],)

    @cached_property
    def methods(self) -> dict[str, tuple[str, str]]:
        """Group -> the architecture of its best candidate, and the paper's name for the model."""
        found: dict[str, tuple[str, str]] = {}
        named = [f"model.{name}" for name in ("kind", *paper.NAMED)]
        for candidate in self.view.best["groups"] if self.view.best else []:
            params = candidate["params"]
            group = str(params.get(self.group_by or "", ""))
            model = self.view.spec["model"] | {
                path.removeprefix("model."): params[path] for path in named if path in params
            }
            method = paper.method(model, self.view.spec["data"]["labels"])
            beside = f", {group}" if group and self.group_by not in named else ""
            found.setdefault(group, (model["kind"], method + beside))
        return found

    @cached_property
    def looks(self) -> dict[str, style.Look]:
        groups = [*self.trials["group"], *self.confirmed["group"], *self.scores["group"]]
        return style.looks(list(dict.fromkeys(groups)))

    @property
    def legend(self) -> str:
        named = [
            (look.colour, GLYPHS[look.symbol], name)
            for name, look in self.looks.items()
            if name not in ("", BASELINE)  # the search's figures do not show the control
        ]
        return page.legend(named) if len(named) > 1 else ""
