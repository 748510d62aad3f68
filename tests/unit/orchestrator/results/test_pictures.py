import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageSequence

from aae_core.evaluation.figures import Codes
from orchestrator.results.pictures import (
    PALETTE,
    _legend,
    save_animation,
    save_grid,
    save_page,
    save_scatter,
)


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.array(image.convert("RGB"))


def _count(pixels: np.ndarray, colour: str) -> int:
    return int((pixels == ImageColor.getrgb(colour)).all(-1).sum())


@pytest.mark.parametrize("channels", [(), (3,)])
def test_save_grid_enlarges_a_small_grid_by_a_whole_factor(
    channels: tuple[int, ...], tmp_path: Path
) -> None:
    canvas = np.random.default_rng(0).integers(0, 256, (5, 70, *channels), np.uint8)
    save_grid(canvas, tmp_path / "grid.png")
    shown = _pixels(tmp_path / "grid.png")
    assert shown.shape == (35, 490, 3)
    expected = canvas if channels else np.repeat(canvas[..., None], 3, axis=2)
    np.testing.assert_array_equal(shown[3::7, 3::7], expected)


def test_save_grid_keeps_the_size_of_a_large_grid(tmp_path: Path) -> None:
    save_grid(np.zeros((10, 1000), np.uint8), tmp_path / "grid.png")
    assert _pixels(tmp_path / "grid.png").shape == (10, 1000, 3)


def test_save_scatter_draws_each_label_in_its_colour(tmp_path: Path) -> None:
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    points = np.repeat(corners, 50, axis=0)
    labels = np.repeat([3, 5, 7, 9], 50)
    save_scatter(Codes(points, labels, np.zeros((1, 2))), tmp_path / "codes.png", "Codes")
    shown = _pixels(tmp_path / "codes.png")
    middle = shown.shape[0] // 2, (56 + 560 // 2)
    quadrants = [
        shown[middle[0] :, 56 : middle[1]],
        shown[middle[0] :, middle[1] : 610],
        shown[: middle[0], 56 : middle[1]],
        shown[: middle[0], middle[1] : 610],
    ]
    for own, quadrant in enumerate(quadrants):
        seen = [_count(quadrant, PALETTE[label]) for label in (3, 5, 7, 9)]
        assert [count > 0 for count in seen] == [index == own for index in range(4)]


@pytest.mark.parametrize(
    ("points", "labels"),
    [
        (np.zeros((1, 2)), None),
        (np.zeros((5, 2)), np.zeros(5, int)),
        (np.array([[1e-9, 1e9], [0, 0]]), np.array([0, 1])),
        (np.column_stack([np.arange(30.0)] * 2), np.arange(30)),
    ],
    ids=["one point", "one place", "many magnitudes", "more classes than colours"],
)
def test_save_scatter_draws_odd_data(
    points: np.ndarray, labels: np.ndarray | None, tmp_path: Path
) -> None:
    save_scatter(Codes(points, labels, np.zeros((3, 2))), tmp_path / "codes.png", "Odd")
    assert _pixels(tmp_path / "codes.png").std() > 0


def test_legend_lists_every_label_of_a_colour() -> None:
    legend = _legend(Codes(np.zeros((12, 2)), np.arange(12), np.zeros((1, 2))))
    assert list(legend) == list(PALETTE)
    assert [legend[PALETTE[i]] for i in (0, 1, 2)] == ["0, 10", "1, 11", "2"]


def test_save_scatter_draws_heads_as_rings_over_codes(tmp_path: Path) -> None:
    corners = np.array([[-1.0, -1.0], [1.0, 1.0]])
    codes = Codes(np.repeat(corners, 50, axis=0), np.repeat([0, 1], 50), corners, heads=corners[:1])
    save_scatter(codes, tmp_path / "codes.png", "Heads")
    shown = _pixels(tmp_path / "codes.png")
    assert _count(shown[400:], PALETTE[0]) == 0
    assert _count(shown[:330, 330:610], PALETTE[1]) > 0


def test_save_scatter_draws_labelled_prior_samples_pale(tmp_path: Path) -> None:
    corners = np.array([[-1.0, -1.0], [1.0, 1.0]])
    codes = Codes(corners[:1], np.array([0]), corners.repeat(50, axis=0), np.repeat([0, 1], 50))
    save_scatter(codes, tmp_path / "codes.png", "Modes")
    shown = _pixels(tmp_path / "codes.png")[:330, 330:610]
    assert _count(shown, PALETTE[1]) == 0
    assert _count(shown, "#D5EDF9") > 0


@pytest.mark.parametrize("channels", [(), (3,)])
def test_save_animation_keeps_every_frame_and_loops(
    channels: tuple[int, ...], tmp_path: Path
) -> None:
    levels = np.array([0, 90, 200], np.uint8)
    frames = [np.full((4, 500, *channels), level) for level in levels]
    save_animation(frames, tmp_path / "walk.gif")
    with Image.open(tmp_path / "walk.gif") as film:
        assert (film.format, film.info["loop"], film.size) == ("GIF", 0, (500, 4))
        shown = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)]
    assert [int(frame[0, 0, 0]) for frame in shown] == levels.tolist()
    assert {frame.std() for frame in shown} == {0}


class _Loads(HTMLParser):
    """The addresses that a page makes a browser fetch, and the page's security policy."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.policy = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.fetched += [v or "" for k, v in attrs if k in ("src", "href", "data", "srcset")]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""


def test_save_page_fetches_nothing_and_forbids_fetching(tmp_path: Path) -> None:
    heads = np.eye(2)
    codes = Codes(
        np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 2, heads, None, heads
    )
    save_page(codes, tmp_path / "codes.html", "Codes & <heads>")
    page = (tmp_path / "codes.html").read_text("utf-8")
    loads = _Loads(page)
    assert loads.fetched == []
    assert loads.policy.startswith("default-src 'none'; ")
    assert "connect-src" not in loads.policy
    assert "<title>Codes &amp; &lt;heads&gt;</title>" in page
    assert '"showSendToCloud": false' in page
    drawn = page[page.index("Plotly.newPlot(") :]
    assert re.findall(r'"name":"(\w+)"', drawn) == ["prior", "0", "1", "heads"]


def test_save_page_same_codes_give_same_bytes(tmp_path: Path) -> None:
    codes = Codes(np.eye(2), None, np.zeros((1, 2)))
    for name in ("one", "two"):
        save_page(codes, tmp_path / name, "Codes")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_save_grid_on_error_keeps_the_old_file(tmp_path: Path) -> None:
    save_grid(np.zeros((2, 600), np.uint8), tmp_path / "grid.png")
    before = (tmp_path / "grid.png").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            save_grid(np.ones((2, 600), np.uint8), tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
