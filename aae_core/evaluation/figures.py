"""Figures of a trained model as in Makhzani et al. 2015, one function each.

A function returns None if the model has no such figure.  All random draws come from `stream`, on
the model's device.

Shapes: D pixels, L code, K categories; a canvas is uint8, (H', W') or (H', W', 3).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from aae_core.data import TrainingData, unit_interval
from aae_core.data.resident import resident
from aae_core.evaluation.latent import basis_2d, circle_basis, project_2d
from aae_core.evaluation.samples import GAP, image_grid, sample_grid, side_by_side
from aae_core.models import (
    GAN,
    GMMNAE,
    Autoencoder,
    CategoricalAAE,
    DimensionalityReduction,
    LabelRegularised,
    Model,
    Samples,
    SemiSupervised,
    Supervised,
)
from aae_core.priors import (
    GaussianPrior,
    MixturePrior,
    Prior,
    SwissRollPrior,
    UniformPrior,
)

_CODES = 5_000  # points in a picture of the code space
_SIDE = 21  # images along a manifold's side: odd, to include the median
_PETALS = 3  # components in a mixture's manifold
_ROWS, _COLUMNS = 10, 12
_FRAMES = 48  # per round
_MOST_CATEGORIES = 30  # maximum to draw
_CHUNK = 1_000  # images a forward pass

Canvas: TypeAlias = np.ndarray


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes of validation images in a plane, over draws of the prior."""

    points: np.ndarray  # (n, 2)
    labels: np.ndarray | None  # (n,)
    reference: np.ndarray  # (m, 2), draws of the prior
    modes: np.ndarray | None = None  # (m,), the label of each draw's mode of the prior
    heads: np.ndarray | None = None  # (K, 2), positions of the categories


@dataclass(frozen=True, eq=False)
class Walk:
    """Images of codes along closed walks through the prior, as a strip and as a film."""

    strip: Canvas  # one row per walk, over the first quarter of the round
    frames: list[Canvas]  # one column per walk, over the whole round


@torch.no_grad()
def samples(model: Model, data: TrainingData, stream: torch.Generator) -> Canvas | None:
    """Figure 5: samples, and per row the training image nearest to its last sample."""
    if not isinstance(model, Samples):
        return None
    rows = columns = 10
    drawn = model.sample(rows * columns, generator=stream)
    train = resident(data.x_train, stream.device)
    return sample_grid(drawn, train, rows, columns, data.image_shape)


@torch.no_grad()
def codes(model: Model, data: TrainingData, stream: torch.Generator) -> Codes | None:
    """Figures 2, 4 and 11: codes of validation images by label.

    Codes of more than two dimensions are projected to their principal axes.  Codes around fixed
    heads are projected to the plane where the heads lie evenly on a circle (section 7).
    """
    if not isinstance(model, Autoencoder):
        return None
    x = resident(data.x_valid[:_CODES], stream.device)
    z = _in_chunks(lambda chunk: model.encode(unit_interval(chunk), generator=stream), x)
    reference, modes = _reference(model, len(z), stream)
    heads = model.heads if isinstance(model, DimensionalityReduction) else None
    basis = basis_2d(z)
    if heads is not None and not heads.learned and model.code_dim > 2:
        basis = circle_basis(model.code_dim).to(z)

    def drawn(points: Tensor) -> np.ndarray:
        array: np.ndarray = project_2d(points, basis).cpu().numpy()
        return array

    return Codes(
        points=drawn(z),
        labels=None if data.y_valid is None else data.y_valid[:_CODES],
        reference=drawn(reference),
        modes=None if modes is None else modes.cpu().numpy(),
        heads=None if heads is None else drawn(heads.weight),
    )


@torch.no_grad()
def manifold(model: Model, data: TrainingData, stream: torch.Generator) -> Canvas | None:
    """Figures 2e and 4b: decoded even percentiles of a two-dimensional prior.

    A mixture has one panel for each of its first three components.
    """
    if not isinstance(model, Autoencoder | GAN) or isinstance(model, Supervised | CategoricalAAE):
        return None
    z = percentiles(model.prior, _SIDE)
    if z is None:
        return None
    return side_by_side(
        [image_grid(_decode(model, panel.to(stream.device)), data.image_shape) for panel in z]
    )


@torch.no_grad()
def styles(model: Model, data: TrainingData, stream: torch.Generator) -> Canvas | None:
    """Figure 7: one row per style, one column per label."""
    if not isinstance(model, Supervised | SemiSupervised):
        return None
    z = model.prior.sample(_ROWS, generator=stream)
    return image_grid(_in_every_category(model, z), data.image_shape)


@torch.no_grad()
def clusters(model: Model, data: TrainingData, stream: torch.Generator) -> Canvas | None:
    """Figure 9: one row per cluster: its head, decoded at z = 0, then its validation images.

    A row of a cluster with too few images ends in grey.
    """
    if not isinstance(model, CategoricalAAE) or model.sees_labels:
        return None
    x = resident(data.x_valid, stream.device)
    q = _in_chunks(lambda chunk: model.classify(unit_interval(chunk)), x)
    heads = _in_every_category(model, q.new_zeros(1, model.code_dim))[0]
    rows = heads.new_full((len(heads), 1 + _COLUMNS, data.dim), GAP / 255)
    rows[:, 0] = heads
    cluster = q.argmax(1)
    for k in range(len(rows)):
        members = unit_interval(x[cluster == k][:_COLUMNS])
        rows[k, 1 : 1 + len(members)] = members
    return image_grid(rows, data.image_shape)


@torch.no_grad()
def walk(model: Model, data: TrainingData, stream: torch.Generator) -> Walk | None:
    """Walk from one draw of the prior to another, or along a swiss roll (figure 4d).

    If the decoder takes a category, one style walk is drawn in each category, one row each.
    """
    if not isinstance(model, Autoencoder | GAN):
        return None
    turns = torch.cat([torch.linspace(0, 0.25, _COLUMNS), torch.arange(_FRAMES) / _FRAMES])
    if isinstance(model, Supervised | CategoricalAAE):
        z = path(model.prior, 1, turns, stream)
        images = _in_every_category(model, z[:, 0])
    else:
        images = _decode(model, path(model.prior, _ROWS, turns, stream))
    strip, film = images.split([_COLUMNS, _FRAMES])
    return Walk(
        strip=image_grid(strip.transpose(0, 1), data.image_shape),
        frames=[image_grid(frame[None], data.image_shape) for frame in film],
    )


def percentiles(prior: Prior, side: int) -> Tensor | None:
    """Even percentiles of a 2-D prior, (panels, side, side, 2); None for a prior without a grid.

    The first coordinate grows to the right, the second upwards.  A mixture has one panel for each
    of its first three components, with axes outwards from the origin and across.
    """
    if prior.dim != 2:
        return None
    share = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    match prior:
        case GaussianPrior():
            return _grid(prior.std * torch.special.ndtri(share))[None]
        case UniformPrior():
            return _grid(prior.half_side * (2 * share - 1))[None]
        case MixturePrior():
            along, across = _grid(torch.special.ndtri(share)).unbind(-1)
            outwards, sideways = prior.axes(torch.arange(min(_PETALS, prior.modes)))
            length, width = prior.radius + prior.radial_std * along, prior.tangential_std * across
            return (
                length[..., None] * outwards[:, None, None]
                + width[..., None] * sideways[:, None, None]
            )
    return None


def path(prior: Prior, rows: int, turns: Tensor, stream: torch.Generator) -> Tensor:
    """Positions of `rows` closed walks after `turns` (T,) of a round in [0, 1], (T, rows, L).

    A walk goes from one draw (0) to another (¼) and on to the first.  For a Gaussian every point of
    the walk is a draw, since cos·z₀ + sin·z₁ has the distribution of z₀ and z₁.  In a mixture each
    walk stays in one component.  On a swiss roll each row walks along one part of the roll's
    length, forth and back within half a round.
    """
    if isinstance(prior, SwissRollPrior):
        within = 1 - (1 - 4 * turns % 2).abs()
        return prior.mean((torch.arange(rows) + within[:, None]) / rows).to(stream.device)
    angle = 2 * math.pi * turns.to(stream.device)[:, None, None]
    cos, sin = angle.cos(), angle.sin()
    if isinstance(prior, UniformPrior):
        cos, sin = cos.square(), sin.square()  # stays in the cube
    if isinstance(prior, MixturePrior):
        modes = torch.arange(rows, device=stream.device) % prior.modes
        start, end = (prior.sample_modes(modes, generator=stream) for _ in range(2))
        centre = prior.radius * prior.axes(modes)[0]
    else:
        start, end = (prior.sample(rows, generator=stream) for _ in range(2))
        centre = torch.zeros_like(start)
    return centre + cos * (start - centre) + sin * (end - centre)


def _grid(steps: Tensor) -> Tensor:
    """Build a grid of points (side, side, 2) from ascending coordinates (side,)."""
    down, right = torch.meshgrid(steps.flip(0), steps, indexing="ij")
    return torch.stack([right, down], dim=-1).float()


def _reference(model: Autoencoder, n: int, stream: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Draw n reference codes of the prior, (n, L), and each draw's label, if labelled."""
    if isinstance(model, LabelRegularised):
        modes = torch.arange(n, device=stream.device) % model.prior.modes
        return model.prior.sample_modes(modes, generator=stream), modes
    z = model.prior.sample(n, generator=stream)
    if isinstance(model, DimensionalityReduction):
        return model.code(model.categorical.sample(n, generator=stream), z), None
    return model.match(z) if isinstance(model, GMMNAE) else z, None


def _decode(model: Autoencoder | GAN, z: Tensor) -> Tensor:
    """Decode draws of the prior to images, (…, L) -> (…, D)."""
    if isinstance(model, GMMNAE):
        z = model.match(z)
    x = _in_chunks(model.decode, z.flatten(0, -2))
    return x.reshape(*z.shape[:-1], -1)


def _in_every_category(model: Supervised | CategoricalAAE, z: Tensor) -> Tensor:
    """Decode every style (n, L) with each of the first 30 categories at most, (n, K, D)."""
    categories = model.categorical.dim
    drawn = torch.arange(min(categories, _MOST_CATEGORIES), device=z.device)
    y = drawn if isinstance(model, Supervised) else one_hot(drawn, categories).float()
    return torch.stack(
        [model.decode(z, y[k].expand(len(z), *y.shape[1:])) for k in drawn.tolist()], dim=1
    )


def _in_chunks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([function(chunk) for chunk in x.split(_CHUNK)])
