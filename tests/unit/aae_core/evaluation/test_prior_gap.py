"""Prior gap: 0 if the codes follow the prior, positive if they do not."""

import pytest
import torch
from tiny import start, stream, trial
from torch import Tensor, nn

from aae_core.data.resident import Images
from aae_core.evaluation import parzen, scores
from aae_core.models import Model

WIDTH, SIDE = 0.15, 16  # pixel value per unit of code; pixels per image


class Line(nn.Module):
    """Affine map x = ½ + WIDTH·(z − shift) @ axes, and its inverse."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift
        self.axes = torch.eye(2, SIDE)


class Encoder(Line):
    def forward(self, x: Tensor, _: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return x[:, :0], (x - 0.5) @ self.axes.T / WIDTH + self.shift


class Decoder(Line):
    def forward(self, z: Tensor) -> Tensor:
        return 0.5 + WIDTH * (z - self.shift) @ self.axes


def exact(shift: float) -> Model:
    """Return a model that reconstructs exactly; its codes are prior draws moved by `shift`."""
    model = start(trial("aae", "deterministic", "gaussian", output="linear")).model.eval()
    model.encoder, model.decoder = Encoder(shift), Decoder(shift)
    return model


def drawn(n: int, seed: int) -> Tensor:
    return Decoder(0.0)(torch.randn(n, 2, generator=stream(seed)))


TRAIN, VALID = drawn(12_000, 0), Images(drawn(400, 1), None)


def measured(model: Model, train: Tensor = TRAIN, epoch: int = 1) -> dict[str, float]:
    return scores.validation_metrics(model, train, VALID, 5, epoch)


def test_prior_gap_is_zero_for_codes_drawn_from_the_prior() -> None:
    found = measured(exact(shift=0.0))
    assert abs(found["val/prior_gap"]) < found["val/parzen_se"]


def test_prior_gap_is_positive_for_codes_off_the_prior() -> None:
    on, off = measured(exact(shift=0.0)), measured(exact(shift=2.0))
    assert off["val/recon"] == pytest.approx(on["val/recon"], abs=1e-9)
    assert off["val/prior_gap"] > 10 * off["val/parzen_se"]
    assert off["val/parzen_codes"] == pytest.approx(on["val/parzen_codes"], abs=1e-3)


def test_prior_gap_is_codes_score_minus_prior_score() -> None:
    found = measured(exact(shift=1.0))
    difference = found["val/parzen_codes"] - found["val/parzen_ll"]
    assert found["val/prior_gap"] == difference


@pytest.mark.parametrize("encoder", ["deterministic", "gaussian", "universal"])
def test_training_images_change_only_the_metrics_of_their_codes(encoder: str) -> None:
    model = start(trial("aae", encoder)).model.eval()
    one, other = (measured(model, train) for train in (TRAIN, 1 - TRAIN))
    differing = {name for name in one if one[name] != other[name]}
    assert differing == {"val/parzen_codes", "val/prior_gap"}
    assert measured(model) == one
    assert measured(model, epoch=2)["val/parzen_codes"] != one["val/parzen_codes"]


@pytest.mark.parametrize("n", [12_000, 10_000, 60, 1])
def test_prior_gap_spreads_10000_codes_evenly_over_the_images(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[Tensor] = []

    def spy(samples: Tensor, _: Tensor) -> dict[str, float]:
        scored.append(samples)
        return {"parzen_ll": 0.0}

    monkeypatch.setattr(parzen, "validation_score", spy)
    train = torch.linspace(0, 1, n)[:, None].expand(n, SIDE)
    model = exact(shift=0.0)
    measured(model, train)
    of_prior, of_codes = scored
    assert len(of_prior) == len(of_codes) == scores.PARZEN_SAMPLES
    _, counts = torch.unique(of_codes[:, 0], return_counts=True)
    assert len(counts) == min(n, scores.PARZEN_SAMPLES)
    assert int(counts.max() - counts.min()) <= 1
