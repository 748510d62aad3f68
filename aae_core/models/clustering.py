"""Clustering (section 6): the semi-supervised model without labels; y is a cluster."""

from aae_core.models.categorical import CategoricalAAE
from aae_core.networks import Blueprint


class Clustering(CategoricalAAE):
    def __init__(self, plan: Blueprint) -> None:
        clusters = plan.config.clusters
        super().__init__(plan, clusters, decoder_in=clusters + plan.config.code_dim)
