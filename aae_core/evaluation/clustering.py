"""How well clusters agree with classes, by the protocol of Makhzani et al. 2015, section 6.

Every cluster is given the name of a class on the validation images; an image is wrong if its
cluster has another name than its own class.

Shapes: n images, K clusters; `logits` are those of q(y|x), (n, K).  An image's cluster is the one
with the largest q(y_i|x).  Units: per cent.
"""

import math

import torch
from torch import Tensor

from aae_core.evaluation.classification import per_cent

_NAMELESS = -1  # equal to no class


def representatives(logits: Tensor, y: Tensor) -> Tensor:
    """Names (K,): cluster i takes the class of the image with the largest q(y_i|x).

    Of images that share the largest, the most frequent class counts, the lowest of equals: the
    names do not depend on the order of the images.
    """
    image, cluster = _surest(logits).nonzero(as_tuple=True)
    return _counts(cluster, y[image], logits.shape[1], int(y.max()) + 1).argmax(1)


def ties(logits: Tensor) -> int:
    """How many images share their cluster's largest q(y_i|x) with the first, over all clusters."""
    return int((_surest(logits).sum(0) - 1).clamp(min=0).sum())


def majorities(logits: Tensor, y: Tensor) -> Tensor:
    """Names (K,): cluster i takes the most frequent class of its images, the lowest of equals.

    Not the paper's protocol.  A cluster without images is never right.
    """
    counts = _counts(logits.argmax(1), y, logits.shape[1], int(y.max()) + 1)
    return counts.argmax(1).where(counts.any(1), _NAMELESS)


def cluster_error(logits: Tensor, y: Tensor, names: Tensor) -> float:
    """Per cent of images whose cluster has not the name of their class."""
    return per_cent(names[logits.argmax(1)] != y)


def empty_clusters(logits: Tensor) -> int:
    """How many clusters have no image."""
    return logits.shape[1] - len(logits.argmax(1).unique())


def _surest(logits: Tensor) -> Tensor:
    """The images with the largest q(y_i|x) of every cluster i, (n, K), bool."""
    odds = _log_odds(logits)
    return odds == odds.amax(0)


def _log_odds(logits: Tensor) -> Tensor:
    """log q/(1 − q), (n, K), float64: it orders images as q does, where q itself rounds to 1.

    1 − q is summed over the other clusters: an image's largest q leaves nothing else of it.
    """
    logits = logits.double()
    top = logits.argmax(1, keepdim=True)
    others = logits.scatter(1, top, -math.inf).logsumexp(1, keepdim=True)
    log_q = logits.log_softmax(1)
    odds = log_q - torch.log1p(-log_q.exp())  # q is at most a half, but in the top's column
    return odds.scatter(1, top, logits.gather(1, top) - others)


def _counts(cluster: Tensor, y: Tensor, clusters: int, classes: int) -> Tensor:
    """How many images of a cluster (n,) are of a class (n,): (clusters, classes)."""
    counts = torch.bincount(cluster * classes + y, minlength=clusters * classes)
    return counts.reshape(clusters, classes)
