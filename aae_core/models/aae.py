"""The basic adversarial autoencoder (figure 1, sections 2 and 3): one code, one discriminator."""

from aae_core.models.base import Adversarial
from aae_core.phases import Batch, Costs, State, reconstruction_phase, regularisation_phase


class AAE(Adversarial):
    def train_step(self, s: State, batch: Batch) -> Costs:
        _, z = self.encoder(batch.noisy, s.streams["noise"])
        costs = reconstruction_phase(s, self.image(z), batch.x)
        _, z = self.encoder(batch.noisy, s.streams["noise"])  # serves both adversarial phases
        return costs | regularisation_phase(s, [self.against_prior(s, z)])
