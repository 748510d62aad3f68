"""PNG pictures of samples and of codes, drawn by Pillow and written atomically."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Paul Tol's "muted" scheme, safe for colour-blind readers, and black for a tenth class
PALETTE = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933",
    "#DDCC77", "#CC6677", "#882255", "#AA4499", "#000000",
)  # fmt: skip
_PRIOR, _INK, _FAINT, _PAPER = "#C8C8C8", "#333333", "#E4E4E4", "#FFFFFF"

_OVERSAMPLING = 3  # drawn larger and scaled down: Pillow's own shapes have jagged edges
_GRID_WIDTH = 480  # pixels that a sample grid is at least wide
_SIDE, _LEFT, _TOP, _BOTTOM, _LEGEND = 560, 56, 48, 36, 96  # layout of a scatter, in pixels
_TITLE_SIZE, _TEXT_SIZE = 17, 13
_PRIOR_POINT, _LEGEND_POINT = 1.6, 4.5  # radii


def save_grid(canvas: np.ndarray, path: Path) -> None:
    """A uint8 canvas, (H, W) or (H, W, 3), enlarged by a whole factor if it is small."""
    image = Image.fromarray(canvas)
    factor = math.ceil(_GRID_WIDTH / image.width)
    _save(
        image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST), path
    )


def save_scatter(
    points: np.ndarray, labels: np.ndarray | None, reference: np.ndarray, path: Path, title: str
) -> None:
    """Codes (n, 2), coloured by their labels (n,), over prior samples (m, 2) in grey.

    Beyond ten labels colours repeat; the legend lists all labels of a colour.
    """
    names, classes = ["codes"], np.zeros(len(points), np.int64)
    if labels is not None:
        values, classes = np.unique(labels, return_inverse=True)
        names = [str(value) for value in values]
    plane = _Plane.around(np.concatenate([points, reference]))
    plane.draw_axes(title)
    plane.draw_points(reference, [_PRIOR] * len(reference), _PRIOR_POINT)
    plane.draw_points(points, [_colour(index) for index in classes.tolist()], _radius(len(points)))
    plane.draw_legend(_legend(names) | {_PRIOR: "prior"})
    _save(plane.finished(), path)


def _colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def _legend(names: list[str]) -> dict[str, str]:
    """What stands beside each colour."""
    used = PALETTE[: len(names)]
    return {colour: ", ".join(names[i :: len(PALETTE)]) for i, colour in enumerate(used)}


def _radius(n_points: int) -> float:
    """Smaller where they would hide each other."""
    return min(2.2, max(1.2, 90 / math.sqrt(n_points)))


@dataclass(frozen=True)
class _Plane:
    """A square drawing area; one unit has the same length along both axes."""

    centre: tuple[float, float]
    half: float  # of the side, in the data's unit
    image: Image.Image
    draw: ImageDraw.ImageDraw

    @classmethod
    def around(cls, points: np.ndarray) -> "_Plane":
        low, high = points.min(0), points.max(0)
        size = (_LEFT + _SIDE + _LEGEND, _TOP + _SIDE + _BOTTOM)
        image = Image.new("RGB", (_OVERSAMPLING * size[0], _OVERSAMPLING * size[1]), _PAPER)
        half = 0.53 * float((high - low).max()) or 1.0  # a margin; all points in one place
        x, y = ((low + high) / 2).tolist()
        return cls((x, y), half, image, ImageDraw.Draw(image))

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Of the finished picture."""
        scale = _SIDE / (2 * self.half)
        return (
            _LEFT + (x - self.centre[0] + self.half) * scale,
            _TOP + (self.centre[1] + self.half - y) * scale,
        )

    def draw_axes(self, title: str) -> None:
        self._text((_LEFT, _TOP / 2), title, "lm", _TITLE_SIZE)
        bottom, right = _TOP + _SIDE, _LEFT + _SIDE
        for tick in _ticks(self.centre[0], self.half):
            x, _ = self.pixel(tick, 0)
            self._line((x, _TOP), (x, bottom))
            self._text((x, bottom + 8), f"{tick:g}", "mt")
        for tick in _ticks(self.centre[1], self.half):
            _, y = self.pixel(0, tick)
            self._line((_LEFT, y), (right, y))
            self._text((_LEFT - 8, y), f"{tick:g}", "rm")

    def draw_points(self, points: np.ndarray, colours: list[str], radius: float) -> None:
        for (x, y), colour in zip(points.tolist(), colours, strict=True):
            self._dot(self.pixel(x, y), radius, colour)

    def draw_legend(self, entries: dict[str, str]) -> None:
        x = _LEFT + _SIDE + 20
        for row, (colour, name) in enumerate(entries.items()):
            y = _TOP + 10 + row * 1.6 * _TEXT_SIZE
            self._dot((x, y), _LEGEND_POINT, colour)
            self._text((x + 12, y), name, "lm")

    def finished(self) -> Image.Image:
        return self.image.reduce(_OVERSAMPLING)

    def _dot(self, at: tuple[float, float], radius: float, colour: str) -> None:
        x, y = at
        self.draw.ellipse(
            [_OVERSAMPLING * e for e in (x - radius, y - radius, x + radius, y + radius)], colour
        )

    def _line(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.draw.line([_OVERSAMPLING * e for e in (*start, *end)], _FAINT, _OVERSAMPLING)

    def _text(
        self, at: tuple[float, float], text: str, anchor: str, size: float = _TEXT_SIZE
    ) -> None:
        x, y = at
        font = ImageFont.load_default(_OVERSAMPLING * size)
        self.draw.text((_OVERSAMPLING * x, _OVERSAMPLING * y), text, _INK, font, anchor)


def _ticks(centre: float, half: float) -> list[float]:
    """Three to seven round numbers within the axis."""
    step = _round_step(half / 2)
    first, last = math.ceil((centre - half) / step), math.floor((centre + half) / step)
    return [i * step for i in range(first, last + 1)]


def _round_step(length: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is no longer."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= length)


def _save(image: Image.Image, path: Path) -> None:
    """Whole or not at all, whoever writes the same picture meanwhile."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        image.save(part, format="PNG", optimize=True)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
