"""Save pictures of images and codes atomically: PNG, GIF, WebP by Pillow, HTML by plotly."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from aae_core.evaluation.figures import Codes
from aae_core.files import replacing

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Paul Tol's "muted" scheme, safe for colour-blind readers, and black for a tenth class
PALETTE = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933",
    "#DDCC77", "#CC6677", "#882255", "#AA4499", "#000000",
)  # fmt: skip
_PRIOR, _INK, _FAINT, _PAPER = "#C8C8C8", "#333333", "#E4E4E4", "#FFFFFF"

_OVERSAMPLING = 3  # draw larger and scale down: Pillow's shapes have jagged edges
_GRID_WIDTH = 480  # minimum width of a sample grid, in pixels
_THUMBNAIL = 256  # maximum width and height of a thumbnail, in pixels
_SIDE, _LEFT, _TOP, _BOTTOM, _LEGEND = 560, 56, 48, 36, 112  # layout of a scatter, in pixels
_TITLE_SIZE, _TEXT_SIZE = 17, 13
_PRIOR_POINT, _LEGEND_POINT, _HEAD = 1.6, 4.5, 9.0  # radii
_FRAME_MS = 80
_POLICY = (  # the browser fetches nothing, whatever the page contains
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)


def save_grid(canvas: np.ndarray, path: Path) -> None:
    """Save a uint8 canvas, (H, W) or (H, W, 3); enlarge a small canvas by a whole factor."""
    _save(_enlarged(canvas), path)


def save_thumbnail(picture: Path, path: Path) -> None:
    """Save a WebP thumbnail of a picture, which MLflow's pages show first."""
    with Image.open(picture) as image:
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        with replacing(path) as part:
            image.save(part, format="WEBP")


def save_animation(canvases: Sequence[np.ndarray], path: Path) -> None:
    """Save canvases of one size as a GIF that loops."""
    first, *rest = [_enlarged(canvas) for canvas in canvases]
    with replacing(path) as part:
        first.save(
            part, format="GIF", save_all=True, append_images=rest, duration=_FRAME_MS, loop=0
        )


def save_scatter(codes: Codes, path: Path, title: str) -> None:
    """Save a plot of codes, coloured by label, over draws of the prior; heads are numbered rings.

    A draw of the prior is grey, or has its label's colour, but pale.  Colours repeat beyond ten
    labels; the legend lists all labels of a colour.
    """
    plane = _Plane.around(_everything(codes))
    plane.draw_axes(title)
    plane.draw_points(codes.reference, _reference_colours(codes), _PRIOR_POINT)
    plane.draw_points(codes.points, _point_colours(codes), _radius(len(codes.points)))
    if codes.heads is not None:
        plane.draw_heads(codes.heads)
    plane.draw_legend(_legend(codes) | {_PRIOR: "prior" if codes.modes is None else "prior, pale"})
    _save(plane.finished(), path)


def save_page(codes: Codes, path: Path, title: str) -> None:
    """Save the plot as one self-contained HTML page, to zoom, hover and hide labels."""
    plot = _figure(codes, title).to_html(
        full_html=False,
        include_plotlyjs=True,
        div_id="codes",  # plotly's default is random
        config={"displaylogo": False, "responsive": True, "showSendToCloud": False},
    )
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{html.escape(title)}</title>\n</head>\n<body>\n{plot}\n</body>\n</html>\n"
    )
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8")


def _figure(codes: Codes, title: str) -> "go.Figure":
    """Return a plot with a trace for the prior, one per label, and one for the heads."""
    import plotly.graph_objects as go  # slow to import

    def cloud(points: np.ndarray, name: str, size: float, colour: object, hover: str) -> go.Scatter:
        x, y = points.astype(np.float32).T
        marker = {"size": size, "color": colour}
        return go.Scatter(
            x=x, y=y, name=name, mode="markers", marker=marker, hovertemplate=f"{hover}<extra/>"
        )

    figure = go.Figure()
    figure.add_trace(cloud(codes.reference, "prior", 3, _reference_colours(codes), "prior"))
    for name, (label, members) in _by_label(codes).items():
        hover = "image %{customdata}" + ("" if codes.labels is None else f", label {name}")
        trace = cloud(codes.points[members], name, 5, _colour(label), hover)
        figure.add_trace(trace.update(customdata=members))
    if codes.heads is not None:
        ring = {"size": 20, "color": _PAPER, "line": {"color": _INK, "width": 1.5}}
        rings = cloud(codes.heads, "heads", 20, _PAPER, "head %{text}")
        numbers = [str(k) for k in range(len(codes.heads))]
        figure.add_trace(rings.update(mode="markers+text", text=numbers, marker=ring))
    return figure.update_layout(
        title=title,
        template="plotly_white",
        height=760,
        legend={"itemsizing": "constant"},
        yaxis={"scaleanchor": "x"},  # one unit has the same length along both axes
    )


def _by_label(codes: Codes) -> dict[str, tuple[int, np.ndarray]]:
    """Return the number of each label's colour and the indices of its points, by label name."""
    if codes.labels is None:
        return {"codes": (0, np.arange(len(codes.points)))}
    values = np.unique(codes.labels).tolist()
    return {str(k): (k, np.flatnonzero(codes.labels == k)) for k in values}


def _everything(codes: Codes) -> np.ndarray:
    parts = (codes.points, codes.reference, codes.heads)
    return np.concatenate([part for part in parts if part is not None])


def _point_colours(codes: Codes) -> list[str]:
    labels = np.zeros(len(codes.points), int) if codes.labels is None else codes.labels
    return [_colour(label) for label in labels.tolist()]


def _reference_colours(codes: Codes) -> list[str]:
    """Return the colours of the prior's draws: grey, or their labels' colours, but pale."""
    if codes.modes is None:
        return [_PRIOR] * len(codes.reference)
    return [_pale(_colour(label)) for label in codes.modes.tolist()]


def _pale(colour: str) -> str:
    red, green, blue = (round(0.35 * part + 0.65 * 255) for part in ImageColor.getrgb(colour)[:3])
    return f"#{red:02X}{green:02X}{blue:02X}"


def _colour(label: int) -> str:
    return PALETTE[label % len(PALETTE)]


def _legend(codes: Codes) -> dict[str, str]:
    """Return the legend's text for each colour."""
    entries: dict[str, str] = {}
    for name, (label, _) in _by_label(codes).items():
        colour = _colour(label)
        entries[colour] = f"{entries[colour]}, {name}" if colour in entries else name
    return entries


def _radius(n_points: int) -> float:
    """Return the radius of a point: smaller if points would hide one another."""
    return min(2.2, max(1.2, 90 / math.sqrt(n_points)))


@dataclass(frozen=True)
class _Plane:
    """A square drawing area; one unit has the same length along both axes."""

    centre: tuple[float, float]
    half: float  # half of the side, in the data's unit
    image: Image.Image
    draw: ImageDraw.ImageDraw

    @classmethod
    def around(cls, points: np.ndarray) -> "_Plane":
        low, high = points.min(0), points.max(0)
        size = (_LEFT + _SIDE + _LEGEND, _TOP + _SIDE + _BOTTOM)
        image = Image.new("RGB", (_OVERSAMPLING * size[0], _OVERSAMPLING * size[1]), _PAPER)
        half = 0.53 * float((high - low).max()) or 1.0  # with a margin; 1 if all points coincide
        x, y = ((low + high) / 2).tolist()
        return cls((x, y), half, image, ImageDraw.Draw(image))

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Return the position in the finished picture, in pixels."""
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

    def draw_heads(self, heads: np.ndarray) -> None:
        for k, (x, y) in enumerate(heads.tolist()):
            at = self.pixel(x, y)
            self._dot(at, _HEAD, _INK)
            self._dot(at, _HEAD - 1, _PAPER)
            self._text(at, str(k), "mm")

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
    """Return three to seven round numbers within the axis."""
    step = _round_step(half / 2)
    first, last = math.ceil((centre - half) / step), math.floor((centre + half) / step)
    return [i * step for i in range(first, last + 1)]


def _round_step(length: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that is at most `length`."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= length)


def _enlarged(canvas: np.ndarray) -> Image.Image:
    image = Image.fromarray(canvas)
    factor = math.ceil(_GRID_WIDTH / image.width)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _save(image: Image.Image, path: Path) -> None:
    with replacing(path) as part:
        image.save(part, format="PNG", optimize=True)
