"""Save pictures of images and codes atomically: PNG, GIF, WebP, HTML."""

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageColor

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

_DPI = 100
_GRID_WIDTH = 480  # minimum width of a sample grid, in pixels
_THUMBNAIL = 256  # maximum width and height of a thumbnail, in pixels
_SIDE, _LEFT, _TOP, _BOTTOM, _LEGEND = 560, 56, 48, 36, 112  # layout of a scatter, in pixels
_TITLE_SIZE, _TEXT_SIZE = 12, 9  # in points
_PRIOR_POINT, _HEAD = 1.6, 9.0  # radii, in pixels
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
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.lines import Line2D

    width, height = _LEFT + _SIDE + _LEGEND, _TOP + _SIDE + _BOTTOM
    figure = Figure((width / _DPI, height / _DPI), dpi=_DPI)
    axes = figure.add_axes((_LEFT / width, _BOTTOM / height, _SIDE / width, _SIDE / height))
    axes.set_title(title, loc="left", size=_TITLE_SIZE, color=_INK)
    axes.grid(color=_FAINT)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=_INK)
    axes.spines[:].set_visible(False)
    middle, half = _square(codes)
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)
    for points, radius, colours in (
        (codes.reference, _PRIOR_POINT, _reference_colours(codes)),
        (codes.points, _radius(len(codes.points)), _point_colours(codes)),
    ):
        x, y = points.T
        axes.scatter(x, y, s=_area(radius), c=colours, linewidths=0)
    for k, (x, y) in enumerate([] if codes.heads is None else codes.heads.tolist()):
        axes.scatter(x, y, s=_area(_HEAD), c=_PAPER, edgecolors=_INK, zorder=3)
        axes.annotate(str(k), (x, y), ha="center", va="center", size=_TEXT_SIZE, zorder=4)
    entries = _legend(codes) | {_PRIOR: "prior" if codes.modes is None else "prior, pale"}
    dots = [Line2D([], [], ls="", marker="o", c=c, label=name) for c, name in entries.items()]
    figure.legend(
        handles=dots,
        loc="upper left",
        bbox_to_anchor=((_LEFT + _SIDE) / width, 1 - _TOP / height),
        frameon=False,
        fontsize=_TEXT_SIZE,
        handletextpad=0,
        borderaxespad=0.5,
        labelcolor=_INK,
    )
    with replacing(path) as part:
        figure.savefig(part, format="png")


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


def _square(codes: Codes) -> tuple[np.ndarray, float]:
    """Return the middle of all points and half the side of a square around them."""
    parts = (codes.points, codes.reference, codes.heads)
    every = np.concatenate([part for part in parts if part is not None])
    low, high = every.min(0), every.max(0)
    half = 0.53 * float((high - low).max()) or 1.0  # with a margin; 1 if all points coincide
    return (low + high) / 2, half


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


def _area(radius: float) -> float:
    """Return matplotlib's size of a dot, in square points."""
    return (2 * radius * 72 / _DPI) ** 2


def _enlarged(canvas: np.ndarray) -> Image.Image:
    image = Image.fromarray(canvas)
    factor = math.ceil(_GRID_WIDTH / image.width)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _save(image: Image.Image, path: Path) -> None:
    with replacing(path) as part:
        image.save(part, format="PNG", optimize=True)
