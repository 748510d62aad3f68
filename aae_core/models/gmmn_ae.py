"""GMMN + AE (Li, Swersky, Zemel 2015): a network matches the moments of an autoencoder's codes.

The first half of the epochs trains the autoencoder, with dropout; the second a network from the
prior's noise to the codes, which then stand still, by the maximum mean discrepancy of a batch.
"""

import torch
from torch import Tensor

from aae_core.models.base import Autoencoder, Objectives
from aae_core.networks import Blueprint
from aae_core.phases import Batch, Costs, State, descend, reconstruction_phase

_WIDTHS = (0.01, 0.03, 0.1, 0.3, 1.0)  # σ² of the Gaussian kernels, in ‖z − z′‖² of two codes
_LEAST = 1e-2  # of that: the codes of an autoencoder that has not begun to learn are all one


class GMMNAE(Autoencoder):
    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan)
        self.matcher = plan.mlp(self.code_dim, self.code_dim)

    def objectives(self) -> Objectives:
        return {
            "reconstruction": ("reconstruction", (self.encoder, self.decoder)),
            "generator": ("adversarial", (self.matcher,)),
        }

    def train_step(self, s: State, batch: Batch) -> Costs:
        if s.progress < 0.5:
            _, z = self.encoder(batch.noisy, s.streams["noise"])
            return reconstruction_phase(s, self.image(z), batch.x)
        self.encoder.eval()
        with torch.no_grad():
            _, z = self.encoder(batch.x, s.streams["noise"])
        self.encoder.train()
        noise = self.prior.sample(len(z), generator=s.streams["prior"])
        cost = moment_distance(self.matcher(noise), z)
        descend(s.optimizers["generator"], cost)
        return {"train/gen_z": cost.detach()}

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Decode n codes of the matching network, (n, D)."""
        return self.decode(self.matcher(self.prior.sample(n, generator=generator)))


def moment_distance(fake: Tensor, real: Tensor) -> Tensor:
    """√MMD² of two batches (n, L), (m, L): biased, a sum of Gaussian kernels (Li et al., eq. 3).

    The kernels are as wide as the real codes are apart: no unit of length matters.
    """
    centre = real.mean(0)  # products of far points would cancel
    points = torch.cat([fake - centre, real - centre])
    signs = (
        fake.new_full((len(fake),), 1 / len(fake)),
        real.new_full((len(real),), -1 / len(real)),
    )
    weight = torch.cat(signs)
    norms = points.square().sum(-1)
    squared = (norms[:, None] + norms - 2 * points @ points.T).clamp_min(0)
    unit = (2 * real.var(0).sum()).clamp_min(_LEAST)
    kernel = torch.stack([torch.exp(-squared / (2 * w * unit)) for w in _WIDTHS]).sum(0)
    return (weight @ kernel @ weight).clamp_min(1e-12).sqrt()
