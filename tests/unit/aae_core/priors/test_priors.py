"""Laws of all priors, and laws of each prior."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, kstest
from torch import Tensor

from aae_core.config import PriorConfig
from aae_core.priors import (
    CategoricalPrior,
    DensePrior,
    GaussianPrior,
    LabelledPrior,
    MixturePrior,
    Prior,
    SwissRollPrior,
    UniformPrior,
    build_prior,
)

PRIORS: dict[str, Callable[[], Prior]] = {
    "gaussian-1": lambda: build_prior(PriorConfig(std=1.0), 1),
    "gaussian-8": lambda: build_prior(PriorConfig(std=5.0), 8),
    "gaussian-1000": lambda: build_prior(PriorConfig(std=0.1), 1000),
    "uniform-2": lambda: build_prior(PriorConfig("uniform", std=2.0), 2),
    "uniform-15": lambda: build_prior(PriorConfig("uniform", std=10.0), 15),
    "mixture-10": lambda: build_prior(PriorConfig("mixture"), 2),
    "mixture-3": lambda: MixturePrior(3, radius=2.0, radial_std=0.5, tangential_std=0.3),
    "swiss_roll-10": lambda: build_prior(PriorConfig("swiss_roll"), 2),
    "swiss_roll-4": lambda: SwissRollPrior(4, radius=9.0, turns=1.5, width=0.1),
    "categorical-10": lambda: CategoricalPrior(10),
}
CENTRED = ("gaussian", "uniform", "mixture")


def some(kind: type) -> dict[str, list]:
    names = [name for name, build in PRIORS.items() if isinstance(build(), kind)]
    return {"argvalues": [PRIORS[name]() for name in names], "ids": names}


every = pytest.mark.parametrize("prior", **some(object))
labelled = pytest.mark.parametrize("prior", **some(LabelledPrior))
dense = pytest.mark.parametrize("prior", **some(DensePrior))


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(prior: Prior, n: int, seed: int = 0) -> Tensor:
    return prior.sample(n, generator=stream(seed))


def draw_modes(prior: LabelledPrior, each: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    modes = torch.arange(prior.modes).repeat_interleave(each)
    return prior.sample_modes(modes, generator=stream(seed)), modes


def test_prior_protocols_match_only_their_own_priors() -> None:
    assert {name.partition("-")[0] for name in some(LabelledPrior)["ids"]} == {
        "mixture",
        "swiss_roll",
        "categorical",
    }
    assert {name.partition("-")[0] for name in some(DensePrior)["ids"]} == {"gaussian", "mixture"}


@every
def test_prior_samples_are_float32_codes(prior: Prior) -> None:
    z = draw(prior, 5)
    assert z.shape == (5, prior.dim)
    assert z.dtype == torch.float32


@every
def test_prior_samples_depend_only_on_their_stream(prior: Prior) -> None:
    assert torch.equal(draw(prior, 9), draw(prior, 9))
    assert not torch.equal(draw(prior, 9), draw(prior, 9, seed=1))


@every
def test_prior_std_is_the_root_mean_square_of_a_coordinate(prior: Prior) -> None:
    z = draw(prior, 200_000 // prior.dim)
    assert z.square().mean().sqrt().item() == pytest.approx(prior.std, rel=0.02)


@pytest.mark.parametrize("name", [name for name in PRIORS if name.startswith(CENTRED)])
def test_prior_mean_is_zero_for_symmetric_priors(name: str) -> None:
    prior = PRIORS[name]()
    n = 200_000 // prior.dim
    assert draw(prior, n).mean(0).abs().max().item() < 5 * prior.std / math.sqrt(n)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 50), st.sampled_from(sorted(PRIORS)))
def test_prior_draws_any_number_of_samples(n: int, name: str) -> None:
    prior = PRIORS[name]()
    assert draw(prior, n).shape == (n, prior.dim)


@labelled
def test_prior_modes_drawn_uniformly_give_the_prior(prior: LabelledPrior) -> None:
    z, _ = draw_modes(prior, 20_000 // prior.modes)
    p = draw(prior, 20_000, seed=1)
    torch.testing.assert_close(z.mean(0), p.mean(0), atol=0.04 * prior.std, rtol=0)
    torch.testing.assert_close(z.T.cov(), p.T.cov(), atol=0.04 * prior.std**2, rtol=0)
    for angle in torch.linspace(0, math.pi, 6)[:-1]:
        axis = torch.zeros(prior.dim)
        axis[:2] = torch.stack([angle.cos(), angle.sin()])
        assert ks_2samp(z @ axis, p @ axis).pvalue > 1e-3


@labelled
def test_prior_samples_of_a_mode_lie_nearest_to_each_other(prior: LabelledPrior) -> None:
    (z, modes), (p, p_modes) = draw_modes(prior, 100), draw_modes(prior, 500, seed=1)
    nearest = p_modes[torch.cdist(z, p).argmin(1)]
    for mode in range(prior.modes):
        assert (nearest[modes == mode] == mode).double().mean() > 0.8


@labelled
def test_prior_sample_modes_keep_their_place_in_the_batch(prior: LabelledPrior) -> None:
    modes = torch.tensor([prior.modes - 1, 0, 1, 0])
    centres = torch.stack([z.mean(0) for z in draw_modes(prior, 2_000)[0].split(2_000)])
    draws = [prior.sample_modes(modes, generator=stream(seed)) for seed in range(300)]
    torch.testing.assert_close(
        torch.stack(draws).mean(0), centres[modes], atol=0.3 * prior.std, rtol=0
    )


@pytest.mark.parametrize(
    "prior", [GaussianPrior(1, 1.0), GaussianPrior(2, 0.5), MixturePrior(3, 2.0, 0.5, 0.3)]
)
def test_prior_density_integrates_to_one(prior: DensePrior) -> None:
    axis = torch.linspace(-12 * prior.std, 12 * prior.std, 1_001, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * prior.dim).reshape(-1, prior.dim)
    total = prior.log_density(grid).exp().sum() * (axis[1] - axis[0]) ** prior.dim
    assert total.item() == pytest.approx(1, abs=1e-4)


@dense
def test_prior_density_is_the_density_of_its_samples(prior: DensePrior) -> None:
    """Test E_p[q(z)/p(z)] = 1, true for any density q; here q = N(m, t²I), narrower than p."""
    t = 0.5 * prior.std if prior.dim <= 2 else 0.9 * prior.std
    shift = 0.3 * prior.std / math.sqrt(prior.dim)
    z = draw(prior, 400_000 // prior.dim).double()
    log_q = torch.distributions.Normal(shift, t).log_prob(z).sum(-1)
    if prior.dim == 1000:
        want = torch.distributions.Normal(0, prior.std).log_prob(z).sum(-1)
        torch.testing.assert_close(prior.log_density(z), want)
    else:
        ratio = (log_q - prior.log_density(z)).exp()
        assert ratio.mean().item() == pytest.approx(1, abs=6 * ratio.std().item() / len(z) ** 0.5)


def test_mixture_density_matches_a_histogram_of_its_samples() -> None:
    prior = MixturePrior(10, radius=4.0, radial_std=1.0, tangential_std=0.25)
    edges, n = np.linspace(-7, 7, 57), 400_000
    counts, _, _ = np.histogram2d(*draw(prior, n).numpy().T, bins=[edges, edges])
    fine = np.linspace(-7, 7, 56 * 8 + 1)
    middle = torch.from_numpy((fine[:-1] + fine[1:]) / 2)
    density = prior.log_density(torch.cartesian_prod(middle, middle)).exp().numpy()
    cells = density.reshape(56, 8, 56, 8).sum((1, 3)) * (fine[1] - fine[0]) ** 2
    deviation = (counts - n * cells) / np.sqrt(n * cells + 1)
    assert np.abs(deviation).max() < 6


def test_gaussian_prior_is_isotropic_with_its_std() -> None:
    z = draw(GaussianPrior(4, 3.0), 100_000)
    torch.testing.assert_close(z.T.cov(), 9 * torch.eye(4), atol=0.15, rtol=0)


def test_uniform_prior_fills_exactly_its_cube() -> None:
    prior = UniformPrior(3, 2.0)
    z = draw(prior, 20_000, seed=1)
    bound = math.sqrt(3) * 2
    assert prior.half_side == pytest.approx(bound)
    for coordinate in z.T:
        assert -bound <= coordinate.min() < -0.999 * bound
        assert 0.999 * bound < coordinate.max() <= bound
        assert kstest(coordinate, "uniform", (-bound, 2 * bound)).pvalue > 1e-3


def test_mixture_petals_point_outwards() -> None:
    prior = MixturePrior(4, radius=5.0, radial_std=1.0, tangential_std=0.2)
    z, _ = draw_modes(prior, 20_000)
    centres = torch.tensor([[5.0, 0.0], [0.0, 5.0], [-5.0, 0.0], [0.0, -5.0]])
    for mode, petal in enumerate(z.split(20_000)):
        torch.testing.assert_close(petal.mean(0), centres[mode], atol=0.04, rtol=0)
        along, across = (1, 0.2) if mode % 2 == 0 else (0.2, 1)
        torch.testing.assert_close(petal.std(0), torch.tensor([along, across]), atol=0, rtol=0.03)


def shares_of_length(z: Tensor, radius: float, turns: float) -> np.ndarray:
    """Return each point's share of the length of the roll r = radius·θ / 2π·turns.

    The distance to the origin gives a point's angle, and the sum of line elements its length.
    """
    full = 2 * math.pi * turns
    theta = np.linspace(0, full, 200_001)
    element = np.sqrt(1 + theta**2)  # for r = θ; shares do not depend on the unit of length
    length = np.concatenate([[0], np.cumsum((element[1:] + element[:-1]) / 2)])
    angle = z.double().norm(dim=-1).numpy() / radius * full
    return np.interp(angle, theta, length / length[-1])


def test_swiss_roll_samples_are_uniform_along_its_length() -> None:
    roll = SwissRollPrior(10, radius=4.0, turns=2.0, width=1e-7)
    share = shares_of_length(draw(roll, 20_000), 4.0, 2.0)
    assert kstest(share, "uniform").pvalue > 1e-3
    angle = draw(roll, 20_000).double().norm(dim=-1) / 4.0 * (4 * math.pi)
    on_spiral = torch.stack([angle.cos(), angle.sin()], -1) * (angle / math.pi)[:, None]
    torch.testing.assert_close(draw(roll, 20_000).double(), on_spiral, atol=1e-4, rtol=0)


def test_swiss_roll_modes_are_consecutive_tenths_of_its_length() -> None:
    roll = SwissRollPrior(10, radius=4.0, turns=2.0, width=1e-7)
    z, _ = draw_modes(roll, 2_000)
    for mode, part in enumerate(z.split(2_000)):
        share = shares_of_length(part, 4.0, 2.0)
        assert kstest(share, "uniform", (mode / 10, 1 / 10)).pvalue > 1e-3
        assert mode / 10 - 1e-4 < share.min() < share.max() < (mode + 1) / 10 + 1e-4


def test_swiss_roll_has_its_width_in_every_direction() -> None:
    thin, wide = (SwissRollPrior(10, 4.0, 2.0, width) for width in (1e-7, 0.25))
    across = draw(wide, 50_000) - draw(thin, 50_000)
    torch.testing.assert_close(across.T.cov(), 0.0625 * torch.eye(2), atol=2e-3, rtol=0)


def test_categorical_prior_is_one_hot_with_equal_probabilities() -> None:
    z = draw(CategoricalPrior(7), 70_000)
    assert set(z.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(z.sum(-1), torch.ones(len(z)))
    torch.testing.assert_close(z.mean(0), torch.full((7,), 1 / 7), atol=0.01, rtol=0)
    modes = torch.tensor([6, 0, 3])
    got = CategoricalPrior(7).sample_modes(modes, generator=stream())
    assert torch.equal(got, torch.eye(7)[modes])
