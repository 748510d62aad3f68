"""How well clusters agree with classes, by the protocol of Makhzani et al. 2015, section 6.

Every cluster is given the name of a class on the validation images; an image is wrong if its
cluster has another name than its own class.

Shapes: n images, K clusters; q(y|x) is (n, K).  An image's cluster is the one with the largest
q(y_i|x).  Units: per cent.
"""

import torch
from torch import Tensor

from aae_core.evaluation.classification import per_cent

_NAMELESS = -1  # equal to no class


def representatives(q: Tensor, y: Tensor) -> Tensor:
    """Names (K,): cluster i takes the class of the image with the largest q(y_i|x)."""
    return y[q.argmax(0)]


def majorities(q: Tensor, y: Tensor) -> Tensor:
    """Names (K,): cluster i takes the most frequent class of its images, the lowest of equals.

    Not the paper's protocol.  A cluster without images is never right.
    """
    clusters, classes = q.shape[1], int(y.max()) + 1
    pairs = q.argmax(1) * classes + y
    counts = torch.bincount(pairs, minlength=clusters * classes).reshape(clusters, classes)
    return counts.argmax(1).where(counts.any(1), _NAMELESS)


def cluster_error(q: Tensor, y: Tensor, names: Tensor) -> float:
    """Per cent of images whose cluster has not the name of their class."""
    return per_cent(names[q.argmax(1)] != y)


def empty_clusters(q: Tensor) -> int:
    """How many clusters have no image."""
    return q.shape[1] - len(q.argmax(1).unique())
