"""Commands for trained models, or any samples: evaluate, parzen, sample and encode."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import common
from orchestrator.cli.common import AsJson, SweepName, say
from orchestrator.errors import UsageError
from orchestrator.text import duration, number

if TYPE_CHECKING:
    import numpy as np

    from aae_core.evaluation.parzen import ParzenResult
    from aae_core.models import Samples
    from orchestrator.documents import Control, ScoredModel
    from orchestrator.execution.parzen_pool import ArrayFile, CheckpointSamples

ModelName = Annotated[str, typer.Argument(help="A sweep (its winner) or a checkpoint folder.")]
_CHUNK = 10_000  # images at a time
_DIM_BYTE = 128  # brightest pixel below which bytes look as if another value were white


def evaluate(
    sweep: SweepName = "latest",
    parzen_samples: Annotated[
        int | None,
        typer.Option(
            "--parzen-samples", min=1, help="Number of samples for every confirmed model."
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Score a sweep's confirmed models on the test split. Known scores are not computed again."""
    from orchestrator.execution import cluster

    cluster.prepare(common.settings())  # before anything imports Ray
    from orchestrator.cli.panel import watching
    from orchestrator.pipeline import stages
    from orchestrator.sweepfile.spec import SweepSpec

    reader = common.reader()
    name = reader.resolve(sweep)
    spec = SweepSpec.model_validate_json(dumps(reader.spec(name)))
    parzen, resume = spec.evaluate.parzen, f"aae-sweep evaluate {name}"
    if parzen_samples is not None:
        resume += f" --parzen-samples {parzen_samples}"
        parzen = parzen.model_copy(
            update={"samples": parzen_samples, "screen_samples": parzen_samples}
        )
    with watching(spec) as observer:
        document = stages.evaluate_again(common.writable(), name, parzen, resume, observer)
    if json:
        common.emit(document)
        return
    _print_scores(document["models"])


def parzen(
    samples: Annotated[
        str,
        typer.Argument(help="The samples, .npy, (N, D); or a sweep or checkpoint that draws them."),
    ],
    test: Annotated[Path, typer.Option("--test", help="The images to score, .npy, (n, D).")],
    valid: Annotated[
        Path | None, typer.Option("--valid", help="Validation images that choose sigma, .npy.")
    ] = None,
    sigma: Annotated[
        float | None, typer.Option("--sigma", help="The kernel's width, instead of --valid.")
    ] = None,
    n: Annotated[
        int | None,
        typer.Option("-n", min=1, help="Number of samples that a model draws; 10,000 by default."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of a model's samples.")] = 0,
    actors: Annotated[
        int | None, typer.Option("--actors", min=1, help="Processes; one per CPU by default.")
    ] = None,
    per_point: Annotated[
        Path | None,
        typer.Option("--per-point", help="Write each image's log-likelihood to this .npy."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Score images by the Parzen log-likelihood of any samples (Goodfellow et al. 2014).

    Float arrays are scored unchanged, uint8 is divided by 255. The figures are the same, bit for
    bit, for any number of actors. The same command resumes an interrupted job, and reads the result
    of a finished one.
    """
    import numpy as np

    from aae_core.files import replacing
    from orchestrator.execution import cluster

    cluster.prepare(common.settings())  # before anything imports Ray
    from aae_core.data import open_array

    if (valid is None) == (sigma is None):
        raise UsageError("give either --valid, to choose sigma, or --sigma")
    if sigma is not None and not 0 < sigma < math.inf:
        raise UsageError(f"--sigma {sigma:g}: give a positive, finite number")
    points = None
    if per_point is not None:
        points = _npy(per_point, Path(samples), test, valid)
    x_test, x_valid = open_array(test), None if valid is None else open_array(valid)
    for name, images in (("test", x_test), ("validation", x_valid)):
        _note_range(f"{name} images", images)
    drawn = _samples(samples, n, seed)
    result, known = _score(drawn, x_valid, x_test, sigma, actors)
    if known:
        say("these samples were scored before: stored figures")
    if points is not None:
        with replacing(points) as part, part.open("wb") as file:
            np.save(file, result.per_point.numpy())
    if result.sigma_at_edge:
        say(
            f"note: the best sigma, {result.sigma_grid:.3g}, is at the edge of the grid; "
            "a better one may lie outside"
        )
    if json:
        bound = result.max_abs_error_bound
        known_bound = bound if math.isfinite(bound) else None
        common.emit(result.to_dict() | {"max_abs_error_bound": known_bound})
        return
    print(
        f"log-likelihood {number(result.log_likelihood, result.standard_error)} nats, "
        f"sigma {result.sigma:.4g}\n"
        f"on the grid    {number(result.log_likelihood_grid, result.standard_error_grid)} nats, "
        f"sigma {result.sigma_grid:.4g}\n"
        f"{result.n_samples:,} samples, {result.n_test:,} images of {result.dim} pixels, "
        f"{duration(result.seconds)}, error below {result.max_abs_error_bound:.1e} nats"
    )


def sample(
    model: ModelName,
    out: Annotated[Path, typer.Option("--out", help="The .npy to write, (n, D) float32.")],
    n: Annotated[int, typer.Option("-n", min=1, help="Number of samples.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw images from a model, pixels in [0, 1].

    The first images do not depend on how many are drawn.
    """
    import torch

    from aae_core.streams import generator

    checkpoint = common.checkpoint_of(model)
    path = _npy(out, checkpoint)
    net = _sampler(checkpoint, model)
    stream = generator(seed, "sample")
    with torch.no_grad(), _new_array(path, (n, net.dim)) as images:
        for start in range(0, n, _CHUNK):
            chunk = images[start : start + _CHUNK]
            chunk[:] = net.sample(_CHUNK, generator=stream)[: len(chunk)].numpy()
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
    import numpy as np
    import torch

    import aae_core
    from aae_core.data import open_array, unit_interval
    from aae_core.data.sets import range_problem
    from aae_core.errors import DataError
    from aae_core.models import Autoencoder
    from aae_core.streams import generator

    checkpoint = common.checkpoint_of(model)
    path = _npy(out, checkpoint, data)
    net = aae_core.load(checkpoint)
    if not isinstance(net, Autoencoder):
        raise UsageError(f"{model}: a {net.kind} has no encoder")
    images = open_array(data)
    if images.shape[1] != net.dim:
        raise UsageError(f"{data}: {images.shape[1]} pixels per image, the model has {net.dim}")
    if images.dtype != np.uint8 and (problem := range_problem(images)):
        raise DataError(f"{data}: {problem}; scale them, or give uint8")
    _note_range(str(data), images)
    stream = None if seed is None else generator(seed, "encode")
    with torch.no_grad(), _new_array(path, (len(images), net.code_dim)) as codes:
        for start in range(0, len(images), _CHUNK):
            pixels = torch.from_numpy(unit_interval(np.array(images[start : start + _CHUNK])))
            codes[start : start + _CHUNK] = net.encode(pixels, generator=stream).numpy()
    print(out)


COMMANDS = (evaluate, parzen, sample, encode)


def _controls(models: "list[ScoredModel]") -> "list[Control]":
    """Return each control row once. Models scored in the same way share the rows."""
    rows = (row for model in models for row in model.get("controls", []))
    return list({(row["kind"], row["n_samples"]): row for row in rows}.values())


def _print_scores(models: "list[ScoredModel]") -> None:
    """Print a table of Parzen scores, and one of test metrics for models without these scores."""
    scored = [model for model in models if "log_likelihood" in model]
    others = [model for model in models if "log_likelihood" not in model]
    rows: list[tuple[str, Any, ScoredModel | Control]] = [
        *((f"confirm-{model['trial']}", model["group"], model) for model in scored),
        *((f"control {control['kind']}", None, control) for control in _controls(scored)),
    ]
    if rows:
        common.table(
            ("model", "group", "samples", "Parzen, nats", "on the grid", "sigma"),
            (
                (
                    name,
                    group,
                    f"{row['n_samples']:,}",
                    number(row["log_likelihood"], row["standard_error"]),
                    number(row["log_likelihood_grid"], row["standard_error_grid"]),
                    row["sigma"],
                )
                for name, group, row in rows
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


def _samples(name: str, n: int | None, seed: int) -> "ArrayFile | CheckpointSamples":
    from aae_core.data import open_array
    from orchestrator.execution.parzen_pool import ArrayFile, CheckpointSamples

    path = Path(name).resolve()
    if path.suffix == ".npy" or path.is_file():
        if n is not None:
            raise UsageError(f"-n {n}: {path.name} has its own number of samples")
        _note_range("samples", open_array(path)[:_CHUNK])
        return ArrayFile(path)
    checkpoint = common.checkpoint_of(name)
    _sampler(checkpoint, name)
    return CheckpointSamples(checkpoint, seed, n or 10_000)


def _sampler(checkpoint: Path, name: str) -> "Samples":
    import aae_core
    from aae_core.models import Samples

    net = aae_core.load(checkpoint)
    if not isinstance(net, Samples):
        raise UsageError(f"{name}: a {net.kind} draws no images")
    return net


def _note_range(what: str, images: "np.ndarray | None") -> None:
    """Print a note if pixels are outside [0, 1], or bytes far from white."""
    if images is None:
        return
    least, most = float(images.min()), float(images.max())
    if images.dtype == "uint8":
        if most < _DIM_BYTE:
            say(f"note: {what}: uint8 from {least:g} to {most:g}; assumed that 255 is white")
    elif least < 0 or most > 1:
        say(f"note: {what}: from {least:.4g} to {most:.4g}, not in [0, 1]; scored as they are")


def _score(
    samples: "ArrayFile | CheckpointSamples",
    valid: "np.ndarray | None",
    test: "np.ndarray",
    sigma: float | None,
    actors: int | None,
) -> "tuple[ParzenResult, bool]":
    """Score with Ray actors, or in this process if one actor suffices.

    Also return whether the scores were known before.
    """
    from aae_core.data.sets import fingerprint
    from aae_core.evaluation.parzen import CURVE, block_count
    from orchestrator.cli.panel import scoring
    from orchestrator.execution import cluster
    from orchestrator.execution.parzen_pool import score_once, score_samples

    settings, size = common.writable(), samples.n_samples
    images = [fingerprint(x) for x in (test, valid) if x is not None]
    content = {**samples.content, "images": images, "sigma": sigma}
    if actors is not None:
        content["actors"] = actors  # a new number of actors computes the scores again
        most = actors
    elif settings.ray_address is None:
        most = min(cluster.usable_cpus(), block_count(size))
    else:
        most = block_count(size)  # limited below by the cluster's CPUs

    def score(folder: Path) -> "ParzenResult":
        ray = cluster.connected(settings) if most > 1 else nullcontext()
        with ray, scoring("parzen", f"{size:,} samples") as progress:
            return score_samples(
                samples,
                valid,
                test,
                actors=min(most, cluster.cpus()) if most > 1 else 1,
                sigma=sigma,
                curve=[k for k in CURVE if k < size] + [size],
                progress=progress,
                folder=folder,
            )

    return score_once(settings.parzen_folder, content, score)


@contextmanager
def _new_array(path: Path, shape: tuple[int, int]) -> "Iterator[np.memmap[Any, Any]]":
    """Yield an array on disk, which replaces the file `path` when it is complete."""
    from numpy.lib.format import open_memmap

    from aae_core.files import replacing

    with replacing(path) as part:
        array: np.memmap[Any, Any] = open_memmap(part, mode="w+", dtype="float32", shape=shape)
        yield array
        array.flush()


def _npy(path: Path, *inputs: Path | None) -> Path:
    """Return the absolute path of a .npy to write. Raises UsageError, also if it is an input."""
    if path.suffix != ".npy" or path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{path}: give a .npy file in a folder that exists")
    return common.output(path, *inputs)
