"""PNG pictures of samples and of codes, drawn by Pillow and written atomically."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Point: TypeAlias = tuple[float, float]
Colour: TypeAlias = str

# Paul Tol's "muted" scheme, safe for colour-blind readers, and black for a tenth class
PALETTE: tuple[Colour, ...] = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933",
    "#DDCC77", "#CC6677", "#882255", "#AA4499", "#000000",
)  # fmt: skip
_PRIOR, _INK, _FAINT, _PAPER = "#C4C4C4", "#333333", "#DDDDDD", "#FFFFFF"
