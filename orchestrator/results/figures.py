"""Which figures of the paper a model has, and the files that they are."""

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

Figure: TypeAlias = Callable[[Model, TrainingData, torch.Generator], Any]  # None: has it not
Save: TypeAlias = Callable[[Any, Path], None]

_TITLE = "Validation codes"
_AT = "@"  # the time, in the name of a picture that has none yet


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
    """Every figure that makes sense for the model; a classifier has none.

    The pictures depend on the model, the data and the seed alone.
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
    """Before the first epoch, where MLflow's slider begins, after it, after each that doubles it,
    and after the last."""
    return epoch.bit_count() <= 1 or epoch == epochs


def draw_epoch(state: TrainState, data: TrainingData, folder: Path) -> list[Path]:
    """The figures of a model in training that are pictures, each with a thumbnail.

    Their random streams are their own and the same in every epoch: what trains is left alone, and
    what moves from one picture to the next is the model. Named as MLflow names images by steps,
    but for the time (`dated`).
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
    """The name that MLflow's pages understand."""
    return name.replace(_AT, str(time_ms))


def draw_pictures(run: RunRecord, data: TrainingData, folder: Path) -> list[Path]:
    """The figures of a confirmed model."""
    assert run.checkpoint is not None
    return draw_figures(aae_core.load(run.checkpoint), data, run.seed, folder)
