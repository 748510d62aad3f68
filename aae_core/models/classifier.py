"""The dropout network of tables 1 and 2 that sees labelled images alone ("NN baseline")."""

from torch import Tensor

from aae_core.models.base import Model, Objectives
from aae_core.networks import Blueprint
from aae_core.phases import Batch, Costs, State, classification_phase


class Classifier(Model):
    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan)
        self.body = plan.encoder(plan.classes)

    def objectives(self) -> Objectives:
        return {"classification": ("classification", (self.body,))}

    def train_step(self, s: State, batch: Batch) -> Costs:
        return classification_phase(s, self.body(batch.noisy, s.streams["noise"]), batch.y)

    def classify(self, x: Tensor) -> Tensor:
        """(B, D) -> q(y|x), (B, K)."""
        logits: Tensor = self.body(self.pixels(x))
        return logits.softmax(-1)
