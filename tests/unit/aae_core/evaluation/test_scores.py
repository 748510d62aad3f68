"""Test that metrics do not depend on the order of a split's images."""

import pytest
import torch
from tiny import SIDE, start, stream, trial

from aae_core.data.resident import Images
from aae_core.evaluation import scores
from aae_core.evaluation.likelihood import SIGMA_GRID, STD_GRID
from aae_core.models import Model

HALF = 2_000


def halves(*, flipped: bool = False) -> Images:
    """Return dark images of class 0, then bright ones of class 1, or the reverse if `flipped`."""
    y = torch.arange(2 * HALF) // HALF
    x = 0.1 * torch.rand(2 * HALF, SIDE * SIDE, generator=stream(3)) + 0.8 * y[:, None]
    return Images(x.flip(0), y.flip(0)) if flipped else Images(x, y)


@pytest.fixture(scope="module")
def model() -> Model:
    """Return a model whose samples are dark: amid the dark images, far from the bright ones."""
    model = start(trial("aae", "gaussian")).model.eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(0.3)
        list(model.decoder.parameters())[-1].fill_(-3)
    return model


@pytest.fixture(scope="module")
def on_test(model: Model) -> list[dict[str, float]]:
    """Return the test metrics of both orders."""
    return [scores.test_metrics(model, halves(), halves(flipped=f), 0, 1) for f in (False, True)]


@pytest.mark.parametrize("name", ["iw_ll", "precision", "density"])
def test_test_metrics_on_a_subset_represent_the_whole_split(
    on_test: list[dict[str, float]], name: str
) -> None:
    """Test with only dark images first in one order and only bright images first in the other."""
    first, flipped = (metrics[f"test/{name}"] for metrics in on_test)
    assert first == pytest.approx(flipped, rel=0.2)


def test_validation_metrics_on_a_subset_represent_the_whole_split(model: Model) -> None:
    first, flipped = (
        scores.validation_metrics(model, images.x, images, 0, 1)["val/latent_std"]
        for images in (halves(flipped=f) for f in (False, True))
    )
    assert first == pytest.approx(flipped, rel=0.2)


def test_test_metrics_include_the_importance_weighting_widths(
    on_test: list[dict[str, float]],
) -> None:
    for metrics in on_test:
        assert metrics["test/iw_sigma"] in SIGMA_GRID
        assert metrics["test/iw_std"] in STD_GRID
