"""Error rate of a classifier.

Shapes: n images, K classes.  Units: per cent.
"""

from torch import Tensor


def error(scores: Tensor, y: Tensor) -> float:
    """Per cent of images, scores (n, K), whose largest score is not their class y (n,)."""
    return per_cent(scores.argmax(1) != y)


def per_cent(of: Tensor) -> float:
    """Per cent of the booleans that are true."""
    return 100 * float(of.double().mean())
