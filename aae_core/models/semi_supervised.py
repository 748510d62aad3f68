"""Semi-supervised model (figure 8, section 5): y is the class, known for a few images."""

from aae_core.models.categorical import CategoricalAAE
from aae_core.networks import Blueprint


class SemiSupervised(CategoricalAAE):
    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan, plan.classes, decoder_in=plan.classes + plan.config.code_dim)
