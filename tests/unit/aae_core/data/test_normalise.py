import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from aae_core.data import normalise, unit_interval
from aae_core.data.normalise import Pixels, pixel_statistics

BYTES = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=8))
SINGLES = arrays(
    np.float32, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(0, 1, width=32)
)


def measured(x: np.ndarray) -> Pixels:
    pixels = Pixels(x.shape[1], standardise=True)
    pixels.measure(x)
    return pixels


@settings(deadline=None)
@given(x=BYTES | SINGLES, constant=st.integers(0, 7))
def test_pixels_inverse_undoes_standardising(x: np.ndarray, constant: int) -> None:
    x[:, constant % x.shape[1]] = x[0, 0]
    pixels, images = measured(x), torch.from_numpy(unit_interval(x))
    z = pixels(images)
    assert z.isfinite().all()
    torch.testing.assert_close(pixels.inverse(z), images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_pixels_standardise_training_images_to_mean_0_and_std_1(dtype: str) -> None:
    x = np.random.default_rng(0).integers(0, 256, (500, 6)).astype(np.uint8)
    x = x if dtype == "uint8" else unit_interval(x)
    z = measured(x)(torch.from_numpy(unit_interval(x, "float64")))
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(z.std(0, correction=0), 1, atol=1e-6)


def test_pixels_without_standardising_return_images_unchanged() -> None:
    pixels, x = Pixels(3, standardise=False), torch.rand(4, 3)
    pixels.measure(x.numpy())
    assert pixels(x) is x
    assert pixels.inverse(x) is x
    assert not pixels.state_dict()


def test_pixel_statistics_match_known_mean_and_std() -> None:
    mean, std = pixel_statistics(np.array([[0, 255, 51], [255, 255, 51]], np.uint8))
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, [0.5, 1, 0.2], rtol=1e-7)
    np.testing.assert_array_equal(std, np.float32([0.5, 1, 1]))  # the last two are constant


@pytest.mark.parametrize("value", [0, 0.1, 0.7, 1])
def test_pixel_statistics_give_constant_pixels_std_1_among_many_images(value: float) -> None:
    x = np.full((10_000, 2), value, np.float32)
    x[0, 1] = 0.5
    mean, std = pixel_statistics(x)
    assert (mean[0], std[0]) == (np.float32(value), 1)
    assert 0 < std[1] < 0.01


def test_pixel_statistics_same_for_any_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).random((50, 4), dtype=np.float32)
    whole = pixel_statistics(x)
    monkeypatch.setattr(normalise, "_CHUNK", 7)
    for part, of_whole in zip(pixel_statistics(x), whole, strict=True):
        np.testing.assert_allclose(part, of_whole, rtol=1e-6)
