import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from aae_core.config import (
    DataConfig,
    EncoderConfig,
    HeadsConfig,
    ModelConfig,
    PriorConfig,
    TrainConfig,
    TrialConfig,
)
from aae_core.data import TrainingData
from aae_core.declarations import ARCHITECTURES
from aae_core.evaluation import figures
from aae_core.evaluation.figures import path, percentiles
from aae_core.evaluation.samples import image_grid
from aae_core.models import CategoricalAAE, DimensionalityReduction, Model
from aae_core.priors import (
    GaussianPrior,
    MixturePrior,
    Prior,
    SwissRollPrior,
    UniformPrior,
    build_prior,
)
from aae_core.training import TrainState

SHAPES = [(4, 4), (2, 3, 3), (9,)]
PRIORS: list[Prior] = [
    GaussianPrior(2, 3.0),
    GaussianPrior(5, 0.5),
    UniformPrior(2, 2.0),
    MixturePrior(6, 4.0, 1.0, 0.2),
    SwissRollPrior(5, 4.0, 2.0, 0.1),
]


def _data(image_shape: tuple[int, ...] = (4, 4), labels: bool = True) -> TrainingData:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, math.prod(image_shape)), np.uint8)
    y = np.arange(60) % 3
    train, valid = (x[:30], y[:30]), (x[30:], y[30:])
    if not labels:
        train, valid = (x[:30], None), (x[30:], None)
    return TrainingData.of("random", image_shape, train, valid)


def _model(data: TrainingData, kind: Any, labels: int | None = None, **settings: Any) -> Model:
    config = TrialConfig(
        DataConfig(labels=labels),
        ModelConfig(kind=kind, **{"hidden": (7,), "code_dim": 2, "init_std": 0.7} | settings),
        TrainConfig(epochs=2),
    )
    return TrainState.create(config, data).model.eval()


def _stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _kind(kind: Any) -> tuple[TrainingData, Model]:
    """Return data and a model of one architecture."""
    data = _data()
    prior = PriorConfig("mixture" if kind == "label_regularised" else "gaussian", modes=3)
    encoder = EncoderConfig("gaussian" if kind == "vae" else "deterministic")
    return data, _model(data, kind, prior=prior, encoder=encoder, clusters=4)


# -- figures by architecture -----------------------------------------------------------------


PLAIN = {"samples", "codes", "walk"}
HAS = {
    "aae": PLAIN | {"manifold"},
    "label_regularised": PLAIN | {"manifold"},
    "supervised": PLAIN | {"styles"},
    "semi_supervised": PLAIN | {"styles"},
    "clustering": PLAIN | {"clusters"},
    "dimensionality_reduction": PLAIN,
    "vae": PLAIN | {"manifold"},
    "gan": {"samples", "walk", "manifold"},
    "gmmn_ae": PLAIN | {"manifold"},
    "classifier": set(),
}
FIGURES = ("samples", "codes", "manifold", "styles", "clusters", "walk")


def test_expected_figures_cover_every_architecture() -> None:
    assert HAS.keys() == ARCHITECTURES.own.keys()


@pytest.mark.parametrize("kind", ARCHITECTURES.own)
def test_model_has_the_figures_of_its_architecture(kind: str) -> None:
    data, model = _kind(kind)
    drawn = {name: getattr(figures, name)(model, data, _stream()) for name in FIGURES}
    assert {name for name, figure in drawn.items() if figure is not None} == HAS[kind]


@pytest.mark.parametrize("kind", ARCHITECTURES.own)
def test_figures_depend_only_on_the_stream(kind: str) -> None:
    data, model = _kind(kind)

    def bytes_of(name: str, seed: int) -> bytes:
        figure = getattr(figures, name)(model, data, _stream(seed))
        parts = [figure] if isinstance(figure, np.ndarray) else list(vars(figure).values())
        return b"".join(np.asarray(part).tobytes() for part in parts if part is not None)

    for name in HAS[kind]:
        assert bytes_of(name, 1) == bytes_of(name, 1)
        fixed = name in ("manifold", "clusters")
        assert (bytes_of(name, 1) == bytes_of(name, 2)) == fixed


@pytest.mark.parametrize("image_shape", SHAPES)
@pytest.mark.parametrize("kind", ["aae", "semi_supervised", "clustering"])
def test_figures_accept_images_of_any_shape(kind: Any, image_shape: tuple[int, ...]) -> None:
    data = _data(image_shape)
    model = _model(data, kind, clusters=4)
    height, width = image_shape[:2] if len(image_shape) > 1 else (1, *image_shape)
    colour = image_shape[2:]

    def shape(rows: int, columns: int) -> tuple[int, ...]:
        return (rows * (height + 1) - 1, columns * (width + 1) - 1, *colour)

    walks = {"aae": 10, "semi_supervised": 3, "clustering": 4}[kind]
    walk = figures.walk(model, data, _stream())
    assert walk.strip.shape == shape(walks, 12)
    assert {frame.shape for frame in walk.frames} == {shape(1, walks)}
    expected = {"samples": shape(10, 11), "manifold": shape(21, 21), "styles": shape(10, 3)}
    expected["clusters"] = shape(4, 13)
    for name in HAS[kind] - {"codes", "walk"}:
        assert getattr(figures, name)(model, data, _stream()).shape == expected[name]


def test_figures_are_drawn_without_labels() -> None:
    data = _data(labels=False)
    model = _model(data, "clustering", clusters=4)
    codes = figures.codes(model, data, _stream())
    assert codes.labels is None
    assert figures.clusters(model, data, _stream()) is not None


# -- codes -----------------------------------------------------------------------------------


def test_codes_figure_draws_plane_codes_unchanged() -> None:
    data, model = _kind("aae")
    codes = figures.codes(model, data, _stream())
    expected = model.encode(torch.from_numpy(data.x_valid) / 255)
    np.testing.assert_allclose(codes.points, expected.detach().numpy(), atol=1e-5)
    np.testing.assert_array_equal(codes.labels, data.y_valid)
    assert (codes.modes, codes.heads) == (None, None)


def test_codes_figure_gives_prior_draws_their_label() -> None:
    data, model = _kind("label_regularised")
    codes = figures.codes(model, data, _stream())
    assert codes.modes is not None
    angles = np.arctan2(codes.reference[:, 1], codes.reference[:, 0])
    expected = np.exp(2j * np.pi / 3 * codes.modes)  # the directions of the petals
    assert (np.real(np.exp(1j * angles) * expected.conj()) > 0.5).all()


def test_codes_figure_places_learned_heads_among_the_codes() -> None:
    data, model = _kind("dimensionality_reduction")
    codes = figures.codes(model, data, _stream())
    assert isinstance(model, DimensionalityReduction)
    np.testing.assert_array_equal(codes.heads, model.heads.weight.detach().numpy())
    distance = np.linalg.norm(codes.reference[:, None] - codes.heads, axis=-1).min(1)
    assert distance.mean() < 2  # the style's std is 1


def test_codes_figure_places_fixed_heads_evenly_on_a_circle() -> None:
    data = _data()
    model = _model(data, "dimensionality_reduction", code_dim=3, heads=HeadsConfig("fixed"))
    codes = figures.codes(model, data, _stream())
    expected = 10 * np.exp(2j * np.pi / 3 * np.arange(3))
    np.testing.assert_allclose(codes.heads, np.stack([expected.real, expected.imag], 1), atol=1e-5)


def test_codes_figure_draws_the_matcher_output_for_moment_matching() -> None:
    data, model = _kind("gmmn_ae")
    codes = figures.codes(model, data, _stream())
    prior = model.prior.sample(len(codes.points), generator=_stream())
    np.testing.assert_allclose(codes.reference, model.matcher(prior).detach().numpy(), atol=1e-5)


# -- manifold --------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [GaussianPrior(2, 3.0), UniformPrior(2, 2.0)])
def test_percentiles_grid_matches_the_percentiles_of_the_prior(prior: Prior) -> None:
    grid = percentiles(prior, 5)
    assert grid.shape == (1, 5, 5, 2)
    assert grid[0, 2, 2].tolist() == [0, 0]
    draws = prior.sample(100_000, generator=_stream())
    for axis, steps in enumerate([grid[0, 0, :, 0], grid[0, :, 0, 1].flip(0)]):
        below = (draws[:, axis, None] < steps).float().mean(0)
        torch.testing.assert_close(
            below, torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]), atol=5e-3, rtol=0
        )


def test_percentiles_of_each_petal_are_its_own() -> None:
    prior = MixturePrior(6, 4.0, 1.0, 0.2)
    grid = percentiles(prior, 5)
    assert grid.shape == (3, 5, 5, 2)
    for k in range(3):
        draws = prior.sample_modes(torch.full((100_000,), k), generator=_stream())
        torch.testing.assert_close(grid[k, 2, 2], draws.mean(0), atol=2e-2, rtol=0)
        outwards = grid[k, 2, -1] - grid[k, 2, 0]
        upwards = grid[k, 0, 2] - grid[k, -1, 2]
        for axis, ends in [(outwards, grid[k, 2]), (upwards, grid[k, :, 2].flip(0))]:
            below = (draws @ axis)[:, None] < ends @ axis
            expected = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
            torch.testing.assert_close(below.float().mean(0), expected, atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    "prior", [GaussianPrior(3, 1.0), UniformPrior(1, 1.0), SwissRollPrior(5, 4.0, 2.0, 0.1)]
)
def test_percentiles_of_other_priors_are_none(prior: Prior) -> None:
    assert percentiles(prior, 5) is None


@torch.no_grad()
def test_manifold_has_the_median_code_in_its_middle() -> None:
    data, model = _kind("aae")
    canvas = figures.manifold(model, data, _stream())
    middle = image_grid(model.decode(torch.zeros(1, 2))[None], (4, 4))
    np.testing.assert_array_equal(canvas[50:54, 50:54], middle)
    corner = float(torch.special.ndtri(torch.tensor(1 - 1 / 42, dtype=torch.float64)))
    top_right = image_grid(model.decode(torch.full((1, 2), corner))[None], (4, 4))
    np.testing.assert_array_equal(canvas[:4, -4:], top_right)


def test_manifold_puts_three_petals_side_by_side() -> None:
    data, model = _kind("label_regularised")
    canvas = figures.manifold(model, data, _stream())
    side = 21 * 5 - 1
    assert canvas.shape == (side, 3 * side + 2 * 4)
    assert set(canvas[:, side : side + 4].flat) == {128}


# -- styles and clusters ---------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("kind", ["supervised", "semi_supervised"])
def test_styles_figure_has_a_row_per_style_and_column_per_label(kind: str) -> None:
    data, model = _kind(kind)
    canvas = figures.styles(model, data, _stream())
    z = model.prior.sample(10, generator=_stream())
    for k in range(3):
        y = torch.full((10,), k)
        x = model.decode(z, y if kind == "supervised" else one_hot(y, 3).float())
        column = image_grid(x[:, None], (4, 4))
        np.testing.assert_array_equal(canvas[:, 5 * k : 5 * k + 4], column)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "labels"), [("clustering", None), ("dimensionality_reduction", 0)]
)
def test_clusters_figure_has_a_row_per_head_with_its_images(kind: str, labels: int | None) -> None:
    data = _data()
    model = _model(data, kind, labels, clusters=4)
    assert isinstance(model, CategoricalAAE)
    canvas = figures.clusters(model, data, _stream())
    heads = image_grid(model.decode(torch.zeros(4, 2), torch.eye(4))[:, None], (4, 4))
    np.testing.assert_array_equal(canvas[:, :4], heads)
    cluster = model.classify(torch.from_numpy(data.x_valid) / 255).argmax(1).numpy()
    for k in range(4):
        members = data.x_valid[cluster == k][:12].reshape(-1, 4, 4)
        row = canvas[5 * k : 5 * k + 4]
        for place, image in enumerate(members, start=1):
            np.testing.assert_array_equal(row[:, 5 * place : 5 * place + 4], image)
        assert (row[:, 5 * (len(members) + 1) :] == 128).all()


def test_clusters_figure_is_cut_at_thirty_categories() -> None:
    data = _data()
    model = _model(data, "clustering", clusters=40)
    canvas = figures.clusters(model, data, _stream())
    assert canvas.shape[0] == 30 * 5 - 1


# -- walks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_walk_is_closed_and_has_short_steps(prior: Prior) -> None:
    turns = torch.linspace(0, 1, 401)
    z = path(prior, 4, turns, _stream())
    assert z.shape == (401, 4, prior.dim)
    torch.testing.assert_close(z[0], z[-1], atol=1e-4, rtol=0)
    assert (z.diff(dim=0).norm(dim=-1) < 0.05 * prior.std * math.sqrt(prior.dim) + 0.2).all()


@pytest.mark.parametrize("prior", PRIORS[:4], ids=repr)
def test_walk_leads_from_one_draw_to_another(prior: Prior) -> None:
    z = path(prior, 4, torch.tensor([0.0, 0.25]), _stream())
    stream = _stream()
    if isinstance(prior, MixturePrior):
        ends = [prior.sample_modes(torch.arange(4), generator=stream) for _ in range(2)]
    else:
        ends = [prior.sample(4, generator=stream) for _ in range(2)]
    torch.testing.assert_close(z, torch.stack(ends), atol=1e-5, rtol=1e-5)


def _moments(z: Tensor) -> tuple[Tensor, Tensor]:
    return z.mean(0), z.T.cov()


@pytest.mark.parametrize("prior", [PRIORS[0], PRIORS[3]], ids=repr)
def test_walk_halfway_point_is_distributed_like_the_prior(prior: Prior) -> None:
    n = 60_000
    (z,) = path(prior, n, torch.tensor([0.14]), _stream())
    draws = prior.sample(n, generator=_stream(1))
    if isinstance(prior, MixturePrior):
        modes = torch.arange(n) % prior.modes
        draws = prior.sample_modes(modes, generator=_stream(1))[modes == 2]
        z = z[modes == 2]
    for found, expected in zip(_moments(z), _moments(draws), strict=True):
        torch.testing.assert_close(found, expected, atol=0.02 * prior.std**2, rtol=0)


def test_walk_of_a_uniform_prior_stays_in_the_cube() -> None:
    prior = UniformPrior(3, 2.0)
    z = path(prior, 500, torch.linspace(0, 1, 50), _stream())
    assert z.abs().max() <= prior.half_side


def test_walk_of_a_swiss_roll_follows_it_in_order() -> None:
    prior = SwissRollPrior(5, 4.0, 2.0, 1e-6)
    z = path(prior, 5, torch.linspace(0, 0.25, 9), _stream())
    torch.testing.assert_close(z[0, 0], torch.zeros(2))
    torch.testing.assert_close(z[-1, -1].norm(), torch.tensor(4.0))
    torch.testing.assert_close(z[-1, :-1], z[0, 1:])
    steps = z.transpose(0, 1).flatten(0, 1).unique_consecutive(dim=0).diff(dim=0).norm(dim=-1)
    assert steps[4:].std() < 0.005  # even, except near the origin, where the roll bends most
    modes = torch.arange(50_000) % 5
    draws = prior.sample_modes(modes, generator=_stream())
    inside = z[1:-1].flatten(0, 1)
    distance, nearest = torch.cdist(inside, draws).min(1)
    assert distance.max() < 0.01
    assert torch.equal(modes[nearest], torch.arange(5).repeat(7))


@torch.no_grad()
def test_walk_strip_and_film_show_the_same_walks() -> None:
    data, model = _kind("aae")
    walk = figures.walk(model, data, _stream())
    assert len(walk.frames) == 48
    start = model.decode(model.prior.sample(10, generator=_stream()))
    np.testing.assert_array_equal(walk.strip[:, :4], image_grid(start[:, None], (4, 4)))
    np.testing.assert_array_equal(walk.frames[0], image_grid(start[None], (4, 4)))


@torch.no_grad()
def test_walk_uses_one_style_in_every_category() -> None:
    data, model = _kind("semi_supervised")
    walk = figures.walk(model, data, _stream())
    z = model.prior.sample(1, generator=_stream()).expand(3, 2)
    np.testing.assert_array_equal(
        walk.strip[:, :4], image_grid(model.decode(z, torch.eye(3))[:, None], (4, 4))
    )


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "mixture", "swiss_roll"])
def test_walk_path_exists_for_every_prior(kind: Any) -> None:
    assert path(build_prior(PriorConfig(kind), 2), 3, torch.zeros(1), _stream()).shape == (1, 3, 2)
