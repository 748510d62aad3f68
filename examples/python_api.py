"""Run a sweep from Python, read its results as pandas frames, draw samples from the winner.

    python examples/python_api.py

It takes some minutes and needs no data. Ctrl-C saves, and the same command resumes. Arguments
override keys of the sweep file: `python examples/python_api.py search.trials=4`.
"""

import sys
from pathlib import Path

import torch

from orchestrator import SweepReader, load_sweep, run

QUICKSTART = Path(__file__).parents[1] / "sweeps" / "quickstart.yaml"


def main(overrides: list[str]) -> None:
    sweep = load_sweep(QUICKSTART, overrides)
    results: SweepReader = run(sweep)
    metric = sweep.objective.metric

    trials = results.trials("search")
    print(trials.sort_values(metric, ascending=sweep.objective.direction == "minimize").head())

    print(results.candidates()[["seeds", metric, f"{metric} se"]])
    print(results.scores().filter(regex="^(seed|test/)").describe())

    samples = results.model().sample(16, generator=torch.Generator().manual_seed(0))
    print(
        f"{len(samples)} images of {samples[0].numel()} pixels, in {samples.min()}–{samples.max()}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
