"""Draw the figures of the paper that a model supports, each to its files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch

import aae_core
from aae_core.data import TrainingData
from aae_core.evaluation import figures
from aae_core.evaluation.figures import Walk
from aae_core.models import Model
from aae_core.streams import generator
from aae_core.training import TrainState
from orchestrator.records import RunRecord
from orchestrator.results.pictures import (
    save_animation,
    save_grid,
    save_page,
    save_scatter,
    save_thumbnail,
)

Figure: TypeAlias = Callable[[Model, TrainingData, torch.Generator], Any]  # None: unsupported
Save: TypeAlias = Callable[[Any, Path], None]

_TITLE = "Validation codes"
_AT = "@"  # placeholder for the time in a picture's name


def _save_strip(walk: Walk, path: Path) -> None:
    save_grid(walk.strip, path)


def _save_film(walk: Walk, path: Path) -> None:
    save_animation(walk.frames, path)


_FIGURES: dict[Figure, dict[str, Save]] = {
    figures.samples: {"samples.png": save_grid},
    figures.codes: {
        "latent.png": partial(save_scatter, title=_TITLE),
        "codes.html": partial(save_page, title=_TITLE),
    },
    figures.manifold: {"manifold.png": save_grid},
    figures.styles: {"styles.png": save_grid},
    figures.clusters: {"clusters.png": save_grid},
    figures.walk: {"walk.png": _save_strip, "walk.gif": _save_film},
}


def draw_figures(model: Model, data: TrainingData, seed: int, folder: Path) -> list[Path]:
    """Draw every figure that the model supports, and return the paths; a classifier has none.

    The pictures depend only on the model, the data and the seed.
    """
    paths = []
    for figure, files in _FIGURES.items():
        drawn = figure(model, data, generator(seed, "pictures", figure.__name__))
        if drawn is None:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for name, save in files.items():
            save(drawn, folder / name)
            paths.append(folder / name)
    return paths


def is_drawn(epoch: int, epochs: int) -> bool:
    """Return True for epochs 0, 1, 2, 4, 8, … and the last; MLflow's slider begins at 0."""
    return epoch.bit_count() <= 1 or epoch == epochs


def draw_epoch(state: TrainState, data: TrainingData, folder: Path) -> list[Path]:
    """Draw the PNG figures of a model in training, each with a thumbnail; return the paths.

    Each figure has its own random stream, the same in every epoch.  Drawing thus leaves the
    training unchanged, and pictures of different epochs differ only by the model.  File names
    are those of MLflow for images by step, except for the time (`dated`).
    """
    paths = []
    for figure, files in _FIGURES.items():
        stream = generator(state.config.seed, "pictures", figure.__name__, device=state.device)
        drawn = figure(state.model.eval(), data, stream)
        for name in files if drawn is not None else ():
            if not name.endswith(".png"):
                continue
            stem = name.removesuffix(".png")
            path = folder / f"{stem}+step+{state.epoch}+timestamp+{_AT}+{stem}.png"
            small = path.with_name(f"{path.stem}+compressed.webp")
            folder.mkdir(parents=True, exist_ok=True)
            files[name](drawn, path)
            save_thumbnail(path, small)
            paths += [path, small]
    return paths


def dated(name: str, time_ms: int) -> str:
    """Return the name that MLflow's pages expect, with the time."""
    return name.replace(_AT, str(time_ms))


def draw_pictures(run: RunRecord, data: TrainingData, folder: Path) -> list[Path]:
    """Draw the figures of a confirmed model, and return the paths."""
    assert run.checkpoint is not None
    return draw_figures(aae_core.load(run.checkpoint), data, run.seed, folder)
