"""The "NN baseline" of tables 1 and 2: a dropout network trained only on labelled images."""

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
        """Return q(y|x), (B, K), of images (B, D)."""
        logits: Tensor = self.body(self.pixels(x))
        return logits.softmax(-1)
