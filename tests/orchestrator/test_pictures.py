from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from orchestrator.pictures import PALETTE, _legend, save_grid, save_scatter


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.array(image.convert("RGB"))


def _count(pixels: np.ndarray, colour: str) -> int:
    return int((pixels == ImageColor.getrgb(colour)).all(-1).sum())


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_small_grid_is_enlarged_by_a_whole_factor(
    channels: tuple[int, ...], tmp_path: Path
) -> None:
    canvas = np.random.default_rng(0).integers(0, 256, (5, 70, *channels), np.uint8)
    save_grid(canvas, tmp_path / "grid.png")
    shown = _pixels(tmp_path / "grid.png")
    assert shown.shape == (35, 490, 3)
    expected = canvas if channels else np.repeat(canvas[..., None], 3, axis=2)
    np.testing.assert_array_equal(shown[3::7, 3::7], expected)


def test_a_large_grid_is_left_as_it_is(tmp_path: Path) -> None:
    save_grid(np.zeros((10, 1000), np.uint8), tmp_path / "grid.png")
    assert _pixels(tmp_path / "grid.png").shape == (10, 1000, 3)


def test_a_label_keeps_its_colour_wherever_it_lies(tmp_path: Path) -> None:
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    points = np.repeat(corners, 50, axis=0)
    labels = np.repeat([3, 5, 7, 9], 50)
    save_scatter(points, labels, np.zeros((1, 2)), tmp_path / "codes.png", "Codes")
    shown = _pixels(tmp_path / "codes.png")
    middle = shown.shape[0] // 2, (56 + 560 // 2)
    quadrants = [
        shown[middle[0] :, 56 : middle[1]],
        shown[middle[0] :, middle[1] : 610],
        shown[: middle[0], 56 : middle[1]],
        shown[: middle[0], middle[1] : 610],
    ]
    for own, quadrant in enumerate(quadrants):
        seen = [_count(quadrant, colour) for colour in PALETTE[:4]]
        assert [count > 0 for count in seen] == [index == own for index in range(4)]


@pytest.mark.parametrize(
    ("points", "labels"),
    [
        (np.zeros((1, 2)), None),
        (np.zeros((5, 2)), np.zeros(5, int)),
        (np.array([[1e-9, 1e9], [0, 0]]), np.array(["a", "b"])),
        (np.column_stack([np.arange(30.0)] * 2), np.arange(30)),
    ],
    ids=["one point", "one place", "many magnitudes", "more classes than colours"],
)
def test_odd_data_are_drawn(points: np.ndarray, labels: np.ndarray | None, tmp_path: Path) -> None:
    save_scatter(points, labels, np.zeros((3, 2)), tmp_path / "codes.png", "Odd")
    assert _pixels(tmp_path / "codes.png").std() > 0


def test_the_legend_lists_every_label_of_a_colour() -> None:
    legend = _legend([str(i) for i in range(12)])
    assert list(legend) == list(PALETTE)
    assert [legend[PALETTE[i]] for i in (0, 1, 2)] == ["0, 10", "1, 11", "2"]


def test_a_picture_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    save_grid(np.zeros((2, 600), np.uint8), tmp_path / "grid.png")
    before = (tmp_path / "grid.png").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            save_grid(np.ones((2, 600), np.uint8), tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
