"""evaluate, parzen, sample, encode: what is done with trained models, or with anyone's samples."""

import math
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import common
from orchestrator.cli.common import AsJson, SweepName, number, say
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from aae_core.evaluation.parzen import ParzenResult

ModelName = Annotated[str, typer.Argument(help="A sweep (its winner) or a checkpoint folder.")]
_CHUNK = 10_000  # images at a time


def evaluate(
    sweep: SweepName = "latest",
    parzen_samples: Annotated[
        int | None, typer.Option("--parzen-samples", min=1, help="Of every confirmed model.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Score a sweep's confirmed models on the test split; what is known is not computed again."""
    from orchestrator import cluster

    cluster.prepare(common.settings())  # before anything imports Ray
    from orchestrator import stages
    from orchestrator.cli.panel import watching
    from orchestrator.spec import SweepSpec

    reader = common.history()
    name = reader.resolve(sweep)
    spec = SweepSpec.model_validate_json(dumps(reader.spec(name)))
    parzen = spec.evaluate.parzen
    if parzen_samples is not None:
        parzen = parzen.model_copy(
            update={"samples": parzen_samples, "screen_samples": parzen_samples}
        )
    with watching(spec) as observer:
        document = stages.evaluate(common.settings(), name, parzen, observer)
    if json:
        common.emit(document)
        return
    _print_scores(document["models"])


def parzen(
    samples: Annotated[Path, typer.Argument(help="The samples, .npy, (N, D).")],
    test: Annotated[Path, typer.Option("--test", help="The images to score, .npy, (n, D).")],
    valid: Annotated[
        Path | None, typer.Option("--valid", help="Images that choose sigma, .npy.")
    ] = None,
    sigma: Annotated[
        float | None, typer.Option("--sigma", help="The kernel's width, instead of --valid.")
    ] = None,
    actors: Annotated[
        int | None, typer.Option("--actors", min=1, help="Processes; one per CPU by default.")
    ] = None,
    per_point: Annotated[
        Path | None, typer.Option("--per-point", help="Write each image's figure here, .npy.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Parzen log-likelihood of images under anyone's samples (Goodfellow et al. 2014).

    Float arrays are taken as they are, uint8 is divided by 255. The figures are the same, bit for
    bit, for any number of actors.
    """
    import numpy as np

    from orchestrator import cluster

    cluster.prepare(common.settings())  # before anything imports Ray
    from orchestrator.parzen_job import open_array

    if (valid is None) == (sigma is None):
        raise UsageError("give either --valid, to choose sigma, or --sigma")
    if sigma is not None and not 0 < sigma < math.inf:
        raise UsageError(f"--sigma {sigma:g}: give a positive, finite number")
    if per_point is not None:
        _require_npy(per_point)
    result = _score(
        samples.resolve(),
        None if valid is None else open_array(valid),
        open_array(test),
        sigma,
        actors,
    )
    if per_point is not None:
        np.save(per_point, result.per_point.numpy())
    if result.sigma_at_edge:
        say(
            f"note: the best sigma, {result.sigma_grid:.3g}, is at the edge of the grid; "
            "a better one may lie outside"
        )
    if json:
        common.emit(result.to_dict())
        return
    print(
        f"log-likelihood {number(result.log_likelihood, result.standard_error)} nats, "
        f"sigma {result.sigma:.4g}\n"
        f"on the grid    {number(result.log_likelihood_grid, result.standard_error_grid)} nats, "
        f"sigma {result.sigma_grid:.4g}\n"
        f"{result.n_samples:,} samples, {result.n_test:,} images of {result.dim} pixels, "
        f"{common.duration(result.seconds)}, error below {result.max_abs_error_bound:.1e} nats"
    )


def sample(
    model: ModelName,
    out: Annotated[Path, typer.Option("--out", help="The .npy to write, (n, D) float32.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw images from a model, pixels in [0, 1]; the first are the same for any number."""
    import torch

    import aae_core
    from aae_core.models import Samples
    from aae_core.streams import generator

    net = aae_core.load(common.checkpoint_of(model))
    if not isinstance(net, Samples):
        raise UsageError(f"{model}: a {net.kind} draws no images")
    images = _new_array(out, (n, net.dim))
    stream = generator(seed, "sample")
    with torch.no_grad():
        for start in range(0, n, _CHUNK):
            chunk = images[start : start + _CHUNK]
            chunk[:] = net.sample(_CHUNK, generator=stream)[: len(chunk)].numpy()
    images.flush()
    print(out)


def encode(
    model: ModelName,
    data: Annotated[Path, typer.Option("--data", help="Images, .npy, (n, D).")],
    out: Annotated[Path, typer.Option("--out", help="The .npy to write, (n, L) float32.")],
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Draw z ~ q(z|x); without it, one fixed code per image."),
    ] = None,
) -> None:
    """Encode images, float in [0, 1] or uint8."""
    import torch

    import aae_core
    from aae_core.data import unit_interval
    from aae_core.models import Autoencoder
    from aae_core.streams import generator
    from orchestrator.parzen_job import open_array

    net = aae_core.load(common.checkpoint_of(model))
    if not isinstance(net, Autoencoder):
        raise UsageError(f"{model}: a {net.kind} has no encoder")
    images = open_array(data)
    if images.shape[1] != net.dim:
        raise UsageError(f"{data}: {images.shape[1]} pixels an image, the model has {net.dim}")
    codes = _new_array(out, (len(images), net.code_dim))
    stream = None if seed is None else generator(seed, "encode")
    with torch.no_grad():
        for start in range(0, len(images), _CHUNK):
            pixels = torch.tensor(images[start : start + _CHUNK])
            codes[start : start + _CHUNK] = net.encode(
                unit_interval(pixels), generator=stream
            ).numpy()
    codes.flush()
    print(out)


COMMANDS = (evaluate, parzen, sample, encode)


def _print_scores(models: list[dict[str, Any]]) -> None:
    """Parzen figures of those that have any, the test metrics of the others."""
    scored = [model for model in models if "log_likelihood" in model]
    others = [model for model in models if "log_likelihood" not in model]
    if scored:
        common.table(
            ("model", "group", "samples", "Parzen, nats", "on the grid", "sigma"),
            (
                (
                    f"confirm-{m['trial']}",
                    m["group"],
                    f"{m['n_samples']:,}",
                    number(m["log_likelihood"], m["standard_error"]),
                    number(m["log_likelihood_grid"], m["standard_error_grid"]),
                    m["sigma"],
                )
                for m in scored
            ),
        )
    if others:
        metrics = sorted({name for model in others for name in model["metrics"]})
        common.table(
            ("model", "group", *metrics),
            (
                (f"confirm-{m['trial']}", m["group"], *map(m["metrics"].get, metrics))
                for m in others
            ),
        )


def _score(
    samples: Path,
    valid: "np.ndarray | None",
    test: "np.ndarray",
    sigma: float | None,
    actors: int | None,
) -> "ParzenResult":
    """Over Ray actors; in this process where one block and one process is all there is."""
    from aae_core.evaluation.parzen import block_count, in_process, run_protocol
    from orchestrator import cluster
    from orchestrator.parzen_job import ArrayFile, score_samples

    file = ArrayFile(samples)
    if actors is None:
        actors = min(cluster.usable_cpus(), block_count(file.n_samples))
    if actors == 1:
        return run_protocol(in_process(file.open()), file.n_samples, valid, test, sigma=sigma)
    settings = common.settings()
    with cluster.connected(settings), common.progress("scoring") as progress:
        return score_samples(file, valid, test, actors=actors, sigma=sigma, progress=progress)


def _new_array(path: Path, shape: tuple[int, int]) -> "np.memmap[Any, Any]":
    from numpy.lib.format import open_memmap

    _require_npy(path)
    array: np.memmap[Any, Any] = open_memmap(path, mode="w+", dtype="float32", shape=shape)
    return array


def _require_npy(path: Path) -> None:
    if path.suffix != ".npy" or not path.parent.is_dir():
        raise UsageError(f"{path}: give a .npy file in a folder that exists")
