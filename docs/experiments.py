"""Write the tables of docs/experiments.md, docs/faults.md and the READMEs from `results/`.

    make experiments

`results/NAME/` holds what `aae-sweep export NAME --figures-only --out results/NAME` wrote of a
finished sweep. The published figures are those of `dashboards.paper`. A part of a page between
`<!-- results: PART -->` and `<!-- end -->` is made here, and no figure in it is typed by hand.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from aae_core.metrics import METRICS
from dashboards.paper import printed_figure
from orchestrator.sweepfile.loader import load_sweep
from orchestrator.sweepfile.spec import SweepSpec
from orchestrator.text import count

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
_PAGES = ("docs/experiments.md", "docs/faults.md", "README.md", "rivals/README.md")
PAGES = tuple(ROOT / page for page in _PAGES)
TWO_CORES = "_two_cores"  # ends the names of the sweeps in a folder two_cores
_PART = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Result:
    """One finished sweep in `results/`."""

    folder: Path

    @cached_property
    def best(self) -> dict[str, Any]:
        return self._read("best.json")

    @cached_property
    def spec(self) -> SweepSpec:
        return SweepSpec.of(self._read("sweep.json"))

    @cached_property
    def record(self) -> dict[str, Any]:
        return self._read("record.json")

    @cached_property
    def models(self) -> list[dict[str, Any]]:
        """The evaluation documents, the winner's first seed first."""
        return self._read("evaluation.json")["models"]

    @property
    def epochs(self) -> int:
        return self.spec.confirm_epochs

    @property
    def hours(self) -> float:
        """Hours of training, search and confirmation together, on `resources.cpu` each."""
        return sum(stage["train_hours"] for stage in self.record["stages"].values())

    def _read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


def results(sweep: str) -> list[Result]:
    """Return what a shipped sweep has found, at full size first."""
    folders = (RESULTS / sweep, RESULTS / f"{sweep}{TWO_CORES}")
    return [Result(folder) for folder in folders if folder.is_dir()]


# -- cells ----------------------------------------------------------------------------------------


def test_metrics(metric: str) -> tuple[str, ...]:
    """Name the test metrics that a figure is shown in, for an objective `val/…`."""
    name = metric.split("/", 1)[1]
    return ("parzen_ll_refined", "parzen_ll") if name == "parzen_ll" else (name,)


def mean(figures: dict[str, Any]) -> str:
    """Write `1.87 ± 0.05`, the error over seeds; one seed has none."""
    if figures["mean"] is None:
        return "–"
    digits = 1 if abs(figures["mean"]) >= 100 else 2
    error = "" if figures["se"] is None else f" ± {figures['se']:.{digits}f}"
    return f"{figures['mean']:.{digits}f}{error}"


def ours(result: Result) -> str:
    """Write the winner's figures with seeds, epochs, hours and machine."""
    metrics = result.best["metrics"]
    names = test_metrics(result.spec.objective.metric)
    shown = [mean(metrics[f"test/{name}"]) for name in names if f"test/{name}" in metrics]
    unit = " %" if METRICS[result.spec.objective.metric].unit == "%" else ""
    figures = f"**{shown[0]}**{unit}" + "".join(f" (strict grid {rest})" for rest in shown[1:])
    for point in result.models[0].get("curve", []):
        if point["n_samples"] > 10_000:
            strict = point.get("log_likelihood_grid")
            figures += f"; {point['n_samples']:,} samples {point['log_likelihood']:.1f}"
            figures += "" if strict is None else f" (strict {strict:.1f})"
    seeds = len(result.best["seeds"])
    return (
        f"{figures}; {count(seeds, 'seed')}, {result.epochs} epochs, "
        f"{result.hours:.1f} h of training; {', '.join(result.record['machine'])}"
    )


# -- tables ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of a table: a shipped sweep, where the paper has it, and what the paper claims."""

    sweep: str
    where: str
    claim: str = ""
    folder: str = "sweeps"

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.sweep}.yaml"

    @property
    def said(self) -> str:
        """The published figure, and the claim."""
        spec = load_sweep(ROOT / self.path)
        printed = printed_figure(spec.resolved(), spec.objective.metric)
        return "; ".join(filter(None, [printed, self.claim]))


RIVALS = "rivals/sweeps"
PARTS: dict[str, tuple[Row, ...]] = {
    "table-1": (
        Row("likelihood_mnist", "Table 1, §2, A.1", "three encoders alike"),
        Row("likelihood_mnist_vae", "§2.1", "none; the AAE's beside it"),
        Row("likelihood_mnist_gan", "Table 1"),
        Row("likelihood_mnist_gmmn_ae", "Table 1"),
        Row("likelihood_tfd", "Table 1, A.1"),
        Row("likelihood_tfd_gan", "Table 1"),
        Row("likelihood_tfd_gmmn_ae", "Table 1"),
    ),
    "table-2": (
        Row("semi_supervised_mnist_100", "Table 2, A.2.1"),
        Row("semi_supervised_mnist_1000", "Table 2, A.2.1"),
        Row("semi_supervised_mnist_all", "Table 2, A.2.1"),
        Row("semi_supervised_svhn_1000", "Table 2, A.2.2"),
        Row("classifier_mnist_100", "Table 2, NN baseline"),
        Row("classifier_mnist_1000", "Table 2, NN baseline"),
        Row("classifier_mnist_all", "Table 2, NN baseline"),
        Row("classifier_svhn_1000", "Table 2, NN baseline"),
    ),
    "table-3": (
        Row("clustering_mnist_16", "Table 3, A.3"),
        Row("clustering_mnist_30", "Table 3, A.3"),
        Row("clusters_mnist", "§6", "falls as the clusters become more"),
    ),
    "rivals": tuple(
        Row(file.stem, "Table 2", folder=RIVALS) for file in sorted((ROOT / RIVALS).glob("*.yaml"))
    ),
    "figures": (
        Row(
            "latent_gaussian_2d_aae",
            "Figure 2a",
            "codes fill the prior: low `val/latent_mmd`",
        ),
        Row(
            "latent_mixture_aae",
            "Figure 2b",
            "codes fill the prior: low `val/latent_mmd`",
        ),
        Row("latent_gaussian_2d_vae", "Figure 2c", "gaps: a higher `val/latent_mmd`"),
        Row("latent_mixture_vae", "Figure 2d", "gaps: a higher `val/latent_mmd`"),
        Row(
            "label_regularised_mixture",
            "Figure 4a, b",
            "each class at its mode: high `test/mode_accuracy`",
        ),
        Row(
            "label_regularised_swiss_roll",
            "Figure 4c, d",
            "each class at its tenth: high `test/mode_accuracy`",
        ),
        Row("supervised_mnist", "Figure 7a", "a row is a style, a column a label"),
        Row("supervised_svhn", "Figure 7b", "a row is a style, a column a label"),
        Row("dimensionality_reduction_2d_1000", "Figure 11a"),
        Row("dimensionality_reduction_2d_100", "Figure 11b"),
        Row("dimensionality_reduction_2d_unsupervised", "Figure 11c"),
        Row("dimensionality_reduction_10d_100", "Figure 11d", "its style is Gaussian"),
    ),
    "claims": (
        Row(
            "large_code_gaussian",
            "A.1",
            "a 1000-D code works with the Gaussian encoder",
        ),
        Row("quickstart", "not in the paper", "none: the digits of scikit-learn, in minutes"),
    ),
}


def table(rows: tuple[Row, ...]) -> str:
    """Write a table for a page whose folder is one level below the root."""
    lines = [
        "| experiment | where | published | ours | command |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        found = results(row.sweep)
        figures = "<br>".join(map(ours, found)) or "–"
        commands = [result.record["command"] for result in found] or [f"aae-sweep run {row.path}"]
        lines.append(
            f"| [`{row.sweep}`](../{row.path}) | {row.where} | {row.said} | {figures} "
            f"| {'<br>'.join(f'`{command}`' for command in commands)} |"
        )
    return "\n".join(lines) + "\n"


def runs() -> Iterator[str]:
    """Describe each finished sweep: every confirmed configuration, and how it was run."""
    for row in (row for rows in PARTS.values() for row in rows):
        for result in results(row.sweep):
            yield from _run(result)


def _run(result: Result) -> Iterator[str]:
    spec, record = result.spec, result.record
    names = [
        name
        for name in (
            spec.objective.metric,
            *(f"test/{name}" for name in test_metrics(spec.objective.metric)),
        )
        if name in result.best["metrics"]
    ]
    yield f"### `{spec.name}`\n"
    yield f"| configuration | {' | '.join(f'`{name}`' for name in names)} |"
    yield f"|---|{'---|' * len(names)}"
    for group in result.best["groups"]:
        params = ", ".join(f"{path} {value}" for path, value in group["params"].items())
        cells = " | ".join(_with_values(group["metrics"][name]) for name in names)
        yield f"| {params or 'as the file says'} | {cells} |"
    stages = record["stages"]
    resumed = sum(stage["resumed"] for stage in stages.values())
    repeated = sum(stage["epochs_repeated"] for stage in stages.values())
    yield ""
    yield (
        f"`{record['command']}`: {stages['search']['trials']} trials searched, "
        f"{stages['confirm']['trials']} confirmed over {result.epochs} epochs, "
        f"{result.hours:.1f} h of training; {count(record['drivers'], 'driver')}, "
        f"{count(resumed, 'resumed trial')}, "
        f"{repeated} epochs repeated. Code {', '.join(record['code'])} with torch "
        f"{', '.join(record['versions']['torch'])}. Data `results/{result.folder.name}/`.\n"
    )


def _with_values(figures: dict[str, Any]) -> str:
    values = ", ".join("–" if v is None else f"{v:.4g}" for v in figures["values"])
    return f"{mean(figures)} ({values})"


def readme() -> str:
    """List every figure of the paper's tables that has been reached for, beside the published."""
    rows = [
        (row, result) for part in PARTS.values() for row in part for result in results(row.sweep)
    ]
    if not rows:
        return "No sweep has been run to its end yet.\n"
    lines = ["| experiment | published | ours |", "|---|---|---|"]
    for row, result in rows:
        name = Path(result.record["command"].split()[2]).as_posix()
        lines.append(f"| [{row.sweep}]({name}), {row.where} | {row.said} | {ours(result)} |")
    return "\n".join(lines) + "\n"


def interruptions() -> str:
    """List how often each finished sweep was interrupted, and what that cost."""
    found = [result for rows in PARTS.values() for row in rows for result in results(row.sweep)]
    if not found:
        return "No sweep has been run to its end yet.\n"
    lines = [
        "| sweep | hours of driver time | drivers | resumed trials | epochs | of these repeated |",
        "|---|---|---|---|---|---|",
    ]
    for result in found:
        stages = list(result.record["stages"].values())
        epochs, repeated, resumed = (
            sum(stage[name] for stage in stages)
            for name in ("epochs", "epochs_repeated", "resumed")
        )
        lines.append(
            f"| `{result.spec.name}` | {result.record['elapsed_hours']:.1f} "
            f"| {result.record['drivers']} | {resumed} | {epochs:,} | {repeated} |"
        )
    return "\n".join(lines) + "\n"


def parts() -> dict[str, Callable[[], str]]:
    made: dict[str, Callable[[], str]] = {
        name: (lambda rows=rows: table(rows)) for name, rows in PARTS.items()
    }
    return {
        **made,
        "runs": lambda: "\n".join(runs()),
        "interruptions": interruptions,
        "readme": readme,
    }


def rewritten(text: str) -> str:
    """Return a page with its parts made again. Raises KeyError for a part that nothing makes."""
    made = parts()
    return _PART.sub(lambda found: f"{found[1]}{made[found[2]]()}{found[3]}", text)


def main() -> None:
    for page in PAGES:
        page.write_text(rewritten(page.read_text()))


if __name__ == "__main__":
    main()
