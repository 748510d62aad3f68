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
from orchestrator.pictures import save_animation, save_grid, save_page, save_scatter
from orchestrator.records import RunRecord

Figure: TypeAlias = Callable[[Model, TrainingData, torch.Generator], Any]  # None: has it not
Save: TypeAlias = Callable[[Any, Path], None]

_TITLE = "Validation codes"


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


def draw_pictures(run: RunRecord, data: TrainingData, folder: Path) -> list[Path]:
    """The figures of a confirmed model."""
    assert run.checkpoint is not None
    return draw_figures(aae_core.load(run.checkpoint), data, run.seed, folder)
