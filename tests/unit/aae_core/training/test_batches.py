"""Batches contain every image once an epoch, and only visible labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import CLASSES, images, start, trial

from aae_core.config import TrainConfig, TrialConfig
from aae_core.data import TrainingData, unit_interval
from aae_core.errors import ConfigError, DataError
from aae_core.phases import Batch
from aae_core.streams import generator
from aae_core.testing import N_TRAIN
from aae_core.training.batches import BatchSource, corrupt, visible_labels


def epoch(config: TrialConfig, data: TrainingData | None = None) -> list[Batch]:
    data = data or images()
    state = start(config, data)
    return list(BatchSource.of(state, data).batches(state))


def sized(kind: str, batch_size: int, **settings: object) -> TrialConfig:
    config = trial(kind, **settings)  # type: ignore[arg-type]
    return replace(config, training=replace(config.training, batch_size=batch_size))


def rows(x: torch.Tensor) -> list[tuple[float, ...]]:
    return sorted(map(tuple, x.tolist()))


def test_batches_contain_every_image_once_an_epoch() -> None:
    batches = epoch(sized("aae", 20))
    assert [len(batch.x) for batch in batches] == [20, 20, 20]
    seen = torch.cat([batch.x for batch in batches])
    assert rows(seen) == rows(torch.from_numpy(unit_interval(images().x_train)))


@pytest.mark.parametrize(("size", "want"), [(25, [25, 25]), (60, [60]), (1000, [60])])
def test_batches_drop_a_last_batch_that_is_not_full(size: int, want: list[int]) -> None:
    assert [len(batch.x) for batch in epoch(sized("aae", size))] == want


def test_batch_order_differs_between_epochs_and_seeds() -> None:
    data, config = images(), trial("aae")
    state = start(config, data)
    supply = BatchSource.of(state, data)
    first, second = (next(supply.batches(state)).x for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, epoch(config)[0].x)
    assert not torch.equal(first, epoch(replace(config, seed=6))[0].x)


def test_batches_keep_images_and_labels_together() -> None:
    data = images()
    assert data.y_train is not None
    label = dict(zip(map(tuple, unit_interval(data.x_train).tolist()), data.y_train, strict=True))
    for batch in epoch(trial("supervised", labels=None)):
        assert [label[tuple(x)] for x in batch.x.tolist()] == batch.y.tolist()


def test_batches_contain_no_label_hidden_from_the_trial() -> None:
    for kind in ("semi_supervised", "label_regularised"):
        config = trial(kind)
        batches = epoch(config)
        assert sum(int((batch.y >= 0).sum()) for batch in batches) == config.data.labels
    for kind in ("aae", "clustering", "vae", "gan", "gmmn_ae"):
        for batch in epoch(trial(kind)):
            assert (batch.y == -1).all()
            assert batch.labelled is None


def test_labelled_batches_repeat_every_image_equally_often() -> None:
    data = images()
    config = sized("semi_supervised", 4, labels=9)
    visible = visible_labels(config, data)
    x = unit_interval(data.x_train[visible])
    batches = epoch(config)
    pairs = [batch.labelled for batch in batches]
    assert all(pair is not None and len(pair[0]) == 4 for pair in pairs)
    times = {tuple(row): 0 for row in x.tolist()}
    for pair in pairs:
        for row, y in zip(pair[0].tolist(), pair[1].tolist(), strict=True):
            times[tuple(row)] += 1
            assert 0 <= y < CLASSES
    assert len(times) == 9
    assert set(times.values()) == {6, 7}  # 15 batches of 4, over 9 images


def test_visible_labels_are_drawn_evenly_by_the_seed() -> None:
    data = images()
    config = trial("semi_supervised", labels=9)
    visible = visible_labels(config, data)
    assert np.bincount(data.y_train[visible]).tolist() == [3, 3, 3]
    assert visible == visible_labels(config, data)
    assert visible != visible_labels(replace(config, seed=6), data)


def test_visible_labels_raise_when_labels_are_missing_or_too_few() -> None:
    data = images()
    bare = TrainingData.of("bare", (4, 4), (data.x_train, None), (data.x_valid, None))
    with pytest.raises(DataError, match="no labels"):
        visible_labels(trial("semi_supervised"), bare)
    with pytest.raises(ConfigError, match="at most"):
        visible_labels(trial("semi_supervised", labels=3 * N_TRAIN), data)


def test_batches_accept_read_only_arrays() -> None:
    """Test read-only arrays, as from a store that processes share."""
    data = images()
    for array in (data.x_train, data.y_train, data.x_valid, data.y_valid):
        array.flags.writeable = False
    assert len(epoch(trial("semi_supervised"), data)) == 3


def test_batches_without_noise_give_the_encoder_the_image_itself() -> None:
    for batch in epoch(trial("aae")):
        assert batch.noisy is batch.x


def test_batches_put_noise_on_inputs_but_never_on_targets() -> None:
    config = trial("semi_supervised")
    noisy = replace(config, training=replace(config.training, input_noise=0.3))
    for clean, batch in zip(epoch(config), epoch(noisy), strict=True):
        assert torch.equal(clean.x, batch.x)
        assert (batch.noisy - batch.x).std().item() == pytest.approx(0.3, rel=0.2)
        assert torch.equal(clean.labelled[1], batch.labelled[1])
        noise = batch.labelled[0] - clean.labelled[0]
        assert noise.std().item() == pytest.approx(0.3, rel=0.2)


def test_corruption_has_the_configured_noise_and_dropout() -> None:
    x = torch.full((200, 500), 0.5)
    noisy = corrupt(x, TrainConfig(input_noise=0.3), generator(0, "corruption"))
    assert noisy.mean().item() == pytest.approx(0.5, abs=0.005)
    assert noisy.std().item() == pytest.approx(0.3, abs=0.005)
    dropped = corrupt(x, TrainConfig(input_dropout=0.2), generator(0, "corruption"))
    assert (dropped == 0).double().mean().item() == pytest.approx(0.2, abs=0.005)
    assert dropped.mean().item() == pytest.approx(0.5, abs=0.005)
    both = TrainConfig(input_noise=0.3, input_dropout=0.2)
    corrupted = corrupt(x, both, generator(0, "corruption"))
    torch.testing.assert_close(
        corrupted[corrupted != 0], (noisy / 0.8)[corrupted != 0]
    )  # noise comes before dropout
