"""The worker without Ray: which checkpoint an attempt resumes from, and which it keeps."""

import errno
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from aae_core import checkpoint
from aae_core.config import ModelConfig, OptimizerConfig, TrainConfig, TrialConfig
from aae_core.data import TrainingData
from aae_core.training import TrainState, fit
from orchestrator.execution import worker
from orchestrator.execution.worker import LEAVE, Checkpoints, Report, TrialTask, begin, train_pack
from orchestrator.records import ENERGY

EPOCHS = 5
CONFIG = TrialConfig(
    model=ModelConfig(hidden=(8,), code_dim=2, init_std=0.1),
    training=TrainConfig(epochs=EPOCHS, batch_size=10),
    seed=4,
)


def noise() -> TrainingData:
    pixels = np.random.default_rng(0).random((60, 9), dtype=np.float32)
    return TrainingData.of("noise", (3, 3), (pixels[:40], None), (pixels[40:], None))


DATA = noise()


@pytest.fixture(autouse=True)
def _every_epoch_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(worker, "SAVING_SHARE", math.inf)


def task(
    folder: Path, resume: Path | None = None, config: TrialConfig = CONFIG, attempt: int = 0
) -> TrialTask:
    attempt = attempt or (1 if resume is None else 2)
    return TrialTask(
        stage="search",
        number=7,
        attempt=attempt,
        config=json.loads(json.dumps(config.to_dict())),
        folder=str(folder / str(attempt)),
        resume=str(resume) if resume else None,
        threads=1,
        gpu=False,
    )


def reports_of(job: TrialTask) -> list[Report]:
    """Return what `train` reports to the driver after its opening report."""
    beginning, *reports = all_reports_of(job)
    assert (beginning.metrics, beginning.end) == ({}, None)
    return reports


def all_reports_of(
    *jobs: TrialTask, on_report: Callable[[Report], None] = lambda _: None
) -> list[Report]:
    reports: list[Report] = []

    def report(metrics: dict[str, Any]) -> None:
        for fields in json.loads(metrics["reports"]):
            reports.append(Report(**fields))
            on_report(reports[-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker.tune, "report", report)
        train_pack(jobs, DATA)
    return reports


def stopped_after(epoch: int, folder: Path) -> list[Any]:
    """Return the checkpoint or None of every epoch of an attempt that is lost after `epoch`."""
    state = begin(task(folder), DATA)
    checkpoints = Checkpoints(folder / "1")
    return [checkpoints.after(state) for _ in islice(fit(state, DATA), epoch)]


def figures(reports: list[Report]) -> dict[int, dict[str, float]]:
    return {r.epoch: r.metrics for r in reports}


def test_worker_reports_every_epoch_and_the_end(tmp_path: Path) -> None:
    reports = reports_of(task(tmp_path))
    assert [r.epoch for r in reports] == [1, 2, 3, 4, 5]
    assert [r.end for r in reports] == [None] * 4 + ["complete"]
    assert all((r.number, r.attempt, r.trained) == (7, 1, True) for r in reports)
    assert all(r.resumed_from is None and r.history is None for r in reports)
    assert reports[-1].checkpoint == str(tmp_path / "1" / "epoch-000005")


def test_confirm_trial_resumed_after_loss_draws_the_same_pictures(tmp_path: Path) -> None:
    confirm = replace(task(tmp_path / "whole"), stage="confirm")
    untrained, *whole = all_reports_of(confirm)
    assert [r.epoch for r in (untrained, *whole) if r.pictures] == [0, 1, 2, 4, 5]
    assert all(Path(path).exists() for r in whole for path in r.pictures)
    assert figures(whole) == figures(reports_of(task(tmp_path / "search")))

    *_, newest = stopped_after(4, tmp_path)  # lost before reporting its pictures
    again = replace(task(tmp_path, newest), stage="confirm")
    beginning, *resumed = all_reports_of(again)
    assert beginning.epoch == 4
    assert contents(beginning) == contents(whole[3])
    assert contents(resumed[-1]) == contents(whole[-1])


def contents(report: Report) -> dict[str, bytes]:
    assert report.pictures
    return {Path(path).name: Path(path).read_bytes() for path in report.pictures}


def test_worker_reports_system_metrics_with_every_epoch(tmp_path: Path) -> None:
    for report in reports_of(task(tmp_path)):
        assert report.system["system/system_memory_usage_megabytes"] > 0
        assert not report.metrics.keys() & report.system.keys()


@pytest.mark.parametrize("joules", [None, 6.0])
def test_worker_reports_energy_of_each_trial_only_where_the_machine_counts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, joules: float | None
) -> None:
    monkeypatch.setattr(worker, "EnergyMeter", lambda gpu: SimpleNamespace(joules=lambda: joules))
    first, second = (replace(task(tmp_path / name), number=n) for n, name in enumerate("ab"))
    packed = [report for report in all_reports_of(first, second) if report.seconds]
    assert {report.number for report in packed} == {0, 1}
    assert {report.system.get(ENERGY) for report in packed} == {joules and joules / 2}


def test_checkpoints_keep_only_the_two_newest(tmp_path: Path) -> None:
    stopped_after(4, tmp_path)
    kept = sorted(p.name for p in (tmp_path / "1").iterdir())
    assert kept == ["epoch-000003", "epoch-000004"]


def test_checkpoints_skip_short_epochs_except_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "CHECKPOINT_SECONDS", 3600.0)
    saved = stopped_after(EPOCHS, tmp_path)
    assert saved == [None] * 4 + [tmp_path / "1" / "epoch-000005"]


def test_checkpoints_are_few_when_saving_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SAVING_SHARE", 1e-9)
    saved = stopped_after(EPOCHS, tmp_path)
    assert [path is not None for path in saved] == [True, False, False, False, True]


@pytest.mark.parametrize("lost_after", [1, 2, 4])
def test_resumed_trial_equals_an_uninterrupted_trial(lost_after: int, tmp_path: Path) -> None:
    whole = reports_of(task(tmp_path / "whole"))
    *_, newest = stopped_after(lost_after, tmp_path)
    resumed = reports_of(task(tmp_path, newest))
    assert [r.epoch for r in resumed] == list(range(lost_after + 1, EPOCHS + 1))
    assert all(figures(whole)[r.epoch] == r.metrics for r in resumed)
    assert all(r.resumed_from == lost_after for r in resumed)
    ours, theirs = (checkpoint.load(Path(str(r[-1].checkpoint))) for r in (resumed, whole))
    assert all(ours[0][name].equal(theirs[0][name]) for name in theirs[0])
    assert ours[1]["history"] == theirs[1]["history"]


def test_resumed_trial_opens_with_the_history_of_earlier_epochs(tmp_path: Path) -> None:
    whole = figures(reports_of(task(tmp_path / "whole")))
    *_, newest = stopped_after(3, tmp_path)
    first, *others = all_reports_of(task(tmp_path, newest))
    assert first.history == [{"epoch": e, **whole[e]} for e in (1, 2, 3)]
    assert all(r.history is None for r in others)


def test_trial_lost_after_last_epoch_reports_its_end_untrained(tmp_path: Path) -> None:
    whole = reports_of(task(tmp_path / "whole"))
    *_, newest = stopped_after(EPOCHS, tmp_path)
    [report] = reports_of(task(tmp_path, newest))
    assert (report.epoch, report.end, report.trained) == (EPOCHS, "complete", False)
    assert report.metrics == whole[-1].metrics
    assert report.checkpoint == str(newest)


@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_damaged_checkpoint_is_replaced_by_the_previous_one(damage: str, tmp_path: Path) -> None:
    *_, newest = stopped_after(3, tmp_path)
    if damage == "gone":
        shutil.rmtree(newest)
    else:
        (newest / "tensors.safetensors").write_bytes(b"torn")
    assert begin(task(tmp_path, newest), DATA).epoch == 2


def test_resume_falls_back_to_checkpoints_of_any_earlier_attempt(tmp_path: Path) -> None:
    """Damage the only checkpoint of the second attempt, which the study has on record."""
    *_, newest = stopped_after(3, tmp_path)
    only = tmp_path / "2" / "epoch-000004"
    state = begin(task(tmp_path, newest), DATA)
    next(fit(state, DATA))
    assert Checkpoints(only.parent).after(state) == only
    assert begin(task(tmp_path, only, attempt=3), DATA).epoch == 4
    (only / "tensors.safetensors").write_bytes(b"torn")
    assert begin(task(tmp_path, only, attempt=3), DATA).epoch == 3
    (newest / "state.json").unlink()
    assert begin(task(tmp_path, only, attempt=3), DATA).epoch == 2


def test_resume_finds_a_checkpoint_that_no_driver_recorded(tmp_path: Path) -> None:
    stopped_after(2, tmp_path)
    assert begin(task(tmp_path, attempt=2), DATA).epoch == 2
    assert begin(task(tmp_path, attempt=1), DATA).epoch == 0  # its own folder does not count


def test_resume_ignores_the_checkpoint_of_another_configuration(tmp_path: Path) -> None:
    *_, newest = stopped_after(2, tmp_path)
    other = replace(CONFIG, seed=CONFIG.seed + 2)
    assert begin(task(tmp_path, newest, other), DATA).epoch == 0


def test_retry_resumes_from_checkpoint_of_the_failed_trial(tmp_path: Path) -> None:
    *_, newest = stopped_after(3, tmp_path / "search-0003")
    shutil.rmtree(newest)
    assert begin(task(tmp_path / "search-0009", newest), DATA).epoch == 2


def test_trial_without_intact_checkpoint_starts_from_the_beginning(tmp_path: Path) -> None:
    whole = reports_of(task(tmp_path / "whole"))
    *_, newest = stopped_after(3, tmp_path)
    for folder in (tmp_path / "1").iterdir():
        (folder / "manifest.json").unlink()
    assert begin(task(tmp_path, newest), DATA).epoch == 0
    again = reports_of(task(tmp_path, newest))
    assert figures(again) == figures(whole)
    assert again[0].resumed_from is None


def test_attempts_of_a_trial_use_separate_folders(tmp_path: Path) -> None:
    *_, newest = stopped_after(2, tmp_path)
    before = sorted((tmp_path / "1").rglob("*"))
    reports_of(task(tmp_path, newest))
    assert sorted((tmp_path / "1").rglob("*")) == before
    assert (tmp_path / "2" / "epoch-000005").is_dir()


def test_diverged_trial_ends_with_its_epoch_as_reason(tmp_path: Path) -> None:
    wild = replace(CONFIG.training, reconstruction=OptimizerConfig(lr=1e18))
    model = replace(CONFIG.model, output="linear")
    job = task(tmp_path, config=replace(CONFIG, training=wild, model=model))
    *_, last = reports_of(job)
    assert last.end == "diverged"
    assert f"epoch {last.epoch}" in last.reason


def test_error_in_training_ends_the_trial_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "1").write_text("a file where the attempt's folder should be")
    *_, last = reports_of(task(tmp_path))
    assert (last.end, last.epoch) == ("failed", 1)
    assert last.reason.startswith("FileExistsError")
    assert "Traceback" in capsys.readouterr().err


def refusing(error: Exception) -> Callable[..., None]:
    def raises(*_: Any) -> None:
        raise error

    return raises


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_trial_on_a_full_disk_ends_as_full_and_resumes(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, newest = stopped_after(2, tmp_path)
    full = OSError(number, os.strerror(number))
    monkeypatch.setattr(TrainState, "save", refusing(full))
    [report] = reports_of(task(tmp_path, newest))
    assert (report.epoch, report.end, report.checkpoint) == (3, "full", None)
    assert "val/recon" in report.metrics
    assert os.strerror(number) in report.reason
    assert "MB are free" in report.reason
    assert newest.is_dir()
    monkeypatch.undo()
    assert begin(task(tmp_path, newest, attempt=3), DATA).epoch == 2


def test_trial_out_of_gpu_memory_has_its_own_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 1 GiB. "
        "If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF"
    )
    monkeypatch.setattr(TrainState, "create", refusing(error))
    [report] = all_reports_of(task(tmp_path))
    assert (report.end, report.epoch) == ("failed", 0)
    assert report.reason == (
        "out of GPU memory: CUDA out of memory. Tried to allocate 2.00 GiB. "
        "GPU 0 has a total capacity of 1 GiB."
    )


@pytest.mark.parametrize(
    "allocate",
    [lambda: torch.empty(1 << 48), lambda: np.empty(1 << 48), lambda: bytearray(1 << 48)],
)
def test_trial_out_of_host_memory_has_its_own_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allocate: Callable[[], object]
) -> None:
    monkeypatch.setattr(TrainState, "create", lambda *_: allocate())
    [report] = all_reports_of(task(tmp_path))
    assert (report.end, report.epoch) == ("failed", 0)
    assert report.reason is not None
    assert report.reason.startswith("out of host memory: ")
    assert "\n" not in report.reason


def test_reason_of_a_failed_trial_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("\nnumber out of range\nException raised from at:1\nframe #0: c10::Error")
    monkeypatch.setattr(TrainState, "create", refusing(error))
    [report] = all_reports_of(task(tmp_path))
    assert report.reason == "RuntimeError: number out of range"


# -- a pack ------------------------------------------------------------------------------------


def packed(folder: Path) -> list[TrialTask]:
    """Three attempts of one form, the second with fewer epochs."""
    configs = [
        replace(CONFIG, seed=seed, training=replace(CONFIG.training, epochs=epochs))
        for seed, epochs in ((4, EPOCHS), (6, EPOCHS - 2), (8, EPOCHS))
    ]
    return [
        replace(task(folder / str(number), config=config), number=number)
        for number, config in enumerate(configs)
    ]


def of(number: int, reports: list[Report]) -> list[Report]:
    return [report for report in reports if report.number == number and report.metrics]


def test_pack_trials_report_what_they_report_alone(tmp_path: Path) -> None:
    reports = all_reports_of(*packed(tmp_path / "pack"))
    for job in packed(tmp_path / "alone"):
        together, alone = of(job.number, reports), reports_of(job)
        assert [(r.epoch, r.end) for r in together] == [(r.epoch, r.end) for r in alone]
        for one, other in zip(together, alone, strict=True):
            assert one.metrics == pytest.approx(other.metrics, rel=1e-4, abs=1e-5)
        (begun,) = [r for r in reports if r.number == job.number and r.machine is not None]
        assert not begun.metrics
        assert begun.machine["aae.pack"] == "3"
        saved = together[-1].checkpoint
        assert saved is not None
        assert begin(replace(job, resume=saved, attempt=2), DATA).epoch == alone[-1].epoch


def test_pack_trains_on_without_a_pruned_trial(tmp_path: Path) -> None:
    jobs = packed(tmp_path)

    def prune(report: Report) -> None:
        if (report.number, report.epoch) == (0, 2):
            (Path(jobs[0].folder) / LEAVE).touch()

    reports = all_reports_of(*jobs, on_report=prune)
    assert [[r.epoch for r in of(number, reports)] for number in range(3)] == [
        [1, 2],
        [1, 2, 3],
        [1, 2, 3, 4, 5],
    ]


def test_pack_resumes_from_checkpoints_of_different_epochs(tmp_path: Path) -> None:
    before, again = packed(tmp_path / "before"), packed(tmp_path / "again")
    whole = [of(job.number, all_reports_of(job)) for job in before]
    for number, epoch in ((0, 4), (2, 5)):
        found = f"{before[number].folder}/epoch-{epoch:06d}"
        again[number] = replace(again[number], resume=found, attempt=2)
    reports = all_reports_of(*again)
    assert [r.resumed_from for r in reports[:3]] == [4, None, 5]
    assert [(r.epoch, r.end, r.trained) for r in of(2, reports)] == [(5, "complete", False)]
    assert [r.epoch for r in of(0, reports)] == [5]
    for number in (0, 1):
        final = pytest.approx(whole[number][-1].metrics, rel=1e-4, abs=1e-5)
        assert of(number, reports)[-1].metrics == final


def test_error_that_ends_a_pack_is_raised_unattributed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(worker, "fit_pack", failing)
    with pytest.raises(torch.OutOfMemoryError):
        all_reports_of(*packed(tmp_path))
