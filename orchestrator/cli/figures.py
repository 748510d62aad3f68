"""Command figures: draw the paper's figures for a trained model."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import common
from orchestrator.cli.common import AsJson
from orchestrator.cli.models import ModelName
from orchestrator.errors import UsageError


def figures(
    model: ModelName,
    out: Annotated[
        Path, typer.Option("--out", help="A folder; pictures of the same name are replaced.")
    ] = Path("figures"),
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json: AsJson = False,
) -> None:
    """Draw the paper's figures of a model: samples, codes, manifold, styles, clusters, walks.

    The images are those of the validation set; the test split stays closed.
    """
    from aae_core.data import load_training_data
    from aae_core.training import TrainState
    from orchestrator.results.figures import draw_figures
    from orchestrator.sweepfile.checks import require_same_data

    checkpoint = common.checkpoint_of(model)
    folder = common.output(out, checkpoint)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{out} is not a folder; name one with --out")
    state = TrainState.load(checkpoint)
    data = load_training_data(state.config.data, common.settings().data)
    for note in data.notes:
        common.say(f"note: {note}")
    require_same_data(data, state.data_sha256, str(checkpoint), "set AAE_DATA to their folder")
    paths = draw_figures(state.model.eval(), data, seed, folder)
    if not paths:
        raise UsageError(f"{model}: a {state.model.kind} has no figures")
    if json:
        files = [path.name for path in paths]
        common.emit({"checkpoint": str(checkpoint), "folder": str(folder), "files": files})
    else:
        print("\n".join(map(str, paths)))


COMMANDS = (figures,)
