"""Agreement of clusters with classes, by the protocol of Makhzani et al. 2015, section 6.

The validation images assign each cluster the name of a class.  An image counts as an error if its
cluster's name differs from its class.

Shapes: n images, K clusters; `logits` are the logits of q(y|x), (n, K).  An image's cluster has the
largest q(y_i|x).  Units: per cent.
"""

import math

import torch
from torch import Tensor

from aae_core.evaluation.classification import per_cent

_NAMELESS = -1  # equal to no class


def representatives(logits: Tensor, y: Tensor) -> Tensor:
    """Names (K,): cluster i takes the class of the image with the largest q(y_i|x).

    If several images share the maximum, their most frequent class is taken; among equally frequent
    classes, the lowest.  The names are therefore independent of the order of the images.
    """
    image, cluster = _surest(logits).nonzero(as_tuple=True)
    return _counts(cluster, y[image], logits.shape[1], int(y.max()) + 1).argmax(1)


def ties(logits: Tensor) -> int:
    """Number of images with their cluster's largest q(y_i|x), minus one for each cluster."""
    return int((_surest(logits).sum(0) - 1).clamp(min=0).sum())


def majorities(logits: Tensor, y: Tensor) -> Tensor:
    """Names (K,): cluster i takes its images' most frequent class; among equals, the lowest.

    Not the paper's protocol.  A cluster without validation images gets a name that equals no class.
    """
    counts = _counts(logits.argmax(1), y, logits.shape[1], int(y.max()) + 1)
    return counts.argmax(1).where(counts.any(1), _NAMELESS)


def cluster_error(logits: Tensor, y: Tensor, names: Tensor) -> float:
    """Per cent of images whose cluster's name differs from their class."""
    return per_cent(names[logits.argmax(1)] != y)


def empty_clusters(logits: Tensor) -> int:
    """Number of clusters without images."""
    return logits.shape[1] - len(logits.argmax(1).unique())


def _surest(logits: Tensor) -> Tensor:
    """Mask of the images with the largest q(y_i|x) of every cluster i, (n, K), bool."""
    odds = _log_odds(logits)
    return odds == odds.amax(0)


def _log_odds(logits: Tensor) -> Tensor:
    """Return log q/(1 − q), (n, K), float64; the order is that of q, even if q rounds to 1.

    For an image's largest q, 1 − q is summed over the other clusters to avoid cancellation.
    """
    logits = logits.double()
    top = logits.argmax(1, keepdim=True)
    others = logits.scatter(1, top, -math.inf).logsumexp(1, keepdim=True)
    log_q = logits.log_softmax(1)
    odds = log_q - torch.log1p(-log_q.exp())  # q ≤ ½ except in column `top`
    return odds.scatter(1, top, logits.gather(1, top) - others)


def _counts(cluster: Tensor, y: Tensor, clusters: int, classes: int) -> Tensor:
    """Count the images of each cluster (n,) and class (n,): (clusters, classes)."""
    counts = torch.bincount(cluster * classes + y, minlength=clusters * classes)
    return counts.reshape(clusters, classes)
