"""Variational autoencoder (Kingma and Welling 2014), section 2.1's baseline, on the same networks.

A VAE needs the prior's density.  For p(x|z) = N(x̂, σ²I) the cost is ½‖x̂ − x‖²/σ² plus the
divergence KL(q(z|x) ‖ p(z)).  The sum is multiplied by σ² to make learning rates independent of σ.
"""

import math

from torch import Tensor

from aae_core.models.base import Autoencoder, Objectives
from aae_core.networks import Blueprint
from aae_core.phases import Batch, Costs, State, reconstruction_phase
from aae_core.posteriors import Gaussian, reparametrise
from aae_core.priors import DensePrior, GaussianPrior


class VAE(Autoencoder):
    encoder: Gaussian
    prior: DensePrior

    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan)
        self.decoder_std = plan.config.decoder_std

    def objectives(self) -> Objectives:
        return {"reconstruction": ("reconstruction", (self.encoder, self.decoder))}

    def train_step(self, s: State, batch: Batch) -> Costs:
        _, mean, log_variance = self.encoder.moments(batch.noisy, s.streams["noise"])
        z = reparametrise(mean, log_variance, s.streams["noise"])
        kl = self._divergence(z, mean, log_variance).mean()
        costs = reconstruction_phase(s, self.image(z), batch.x, self.decoder_std**2 * kl)
        return costs | {"train/kl": kl.detach()}

    def _divergence(self, z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Return KL(q(z|x) ‖ p(z)) in nats, (B,): exact for N(0, s²I), else estimated from z."""
        if isinstance(self.prior, GaussianPrior):
            return gaussian_divergence(mean, log_variance, self.prior.std)
        deviation = (z - mean).square() / log_variance.exp()
        log_q = -0.5 * (deviation + log_variance + math.log(2 * math.pi)).sum(-1)
        return log_q - self.prior.log_density(z)


def gaussian_divergence(mean: Tensor, log_variance: Tensor, std: float) -> Tensor:
    """Return KL(N(μ, σ²) ‖ N(0, s²)), summed over coordinates: (B, L) -> (B,)."""
    relative = (log_variance.exp() + mean.square()) / std**2
    return 0.5 * (relative - 1 - log_variance + 2 * math.log(std)).sum(-1)
