"""How often a classifier is wrong.

Shapes: n images, K classes.  Units: per cent.
"""

from torch import Tensor


def error(scores: Tensor, y: Tensor) -> float:
    """Per cent of images (n, K) whose largest score is not at their class y (n,)."""
    return per_cent(scores.argmax(1) != y)


def per_cent(of: Tensor) -> float:
    """How many of the booleans are true."""
    return 100 * float(of.double().mean())
