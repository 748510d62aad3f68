"""Compare a sweep's overhead beyond training with that of Ray Tune's stock recipe.

    python benchmarks/sweep_overhead.py [--rounds 5]
    python benchmarks/sweep_overhead.py --trials 1000

Trials have one epoch on scikit-learn's digits. The cost of a trial is the slope of wall time
between sweeps of 32 and 64 trials, which excludes a sweep's fixed costs. Training alone runs the
same trials in as many processes without a sweep. Overhead is the difference. The contestants
alternate, since machines are noisy; the stock recipe only runs in the first round. Ours is the
full `aae-sweep run`: study, checkpoints, MLflow, confirmation, report. The stock recipe follows
the documentation: Tuner, OptunaSearch, MLflowLoggerCallback, a function that reports with a
checkpoint. Its MLflow store is SQLite, too.

Also measured: the time of `aae-sweep --help`, and the quickstart's trials per hour.

With `--trials`, one sweep of so many trials: seconds per trial and the driver's memory over time,
the time of suggestions by Optuna's TPE alone, and the costs of the report.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import optuna
import torch
from publishing import publish

from aae_core.config import DataConfig
from aae_core.data import TrainingData, load_training_data
from aae_core.training import TrainState, fit
from orchestrator.settings import sqlite_address
from orchestrator.study.samplers import build_sampler
from orchestrator.sweepfile import space
from orchestrator.sweepfile.loader import load_sweep
from orchestrator.sweepfile.spec import SweepSpec

_SIZES = (32, 64)
_WINDOW = 100  # trials that are averaged
_STARTUP = 20  # random trials before TPE suggests any
_STARTS = 15  # of `aae-sweep --help`
_TARGET = 0.5  # seconds for one start at most
_COMMAND = Path(sys.executable).with_name("aae-sweep")

_SWEEP = """\
name: overhead
data: {{name: digits}}
model: {{hidden: [100, 100], prior: {{kind: gaussian, std: 2.0}}, init_std: 0.15}}
training:
  epochs: 1
  reconstruction: {{optimizer: adam, lr: 5e-3, momentum: 0.9}}
  adversarial: {{optimizer: adam, lr: 1e-3, momentum: 0.5}}
search:
  sampler: {{kind: tpe, startup_trials: {startup}}}
  trials: {trials}
  space:
    model.prior.std: {{float: [0.5, 8], log: true}}
    training.reconstruction.lr: {{float: [1e-3, 2e-2], log: true}}
    training.adversarial.lr: {{float: [2e-4, 3e-3], log: true}}
confirm: {{seeds: 1, baseline: false}}
evaluate: {{parzen: {{samples: 10000, screen_samples: 10000}}}}
"""

Report = dict[str, Any]


def sweep_file(folder: Path, trials: int) -> Path:
    file = folder / "overhead.yaml"
    file.write_text(_SWEEP.format(trials=trials, startup=_STARTUP))
    return file


def spec_of(folder: Path, trials: int) -> SweepSpec:
    return load_sweep(sweep_file(folder, trials), [])


def digits() -> TrainingData:
    return load_training_data(DataConfig("digits"), Path())


def processes() -> int:
    return len(os.sched_getaffinity(0))


def in_processes(function: Callable[[Path, int], None], folder: Path, shares: list[int]) -> None:
    with multiprocessing.get_context("spawn").Pool(len(shares)) as pool:
        pool.starmap(function, [(folder, share) for share in shares], chunksize=1)


# -- the contestants, each in its own folder ------------------------------------------------------


def ours(folder: Path, trials: int) -> None:
    with driver(folder, trials) as process:
        _, said = process.communicate()
    require_done(process, said)


def driver(folder: Path, trials: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [_COMMAND, "run", sweep_file(folder, trials)],
        env=os.environ | {"AAE_HOME": str(folder / "home")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def require_done(process: subprocess.Popen[str], said: str) -> None:
    if process.returncode:
        raise SystemExit(f"aae-sweep run ended with {process.returncode}:\n{said}")


def stock(folder: Path, trials: int) -> None:
    in_processes(_stock, folder, [trials])


def _stock(folder: Path, trials: int) -> None:
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search.optuna import OptunaSearch

    spec = spec_of(folder, trials)

    def train(config: dict[str, float], data: TrainingData) -> None:
        state = TrainState.create(spec.trial_config(config, 0), data)
        for epoch in fit(state, data):
            with tempfile.TemporaryDirectory() as temporary:
                state.save(Path(temporary) / "checkpoint")
                checkpoint = tune.Checkpoint.from_directory(temporary)
                tune.report(epoch.metrics, checkpoint=checkpoint)

    ray.init(include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_parameters(train, data=digits()),
        param_space={
            "model.prior.std": tune.loguniform(0.5, 8),
            "training.reconstruction.lr": tune.loguniform(1e-3, 2e-2),
            "training.adversarial.lr": tune.loguniform(2e-4, 3e-3),
        },
        tune_config=tune.TuneConfig(
            metric="val/parzen_ll",
            mode="max",
            search_alg=OptunaSearch(),
            max_concurrent_trials=processes(),
            num_samples=trials,
        ),
        run_config=tune.RunConfig(
            name="stock",
            storage_path=str(folder),
            verbose=0,
            callbacks=[
                MLflowLoggerCallback(
                    tracking_uri=sqlite_address(folder / "mlflow.db"),
                    experiment_name="stock",
                    save_artifact=True,
                )
            ],
        ),
    )
    with chdir(folder), redirect_stdout(sys.stderr):  # MLflow's artifacts go here; Tune prints
        results = tuner.fit()
    if results.errors or len(results) != trials:
        raise SystemExit(f"the stock recipe ended {len(results)} trials: {results.errors}")


def alone(folder: Path, trials: int) -> None:
    share, rest = divmod(trials, processes())
    in_processes(_alone, folder, [share + (index < rest) for index in range(processes())])


def _alone(folder: Path, trials: int) -> None:
    torch.set_num_threads(1)
    data, config = digits(), spec_of(folder, trials).trial_config({}, 0)
    for _ in range(trials):
        for _ in fit(TrainState.create(config, data), data):
            pass


# -- the cost of a trial --------------------------------------------------------------------------

TURNS: dict[str, Callable[[Path, int], None]] = {"alone": alone, "ours": ours, "stock": stock}


def seconds(run: Callable[[Path, int], None], trials: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run(Path(folder), trials)
        return time.perf_counter() - began


def compare(rounds: int) -> Report:
    small, large = _SIZES
    slopes: dict[str, list[float]] = {name: [] for name in TURNS}
    for number in range(rounds):
        for name, run in TURNS.items():
            if name == "stock" and number > 0:
                continue  # one stock round is longer than all others
            slope = (seconds(run, large) - seconds(run, small)) / (large - small)
            slopes[name].append(slope)
            print(f"round {number + 1}: {name} {slope:.3f} s a trial", file=sys.stderr)
    found = {name: median(each) for name, each in slopes.items()}
    overhead = {name: found[name] - found["alone"] for name in ("ours", "stock")}
    return {
        "trials": _SIZES,
        "at_once": processes(),
        "slopes_s": slopes,
        "training_s": found["alone"],
        "overhead_s": overhead,
        "ratio": overhead["stock"] / overhead["ours"],
    }


# -- one command, and one sweep -------------------------------------------------------------------


def start_up() -> Report:
    """Return the time of `aae-sweep --help`."""

    def once() -> float:
        began = time.perf_counter()
        subprocess.run([_COMMAND, "--help"], stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - began

    took = [once() for _ in range(_STARTS)]
    return {"best_s": min(took), "median_s": median(took), "target_s": _TARGET}


def quickstart() -> Report:
    """Return the search's figures, from first trial start to last end. Pruned trials count."""
    file = Path(__file__).parents[1] / "sweeps" / "quickstart.yaml"
    short = {"confirm.seeds": 1, "evaluate.parzen.samples": 10_000}
    short["confirm.baseline"] = "false"
    short["evaluate.parzen.screen_samples"] = short["evaluate.parzen.samples"]
    overrides = [part for key, value in short.items() for part in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"AAE_HOME": home}

        def answer(*arguments: str | Path) -> Any:
            command = [_COMMAND, *arguments, "--json"]
            said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
            return json.loads(said.stdout)

        answer("run", file, *overrides)
        trials = [t for t in answer("show", "quickstart")["trials"] if t["stage"] == "search"]
    starts = [datetime.fromisoformat(trial["started"]).timestamp() for trial in trials]
    ends = [start + trial["seconds"] for start, trial in zip(starts, trials, strict=True)]
    took = max(ends) - min(starts)
    return {
        "trials_an_hour": round(3600 * len(trials) / took),
        "at_once": processes(),
        "search_s": took,
        "trials": dict(Counter(trial["state"] for trial in trials)),
        "epochs": sum(trial["epochs"] for trial in trials),
    }


# -- a long sweep ---------------------------------------------------------------------------------


def long_sweep(trials: int) -> Report:
    with tempfile.TemporaryDirectory() as name:
        folder, said = Path(name), []
        ends, cpu, resident = [], [], []  # at every trial's end; of the driver only
        with driver(folder, trials) as process:
            assert process.stderr is not None
            for line in process.stderr:
                said.append(line)
                if line.startswith("search ") and "  trial " in line:
                    ends.append(time.perf_counter())
                    cpu.append(cpu_seconds(process.pid))
                    resident.append(resident_mib(process.pid))
        require_done(process, "".join(said))
        report = report_of(folder)
        suggestions = tpe_alone(spec_of(folder, trials), trials)
    pairs = {"first": slice(_STARTUP, _STARTUP + _WINDOW), "last": slice(-_WINDOW, None)}
    return {
        "trials": len(ends),
        "at_once": processes(),
        "seconds_a_trial": {k: mean(pace(ends)[s]) for k, s in pairs.items()},
        "driver_cpu_s_a_trial": {k: mean(pace(cpu)[s]) for k, s in pairs.items()},
        "tpe_alone_s_a_trial": {k: mean(suggestions[s]) for k, s in pairs.items()},
        "driver_mib": {f"after {n}": resident[n - 1] for n in (_WINDOW, len(ends))},
        "report": report,
    }


def report_of(folder: Path) -> Report:
    """Return the time to build the report and, if Chromium is installed, to open it."""
    file = folder / "report.html"
    command = [_COMMAND, "report", "latest", "--out", file]
    environment = os.environ | {"AAE_HOME": str(folder / "home")}
    began = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    found: Report = {"build_s": time.perf_counter() - began, "mb": file.stat().st_size / 1e6}
    chromium = shutil.which("chromium")
    if chromium is None:
        return found
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        began = time.perf_counter()
        page.goto(file.as_uri())
        found["load_s"] = time.perf_counter() - began
        expect(page.locator(".plot:not(:has(.main-svg))")).to_have_count(0, timeout=60_000)
        found["all_drawn_s"] = time.perf_counter() - began
        browser.close()
    return found


def pace(readings: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(readings)]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")  # user and system


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def tpe_alone(spec: SweepSpec, trials: int) -> list[float]:
    """Return the seconds of every suggestion, in memory. A trial's value is its first parameter."""
    study, took = optuna.create_study(), []
    assert spec.search is not None
    for number in range(trials):
        began = time.perf_counter()
        study.sampler = build_sampler(spec, number)
        trial = study.ask(space.distributions(spec.search.space))
        took.append(time.perf_counter() - began)
        study.tell(trial, next(iter(trial.params.values())))
    return took


# -- the command ----------------------------------------------------------------------------------


def in_words(found: Report) -> str:
    def text(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{name} {text(part)}" for name, part in value.items())
        if isinstance(value, list | tuple):
            return " ".join(map(text, value))
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return "\n".join(f"{name:22}{text(value)}" for name, value in found.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--trials", type=int, help="one sweep of so many")
    options = parser.parse_args()
    if options.trials and options.trials < _STARTUP + 2 * _WINDOW:
        parser.error(f"--trials: at least {_STARTUP + 2 * _WINDOW}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if options.trials:
        found = long_sweep(options.trials)
        publish("long_sweep", found, in_words(found))
    else:
        found = {"start_up": start_up(), "quickstart": quickstart()} | compare(options.rounds)
        publish("sweep_overhead", found, in_words(found))


if __name__ == "__main__":
    main()
