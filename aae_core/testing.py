"""Laws of architectures, priors, data sets and metrics, for packages that declare others.

    from aae_core import testing

    def test_my_architecture_obeys_the_laws() -> None:
        testing.check_architecture("my_architecture", prior={"kind": "my_prior"}, code_dim=2)

A broken law raises AssertionError, which names the law.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from aae_core.config import PriorConfig, TrialConfig
from aae_core.data import DataSet, TrainingData, unit_interval
from aae_core.data.splits import permutation
from aae_core.declarations import ARCHITECTURES, PRIORS
from aae_core.errors import ConfigError, TrialDiverged
from aae_core.metrics import DECLARED_METRICS
from aae_core.priors import DensePrior, LabelledPrior, Prior, build_prior
from aae_core.training import EpochMetrics, TrainState, fit

CLASSES, SIDE, N_TRAIN, N_VALID = 3, 4, 60, 24
_LABELS = {"none": None, "some": 2 * CLASSES, "only": 14 * CLASSES}
_DRAWS = 4_000


def images(y: np.ndarray | None = None) -> TrainingData:
    """Return three noisy templates as uint8, 60 to train and 24 to validate.

    y: labels of the training images, in place of the template's number.
    """
    random = np.random.default_rng(0)
    templates = random.integers(0, 200, (CLASSES, SIDE * SIDE))
    labels = permutation(N_TRAIN + N_VALID) % CLASSES
    x = (templates[labels] + random.integers(0, 56, (len(labels), SIDE * SIDE))).astype(np.uint8)
    train = (x[:N_TRAIN], labels[:N_TRAIN] if y is None else y)
    return TrainingData.of("tiny", (SIDE, SIDE), train, (x[N_TRAIN:], labels[N_TRAIN:]))


def check_architecture(kind: str, **model: Any) -> None:
    """Check the laws of an architecture on small networks; `model` are further model settings."""
    declared = ARCHITECTURES[kind]
    with _law("the objective is one of the metrics, and every metric is declared"):
        assert declared.objective in declared.metrics
        assert set(declared.metrics) <= set(DECLARED_METRICS)
    config = _trial(kind, model)
    whole = TrainState.create(config, images())
    for epoch in _epochs(whole):
        with _law("every epoch measures a training cost, the objective, and declared metrics"):
            names = [name.partition("/") for name in epoch.metrics]
            assert any(split == "train" for split, _, _ in names)
            measured = {name for split, _, name in names if split == "val"}
            assert {declared.objective} <= measured <= {*declared.metrics}, measured
    with _law("training depends only on the configuration and its seed"):
        _require_same(_trained(config), whole)
        assert _trained(_trial(kind, model, seed=6)).history != whole.history
    with _law("a setting that is declared as unread changes no digit"):
        _require_same(_trained(_otherwise_unread(config)), whole)
    with _law("a trial resumed from a checkpoint has the digits of an uninterrupted one"):
        for epochs in range(1, config.training.epochs):
            _require_same(_trained(config, interrupted_after=epochs), whole)
    with _law("an extended trial has the digits of one that was planned with the extension"):
        extended = config.extended(config.training.epochs + 1)
        _require_same(_extended(whole, extended), _trained(extended))


def check_prior(kind: str, dim: int = 2, **settings: Any) -> None:
    """Check the laws of a prior for codes of dimension `dim`; `settings` are model.prior's."""
    declared = PRIORS[kind]
    prior = build_prior(PriorConfig(kind, **settings), dim)
    z = _drawn(prior, seed=0)
    with _law("a draw has the shape (n, dim), type float32, and finite coordinates"):
        assert z.shape == (_DRAWS, prior.dim)
        assert prior.dim == (2 if declared.flat else dim)
        assert z.dtype == torch.float32
        assert bool(z.isfinite().all())
    with _law("a draw depends only on its stream"):
        assert torch.equal(_drawn(prior, seed=0), z)
        assert not torch.equal(_drawn(prior, seed=1), z)
    with _law("std is the root mean square of a coordinate"):
        assert math.isclose(float(z.square().mean().sqrt()), prior.std, rel_tol=0.1)
    with _law("the prior has the density and the modes that it declares"):
        assert isinstance(prior, DensePrior) == declared.has_density
        assert isinstance(prior, LabelledPrior) == declared.has_modes


def check_data_set(data_set: DataSet) -> None:
    """Check the laws of a data set whose files exist (see `aae_core.data.open_data_set`)."""
    training, test = data_set.training(), data_set.test()
    images = {"train": training.x_train, "valid": training.x_valid, "test": test.x}
    labels = {"train": training.y_train, "valid": training.y_valid, "test": test.y}
    with _law("images are rows of uint8, or of float32 in [0, 1]"):
        for x in images.values():
            assert x.shape == (len(x), training.dim)
            assert x.flags.c_contiguous
            assert x.dtype == np.uint8 or (x.dtype == np.float32 and 0 <= x.min() <= x.max() <= 1)
    with _law("labels are int64 from 0 to K - 1; only training images may lack one, as -1"):
        for split, y in labels.items():
            assert (y is None) == (training.y_train is None)
            if y is not None:
                assert y.shape == (len(images[split]),)
                assert y.dtype == np.int64
                assert y.min() >= (-1 if split == "train" else 0)
                assert set(y) - {-1} <= set(range(training.classes))
    with _law("no image is in two splits"):
        seen = [{row.tobytes() for row in unit_interval(x)} for x in images.values()]
        assert len(set.union(*seen)) == sum(map(len, seen))
    with _law("every reading has the same checksum"):
        assert data_set.training().sha256 == training.sha256 != test.sha256
        assert data_set.test().sha256 == test.sha256
    with _law("the description has the sizes, and every file is valid"):
        described = data_set.describe()
        assert described.sizes == {split: len(x) for split, x in images.items()}
        assert not described.missing
        assert all(verdict.ok for verdict in data_set.verify())


def check_metric(name: str, kind: str = "aae", **model: Any) -> None:
    """Check the laws of a metric on a small model of an architecture, with model settings."""
    metric = DECLARED_METRICS[name]
    config = _trial(kind, model, further=(name,))
    with _law("it is measured on the validation images, as a finite number"):
        state = _trained(config)
        assert "val" in metric.splits
        assert all(math.isfinite(row[f"val/{name}"]) for row in state.history)
    with _law("it depends only on the model, the images and its own generator"):
        _require_same(_trained(config), state)
    with _law("it changes no other figure"):
        rest = [{k: v for k, v in row.items() if k != f"val/{name}"} for row in state.history]
        assert rest == _trained(_trial(kind, model)).history


@contextmanager
def _law(law: str) -> Iterator[None]:
    try:
        yield
    except AssertionError as broken:
        raise AssertionError(f"{law}: {broken}") from broken


def _epochs(state: TrainState) -> Iterator[EpochMetrics]:
    with _law("every metric is a finite number"):
        try:
            for epoch in fit(state, images()):
                json.dumps(epoch.metrics, allow_nan=False)
                yield epoch
        except TrialDiverged as diverged:
            raise AssertionError(str(diverged)) from diverged


def _trial(
    kind: str, model: dict[str, Any], seed: int = 5, further: tuple[str, ...] = ()
) -> TrialConfig:
    declared = ARCHITECTURES[kind]
    plain = {"kind": kind, "hidden": [12, 8], "code_dim": 2, "init_std": 0.3, "clusters": 4}
    plain["encoder"] = {"kind": declared.encoders[0]}
    return TrialConfig.from_dict(
        {
            "data": {"labels": _LABELS[declared.labels]},
            "model": plain | model,
            "training": {
                "epochs": 3,
                "batch_size": 20,
                "adversarial": {"lr": 0.01},
                "metrics": further,
            },
            "seed": seed,
        }
    )


def _otherwise_unread(config: TrialConfig) -> TrialConfig:
    """Return the trial with other numbers in its unread settings, where such a trial is valid."""

    def changed(document: dict[str, Any], prefix: str = "") -> None:
        nonlocal config
        for key, value in document.items():
            path = f"{prefix}{key}"
            if isinstance(value, dict):
                changed(value, f"{path}.")
            elif f"{path}.".startswith(unread):
                document[key] = _another(value)
                try:
                    config = TrialConfig.from_dict(whole)
                except ConfigError:
                    document[key] = value

    whole, unread = config.to_dict(), tuple(f"{name}." for name in config.unread)
    changed(whole)
    return config


def _another(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return value + 1 if isinstance(value, int) else 0.5 * value + 0.1


def _trained(config: TrialConfig, interrupted_after: int | None = None) -> TrainState:
    state = TrainState.create(config, images())
    for epoch in fit(state, images()):
        if epoch.epoch == interrupted_after:
            return _extended(state, config)
    return state


def _extended(state: TrainState, config: TrialConfig) -> TrainState:
    """Return the state after the rest of `config`'s epochs, from a checkpoint of `state`."""
    with TemporaryDirectory() as folder:
        state.save(Path(folder) / "checkpoint")
        state = TrainState.load(Path(folder) / "checkpoint")
    state.config = config
    for _ in fit(state, images()):
        pass
    return state


def _require_same(got: TrainState, want: TrainState) -> None:
    assert got.history == want.history
    weights = got.model.state_dict()
    for name, wanted in want.model.state_dict().items():
        assert torch.equal(weights[name], wanted), name


def _drawn(prior: Prior, seed: int) -> torch.Tensor:
    return prior.sample(_DRAWS, generator=torch.Generator().manual_seed(seed))
