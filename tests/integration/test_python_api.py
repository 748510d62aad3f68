"""The Python interface on a real sweep: the example script is interrupted, resumed and read."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from sweep_command import PATIENCE, Bench, Outcome

from orchestrator import SweepReader

EXAMPLES = Path(__file__).parents[2] / "examples"
METRIC = "val/parzen_ll"
SMALL = [
    "training.epochs=4",
    "search.trials=3",
    "confirm.seeds=2",
    "confirm.baseline=false",
    "evaluate.parzen.samples=20_000",
    "evaluate.parzen.screen_samples=10_000",
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("python"), "name: unused\n")


@pytest.fixture(scope="module")
def interrupted(bench: Bench) -> Outcome:
    """Send the script Ctrl-C as soon as an epoch has ended."""
    with script(bench, EXAMPLES / "python_api.py", *SMALL) as process:
        bench.wait_for(process, lambda trials: any(t.epochs for t in trials))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    return Outcome(process.returncode, out, err)


@pytest.fixture(scope="module")
def resumed(bench: Bench, interrupted: Outcome) -> Outcome:
    with script(bench, EXAMPLES / "python_api.py", *SMALL) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return Outcome(process.returncode, out, err)


@pytest.fixture(scope="module")
def results(bench: Bench, resumed: Outcome) -> SweepReader:
    assert resumed.code == 0, resumed.err
    return SweepReader("quickstart", bench.settings)


def script(bench: Bench, *command: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=bench.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_interrupted_script_names_the_command_that_resumes(interrupted: Outcome) -> None:
    assert interrupted.code == 1
    assert "search: 3 trials\n" in interrupted.err
    last = interrupted.err.splitlines()[-1]
    assert last.startswith("orchestrator.errors.Interrupted: quickstart-")
    assert ". Resume with: aae-sweep run quickstart-" in last


def test_script_resumes_and_repeats_no_epoch(results: SweepReader) -> None:
    assert results.status()["state"] == "done"
    trials = results.trials()
    assert trials.index.names == ["stage", "number"]
    assert trials.index.get_level_values("stage").value_counts().to_dict() == {
        "confirm": 6,
        "search": 3,
    }
    assert (trials["state"] == "complete").all()
    assert (trials["epochs"] == 4).all()
    assert trials["epochs_computed"].sum() <= 4 * len(trials) + 2


def test_curves_have_a_row_per_epoch(results: SweepReader) -> None:
    curves = results.curves()
    assert curves.index.names == ["stage", "number", "epoch"]
    assert len(curves) == 4 * 9
    last = curves.groupby(["stage", "number"])[METRIC].last()
    pd.testing.assert_series_equal(last, results.trials()[METRIC].sort_index(), check_names=False)


def test_candidates_have_means_and_errors_over_seeds(results: SweepReader) -> None:
    candidates, confirmed = results.candidates(), results.trials("confirm")
    assert len(candidates) == 3
    by_seed = confirmed.groupby("config_hash")[METRIC]
    for config, row in candidates.iterrows():
        values = by_seed.get_group(config)
        assert row["seeds"] == len(values) == 2
        assert row[METRIC] == pytest.approx(values.mean())
        assert row[f"{METRIC} se"] == pytest.approx(values.std() / math.sqrt(2))
    assert candidates.index[0] == results.best()["config_hash"]


def test_scores_and_parzen_curves_are_those_of_the_evaluation(
    bench: Bench, results: SweepReader
) -> None:
    scores, parzen = results.scores(), results.parzen()
    assert len(scores) == 6
    document = json.loads(bench.settings.evaluation(results.id).read_text())
    first = document["models"][0]
    assert scores.loc[first["trial"], "test/recon"] == first["metrics"]["test/recon"]
    assert set(parzen.index.get_level_values("kind")) == {"model", "train_images", "kmeans"}
    end = parzen.loc[(first["trial"], "model", 20_000)]
    assert end["log_likelihood"] == first["log_likelihood"]


def test_model_is_the_winners(results: SweepReader) -> None:
    images = results.model().sample(3, generator=torch.Generator())
    assert images.shape == (3, 64)
    assert results.spec.sweep_id == results.id


def test_notebook_runs_as_a_script_on_the_done_sweep(
    bench: Bench, results: SweepReader, tmp_path: Path
) -> None:
    notebook = json.loads((EXAMPLES / "sweep.ipynb").read_text())
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    small = (
        "from functools import partial\nimport orchestrator.api as api\n"
        f"api.load_sweep = partial(api.load_sweep, overrides={SMALL})\n"
    )
    (tmp_path / "cells.py").write_text("\n".join([small, *cells]))
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "cells.py")],
        env={**bench.environment, "MPLBACKEND": "agg"},
        cwd=EXAMPLES,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert SweepReader("latest", bench.settings).id == results.id
    assert all(c["outputs"] for c in notebook["cells"] if "results." in "".join(c["source"]))
