import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aae_core.evaluation import samples as module
from aae_core.evaluation.samples import nearest, sample_grid


def _uniform(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tile", [1, 7, 1000])
def test_nearest_has_the_least_distance_for_any_tile(
    tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TILE", tile)
    x, train = _uniform(20, 5), _uniform(50, 5, seed=1)
    expected = (x[:, None] - train).square().sum(2).argmin(1)
    assert torch.equal(nearest(x, train), expected)


def test_nearest_of_a_training_image_is_itself() -> None:
    base = 0.9 * _uniform(1, 784) + torch.linspace(0, 1e-3, 100)[:, None]  # near duplicates
    assert torch.equal(nearest(base, base), torch.arange(100))


def test_nearest_compares_bytes_and_floats_on_one_scale() -> None:
    train = torch.tensor([[0, 0], [128, 128], [255, 255]], dtype=torch.uint8)
    assert nearest(torch.tensor([[0.1, 0.2], [0.9, 0.8]]), train).tolist() == [0, 2]


@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    image_shape=st.sampled_from([(3, 2), (2, 3, 1), (2, 2, 3), (5,)]),
)
def test_sample_grid_places_images_and_nearest_neighbours(
    rows: int, columns: int, image_shape: tuple[int, ...]
) -> None:
    pixels = int(np.prod(image_shape))
    drawn, train = _uniform(rows * columns, pixels), _uniform(9, pixels, seed=1)
    canvas = sample_grid(drawn, train, rows, columns, image_shape)
    height, width, *channels = image_shape if len(image_shape) > 1 else (1, *image_shape)
    colour = [3] if channels == [3] else []
    assert canvas.dtype == np.uint8
    assert list(canvas.shape) == [
        rows * (height + 1) - 1,
        (columns + 1) * (width + 1) - 1,
        *colour,
    ]
    for row in range(rows):
        last = drawn[row * columns + columns - 1]
        neighbour = train[(train - last).square().sum(1).argmin()]
        for column, image in enumerate([*drawn[row * columns :][:columns], neighbour]):
            top, left = row * (height + 1), column * (width + 1)
            found = canvas[top : top + height, left : left + width]
            expected = (image * 255).round().byte().numpy().reshape(height, width, *colour)
            np.testing.assert_array_equal(found, expected)


def test_sample_grid_has_grey_gaps_and_clips_linear_outputs() -> None:
    samples = torch.tensor([[-3.0], [7.0]])
    train = torch.tensor([[0], [255]], dtype=torch.uint8)
    canvas = sample_grid(samples, train, 1, 2, (1, 1))
    assert canvas.tolist() == [[0, 128, 255, 128, 255]]


def test_sample_grid_averages_other_numbers_of_channels() -> None:
    canvas = sample_grid(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.2, 0.2]]), 1, 1, (1, 1, 2))
    assert canvas.tolist() == [[127, 128, 51]]


@pytest.mark.parametrize(("n", "pixels"), [(5, 4), (6, 5)])
def test_sample_grid_rejects_samples_that_do_not_fill_it(n: int, pixels: int) -> None:
    with pytest.raises(ValueError, match=r"a grid of 2 x 3 images of \(2, 2\) takes .* \(6, 4\)"):
        sample_grid(_uniform(n, pixels), _uniform(3, 4), 2, 3, (2, 2))
