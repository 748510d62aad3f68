"""The command `train`, and the commands on its checkpoint: sample, encode, parzen."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sweep_command import aae

import aae_core
from aae_core.config import DataConfig
from aae_core.data import load_test_data, load_training_data, unit_interval
from aae_core.evaluation.parzen import ModelSource
from aae_core.models import Samples

pytestmark = pytest.mark.usefixtures("threads")


@pytest.fixture
def arrays(tmp_path: Path) -> Callable[..., Path]:
    def save(name: str, array: Any) -> Path:
        np.save(tmp_path / f"{name}.npy", array)
        return tmp_path / f"{name}.npy"

    return save


def brute_force(samples: np.ndarray, x: np.ndarray, sigma: float) -> np.ndarray:
    """Return log p(x) under an isotropic Gaussian on every sample, by the textbook formula."""
    squares = ((x[:, None].astype(float) - samples[None].astype(float)) ** 2).sum(-1)
    n, dim = samples.shape
    norm = math.log(n) + dim * math.log(sigma * math.sqrt(2 * math.pi))
    return logsumexp(-squares / (2 * sigma**2), axis=1) - norm


def metrics(ended: Any) -> list[dict[str, float]]:
    return [event["metrics"] for event in ended.lines if "metrics" in event]


# -- train -----------------------------------------------------------------------------------


def test_train_json_reports_start_epochs_and_end(sweep_file: Path, home: Path) -> None:
    ended = aae("train", sweep_file, "--seed", 5, "--threads", 1, "--json")
    assert (ended.code, ended.err) == (0, "")
    start, *epochs, end = ended.lines
    assert [event["event"] for event in ended.lines] == ["start", "epoch", "epoch", "end"]
    assert (start["seed"], start["threads"], start["labelled_indices"]) == (5, 1, None)
    assert [event["epoch"] for event in epochs] == [1, 2]
    for event in epochs:
        assert {"train/recon", "val/recon", "val/parzen_ll"} <= event["metrics"].keys()
        assert event["lr"] == {"reconstruction": 5e-3, "adversarial": 1e-3}
        assert event["seconds"] > 0
        assert event["samples_per_second"] > 0
    assert end["state"] == "complete"
    assert end["metrics"] == epochs[-1]["metrics"]
    assert Path(end["checkpoint"]).is_relative_to(home)
    assert not any(name.startswith("test/") for found in metrics(ended) for name in found)


def test_train_metrics_depend_only_on_the_seed(sweep_file: Path) -> None:
    first, again, other = (
        metrics(aae("train", sweep_file, "--json", "--threads", 1, "--seed", seed))
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_train_reports_test_metrics_only_with_evaluate(sweep_file: Path) -> None:
    plain = metrics(aae("train", sweep_file, "--json"))
    *epochs, end = metrics(aae("train", sweep_file, "--json", "--evaluate"))
    assert epochs == plain[:-1]
    tested = {name for name in end if name.startswith("test/")}
    assert {"test/recon", "test/parzen_ll"} <= tested
    assert {k: v for k, v in end.items() if k not in tested} == plain[-1]


def test_train_of_a_diverged_model_exits_with_0(sweep_file: Path) -> None:
    ended = aae(
        "train", sweep_file, "--json", "--set", "training.reconstruction={optimizer: sgd, lr: 1e38}"
    )
    assert ended.code == 0
    assert "NaN" not in ended.out
    assert "Infinity" not in ended.out
    end = ended.lines[-1]
    assert (end["state"], end["checkpoint"]) == ("diverged", None)
    assert "not finite" in end["reason"]


def test_train_text_shows_epochs_metrics_and_checkpoint(sweep_file: Path) -> None:
    shown = aae("train", sweep_file, "--evaluate", "--seed", 3).out.splitlines()
    assert shown[0].startswith("seed 3 on ")
    assert [line.split()[:2] for line in shown[1:3]] == [["epoch", "1"], ["epoch", "2"]]
    assert shown[3] == "complete"
    assert any(line.startswith("test/parzen_ll ") for line in shown[4:])
    assert (Path(shown[-1]) / "manifest.json").exists()


# -- sample and encode -----------------------------------------------------------------------


def test_sample_writes_pixels_that_the_seed_reproduces(checkpoint: Path, tmp_path: Path) -> None:
    def draw(name: str, seed: int, n: int = 10_007) -> np.ndarray:
        out = tmp_path / f"{name}.npy"
        ended = aae("sample", checkpoint, "-n", n, "--seed", seed, "--out", out)
        assert (ended.code, ended.out) == (0, f"{out}\n")
        drawn: np.ndarray = np.load(out)
        return drawn

    first = draw("first", 1)
    assert first.shape == (10_007, 64)
    assert first.dtype == np.float32
    assert 0 <= first.min() < first.max() <= 1
    np.testing.assert_array_equal(first, draw("again", 1))
    np.testing.assert_array_equal(first[:3], draw("few", 1, n=3))
    assert not np.array_equal(first, draw("other", 2))


def test_encode_writes_one_code_per_image(
    checkpoint: Path, tmp_path: Path, arrays: Callable[..., Path]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 64), dtype=np.uint8)
    scaled = (pixels / 255).astype(np.float32)
    codes = []
    for name, images in (("bytes", pixels), ("floats", scaled)):
        out = tmp_path / f"codes-{name}.npy"
        ended = aae("encode", checkpoint, "--data", arrays(name, images), "--out", out)
        assert ended.code == 0
        codes.append(np.load(out))
    assert codes[0].shape == (20, 4)
    assert codes[0].dtype == np.float32
    np.testing.assert_allclose(codes[0], codes[1], rtol=1e-5)
    wrong = arrays("wrong", pixels[:, :7])
    ended = aae("encode", checkpoint, "--data", wrong, "--out", tmp_path / "z.npy")
    assert ended.code == 2
    assert "7 pixels per image, the model has 64" in ended.err


@pytest.mark.parametrize("name", ["nothing/here", "nothing"])
def test_sample_and_encode_refuse_a_missing_model(
    tmp_path: Path, arrays: Callable[..., Path], name: str
) -> None:
    out = ("--out", tmp_path / "out.npy")
    for arguments in (
        ("sample", name, *out),
        ("encode", name, "--data", arrays("x", [[0.0]]), *out),
    ):
        ended = aae(*arguments)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.count("\n") == 1
    assert not (tmp_path / "out.npy").exists()


def test_sample_names_a_damaged_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "tensors.safetensors").write_bytes(b"torn")
    ended = aae("sample", checkpoint, "--out", tmp_path / "x.npy")
    assert ended.code == 4
    assert str(checkpoint) in ended.err


def test_sample_writes_only_npy_files_in_existing_folders(checkpoint: Path, tmp_path: Path) -> None:
    for out in (tmp_path / "x.png", tmp_path / "missing" / "x.npy"):
        ended = aae("sample", checkpoint, "--out", out)
        assert (ended.code, ended.err) == (2, f"{out}: give a .npy file in a folder that exists\n")


# -- parzen ----------------------------------------------------------------------------------


def test_parzen_equals_the_brute_force_formula(arrays: Callable[..., Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples, valid, test = (rng.random((n, 6)).astype(np.float32) for n in (300, 25, 40))
    common = ("parzen", arrays("s", samples), "--test", arrays("t", test), "--actors", 1, "--json")
    points = tmp_path / "points.npy"
    fixed = aae(*common, "--sigma", 0.3, "--per-point", points).document
    want = brute_force(samples, test, 0.3)
    np.testing.assert_allclose(np.load(points), want, atol=1e-6)
    assert np.load(points).dtype == np.float64
    assert fixed["log_likelihood"] == pytest.approx(want.mean(), abs=1e-6)
    assert fixed["standard_error"] == pytest.approx(want.std(ddof=1) / math.sqrt(40), abs=1e-6)
    assert fixed["max_abs_error_bound"] < 1e-6

    chosen = aae(*common, "--valid", arrays("v", valid)).document
    grid = [brute_force(samples, valid, sigma).mean() for sigma in chosen["sigmas"]]
    np.testing.assert_allclose(chosen["valid_ll"], grid, atol=1e-6)
    at_grid = brute_force(samples, test, chosen["sigmas"][int(np.argmax(grid))]).mean()
    assert chosen["log_likelihood_grid"] == pytest.approx(at_grid, abs=1e-6)
    refined = brute_force(samples, test, chosen["sigma"]).mean()
    assert chosen["log_likelihood"] == pytest.approx(refined, abs=1e-6)
    sizes = {"n_samples": 300, "n_valid": 25, "n_test": 40, "dim": 6, "blocks": 1}
    assert sizes.items() <= chosen.items()
    assert {"sigma_at_edge", "blocks_repeated", "pairs_scored", "seconds"} <= chosen.keys()


def test_parzen_reuses_the_score_of_known_samples(
    arrays: Callable[..., Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    files = (arrays("s", rng.random((90, 6))), "--test", arrays("t", rng.random((40, 6))))
    first = aae("parzen", *files, "--sigma", 0.3, "--json")
    points = tmp_path / "points.npy"
    again = aae("parzen", *files, "--sigma", 0.3, "--json", "--per-point", points)
    assert again.document == first.document
    assert "scored before" not in first.err
    assert "scored before" in again.err
    assert np.load(points).mean() == pytest.approx(first.document["log_likelihood"])
    other = aae("parzen", *files, "--sigma", 0.2, "--actors", 1, "--json")
    assert other.document["log_likelihood"] != first.document["log_likelihood"]
    assert "scored before" not in other.err


def test_parzen_notes_pixels_outside_0_to_1(arrays: Callable[..., Path]) -> None:
    inside, outside = np.full((9, 6), 0.5), np.linspace(-0.25, 1.5, 54).reshape(9, 6)
    for samples, test, what in ((inside, outside, "test images"), (outside, inside, "samples")):
        files = (arrays("s", samples), "--test", arrays("t", test))
        ended = aae("parzen", *files, "--sigma", 0.3, "--actors", 1)
        assert ended.err == f"note: {what}: from -0.25 to 1.5, not in [0, 1]; scored as they are\n"


def test_parzen_scores_a_checkpoint_by_its_samples(
    checkpoint: Path, arrays: Callable[..., Path]
) -> None:
    test = np.random.default_rng(0).random((20, 64))
    options = ("--test", arrays("t", test), "--sigma", 0.3, "--actors", 1, "--json")
    found = aae("parzen", checkpoint, *options, "-n", 12_000, "--seed", 5).document
    model = aae_core.load(checkpoint)
    assert isinstance(model, Samples)
    drawn = torch.cat([ModelSource(model, 5, 12_000).block(i) for i in range(2)]).detach()
    assert found["n_samples"] == 12_000
    want = brute_force(drawn.double().numpy(), test, 0.3).mean()
    assert found["log_likelihood"] == pytest.approx(want, abs=1e-3)
    assert [score["n_samples"] for score in found["curve"]] == [10_000, 12_000]
    refused = aae("parzen", arrays("s", test), *options, "-n", 5)
    assert (refused.code, refused.err) == (2, "-n 5: s.npy has its own number of samples\n")


def test_parzen_scales_bytes_to_unit_interval(arrays: Callable[..., Path]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 6), dtype=np.uint8)
    found = [
        aae(
            "parzen",
            arrays(f"s{i}", x[:30]),
            "--test",
            arrays(f"t{i}", x[30:]),
            "--sigma",
            0.2,
            "--actors",
            1,
            "--json",
        ).document["log_likelihood"]
        for i, x in enumerate((pixels, pixels / 255))
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-5)


@pytest.mark.parametrize(
    ("samples", "test", "sigma", "code", "words"),
    [
        ("good", "good", None, 2, "give either --valid"),
        ("good", "good", 0, 2, "give a positive, finite number"),
        ("good", "good", "nan", 2, "give a positive, finite number"),
        ("good", "narrow", 1, 4, "6 pixels per image where others have 5"),
        ("good", "nan", 1, 4, "test images: some pixels are not finite"),
        ("nan", "good", 1, 4, "samples: some pixels are not finite"),
        ("good", "empty", 1, 4, "empty.npy: shape (0, 6)"),
        ("good", "flat", 1, 4, "with one array (n, D)"),
        ("good", "integers", 1, 4, "give uint8, or floats"),
        ("good", "pickled", 1, 4, "no .npy of numbers"),
        ("pickled", "good", 1, 4, "no .npy of numbers"),
        ("good", "missing", 1, 4, "missing.npy: cannot be read: No such file"),
    ],
)
def test_parzen_refuses_input_that_cannot_be_scored(
    arrays: Callable[..., Path],
    tmp_path: Path,
    samples: str,
    test: str,
    sigma: object,
    code: int,
    words: str,
) -> None:
    good = np.zeros((9, 6))
    arrays("good", good)
    arrays("narrow", good[:, :5])
    arrays("nan", np.where(good == 0, np.nan, 0))
    arrays("empty", good[:0])
    arrays("flat", good[0])
    arrays("integers", good.astype(np.int64))
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    files = (tmp_path / f"{samples}.npy", "--test", tmp_path / f"{test}.npy")
    width = () if sigma is None else ("--sigma", sigma)
    ended = aae("parzen", *files, *width, "--actors", 1)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err


def test_parzen_per_point_needs_an_existing_folder(
    arrays: Callable[..., Path], tmp_path: Path
) -> None:
    x = arrays("x", np.zeros((3, 2)))
    out = tmp_path / "missing" / "x.npy"
    ended = aae("parzen", x, "--test", x, "--sigma", 1, "--actors", 1, "--per-point", out)
    assert ended.code == 2
    assert str(out) in ended.err


def test_parzen_of_drawn_samples_agrees_with_training(
    sweep_file: Path, arrays: Callable[..., Path], tmp_path: Path
) -> None:
    end = aae("train", sweep_file, "--json", "--evaluate").lines[-1]
    aae("sample", end["checkpoint"], "-n", 10_000, "--seed", 9, "--out", tmp_path / "s.npy")
    digits = DataConfig("digits")
    valid = unit_interval(load_training_data(digits, tmp_path).x_valid)
    test = unit_interval(load_test_data(digits, tmp_path).x)
    scored = aae(
        "parzen",
        tmp_path / "s.npy",
        "--test",
        arrays("t", test),
        "--valid",
        arrays("v", valid),
        "--actors",
        1,
        "--json",
    ).document
    output = end["metrics"]
    assert scored["sigmas"].count(output["test/parzen_sigma"]) == 1
    error = math.hypot(scored["standard_error"], output["test/parzen_se"])
    assert abs(scored["log_likelihood_grid"] - output["test/parzen_ll"]) < 3 * error


# -- outputs that are inputs -------------------------------------------------------------------

NAMES: dict[str, Callable[[Path], Path]] = {  # names of one file
    "itself": lambda path: path,
    "relative": lambda path: Path(path.name),
    "dotted": lambda path: path.parent / "." / ".." / path.parent.name / path.name,
    "link": lambda path: _named(path, Path.symlink_to),
    "hard link": lambda path: _named(path, Path.hardlink_to),
}


def _named(path: Path, link: Callable[[Path, Path], None]) -> Path:
    other = path.with_name("other.npy")
    link(other, path)
    return other


@pytest.mark.parametrize("name", NAMES)
def test_output_path_that_names_an_input_is_refused_and_leaves_it_intact(
    arrays: Callable[..., Path],
    trained: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = arrays("f", np.full((3, 64), 0.5))
    good = arrays("g", np.full((3, 64), 0.5))
    monkeypatch.chdir(data.parent)
    out, before = NAMES[name](data), data.read_bytes()
    scored = ("--sigma", 1, "--actors", 1, "--per-point", out)
    for arguments in (
        ("encode", trained, "--data", data, "--out", out),
        ("parzen", data, "--test", good, *scored),
        ("parzen", good, "--test", data, *scored),
        ("parzen", good, "--test", good, "--valid", data, *scored[2:]),
    ):
        ended = aae(*arguments)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err == f"{out} would overwrite the input {data}; name another output\n"
        assert data.read_bytes() == before


def test_outputs_in_a_checkpoint_that_is_read_are_refused(
    arrays: Callable[..., Path], trained: Path
) -> None:
    data, before = arrays("f", np.full((3, 64), 0.5)), sorted(trained.iterdir())
    for arguments in (
        ("sample", trained, "--out", trained / "x.npy"),
        ("encode", trained, "--data", data, "--out", trained / "x.npy"),
        ("figures", trained, "--out", trained / "pictures"),
    ):
        ended = aae(*arguments)
        assert (ended.code, ended.out) == (2, "")
        assert f"would overwrite the input {trained}" in ended.err
        assert sorted(trained.iterdir()) == before


def test_output_that_is_not_an_input_replaces_the_target_of_its_link(
    trained: Path, tmp_path: Path
) -> None:
    real, link = tmp_path / "real.npy", tmp_path / "link.npy"
    real.write_bytes(b"old")
    link.symlink_to(real)
    assert aae("sample", trained, "-n", 3, "--out", link).code == 0
    assert link.is_symlink()
    assert np.load(real).shape == (3, 64)
    assert sorted(path.name for path in tmp_path.glob("*.npy")) == ["link.npy", "real.npy"]


def test_sample_interrupted_halfway_leaves_the_old_output_intact(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.npy"
    out.write_bytes(b"old")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("aae_core.models.AAE.sample", interrupted)
    assert aae("sample", trained, "-n", 3, "--out", out).code == 130
    assert out.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


# -- arrays of any form ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", ">f4", "float64", "longdouble"])
def test_encode_gives_the_same_codes_for_any_float_type(
    arrays: Callable[..., Path], trained: Path, tmp_path: Path, dtype: str
) -> None:
    values = np.arange(3 * 64).reshape(3, 64) / 256
    for name, images in (("plain", values.astype(np.float32)), ("other", values.astype(dtype))):
        data = arrays(name, np.asfortranarray(images))
        assert aae("encode", trained, "--data", data, "--out", tmp_path / f"z-{name}.npy").code == 0
    assert (np.load(tmp_path / "z-plain.npy") == np.load(tmp_path / "z-other.npy")).all()


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.full((3, 64), np.nan), "not numbers in [0, 1]: 192 are not finite; scale them"),
        (np.full((3, 64), np.inf), "192 are not finite"),
        (np.linspace(0, 255, 192).reshape(3, 64), "they are 0 to 255; scale them, or give uint8"),
        (np.linspace(-1, 1, 192).reshape(3, 64), "they are -1 to 1; scale them"),
        (np.zeros((3, 64), np.int64), "type int64; give uint8, or floats"),
        (np.zeros((3, 64), bool), "type bool; give uint8, or floats"),
        (np.zeros((3, 8, 8)), "shape (3, 8, 8); give a .npy"),
    ],
)
def test_encode_refuses_invalid_pixels_and_writes_nothing(
    arrays: Callable[..., Path],
    trained: Path,
    tmp_path: Path,
    images: np.ndarray,
    words: str,
) -> None:
    ended = aae("encode", trained, "--data", arrays("x", images), "--out", tmp_path / "z.npy")
    assert (ended.code, ended.out) == (4, "")
    assert f"{tmp_path / 'x.npy'}: " in ended.err
    assert words in ended.err
    assert [path.name for path in tmp_path.glob("*")] == ["x.npy"]


def test_bytes_far_from_white_are_noted(
    arrays: Callable[..., Path], trained: Path, tmp_path: Path
) -> None:
    data = arrays("x", np.eye(3, 64, dtype=np.uint8))
    ended = aae("encode", trained, "--data", data, "--out", tmp_path / "z.npy")
    assert ended.err == f"note: {data}: uint8 from 0 to 1; assumed that 255 is white\n"
