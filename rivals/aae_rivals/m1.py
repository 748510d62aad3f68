"""M1, the latent-feature model of Kingma et al. 2014 (arXiv:1406.5298): a VAE under a classifier.

The VAE maximises the lower bound on log p(x) (equation 5 of the paper), without labels:

    E log p(x|z) − KL(q(z|x) ‖ p(z)),    z ~ q(z|x),    p(z) = N(0, I)

In training, the pixels are probabilities from which every step draws binary images, and p(x|z) is
Bernoulli.  After `share` of the epochs the VAE stays as it is, and a classifier trains: its inputs
are draws of q(z|x), its costs the cross-entropy of labelled images.  It classifies the means.  Both
costs include `decay` times ½‖W‖².  `train/bound_vae` is the mean bound.

The VAE's encoder has softplus layers of `features`, its decoder reverses them.  The code has
`model.code_dim` entries, and `model.prior.std` is the std of p(z).  `training.reconstruction` is
the VAE's optimiser, `training.classification` the classifier's.  The classifier has softplus layers
of `model.hidden`.  The VAE's first weights are N(0, 1/inputs), the classifier's N(0, init_std²).

Differences from the paper and from the authors' code (github.com/dpkingma/nips14-ssl):

- The classifier is a network; the paper's is a transductive support vector machine.
- The first log-variances are not 0, and `decay` leaves out the biases.

Shapes: B batch, D pixels, K classes, L code z.  Units: nats per image, mean over B.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from aae_core.models.base import Objectives
from aae_core.models.vae import gaussian_divergence
from aae_core.networks import Blueprint
from aae_core.phases import Batch, Costs, State, classification_cost, descend
from aae_core.posteriors import reparametrise
from aae_core.streams import standard_normal
from aae_rivals import M1M2Settings, M1Settings
from aae_rivals.blocks import (
    Classifying,
    SoftplusNet,
    bernoulli_log_likelihood,
    binary,
    half_squares,
    labelled,
    need_probabilities,
    refuse,
)


class BinaryVAE(nn.Module):
    """q(z|x) and p(x|z) of binary images x (B, D)."""

    def __init__(self, plan: Blueprint, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.prior_std = plan.config.prior.std
        self.encoder = SoftplusNet(plan, (plan.dim, *widths, 2 * plan.config.code_dim))
        self.decoder = SoftplusNet(plan, (plan.config.code_dim, *widths[::-1], plan.dim))

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return μ and log σ² of q(z|x), (B, L) each."""
        mean, log_variance = self.encoder(x).chunk(2, dim=-1)
        return mean, log_variance

    def bound(
        self, x: Tensor, mean: Tensor, log_variance: Tensor, noise: torch.Generator
    ) -> Tensor:
        """Return the lower bound on log p(x), (B,), from the moments of q(z|x)."""
        z = reparametrise(mean, log_variance, noise)
        divergence = gaussian_divergence(mean, log_variance, self.prior_std)
        return bernoulli_log_likelihood(self.decoder(z), x) - divergence


class OnCodes(Classifying):
    """A VAE, and a classifier `top` of its codes, which trains after the VAE."""

    settings: M1Settings | M1M2Settings
    top: nn.Module

    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan)
        refuse(plan)
        need_probabilities(plan)
        self.settings = plan.config.settings
        self.code_dim = plan.config.code_dim
        self.vae = BinaryVAE(plan, self.settings.features)

    def objectives(self) -> Objectives:
        return {
            "reconstruction": ("reconstruction", (self.vae,)),
            "classification": ("classification", (self.top,)),
        }

    def train_step(self, s: State, batch: Batch) -> Costs:
        if s.progress < self.settings.share:
            return self.vae_phase(s, batch.x)
        return self.top_phase(s, batch)

    def vae_phase(self, s: State, x: Tensor) -> Costs:
        """Update the VAE on images (B, D)."""
        noise = s.streams["noise"]
        x = binary(x, noise)
        mean, log_variance = self.vae.moments(x)
        self.observe(mean.detach())
        bound = self.vae.bound(x, mean, log_variance, noise).mean()
        penalty = self.settings.decay * half_squares(self.vae)
        descend(s.optimizers["reconstruction"], penalty - bound)
        return {"train/bound_vae": bound.detach()}

    def observe(self, means: Tensor) -> None:
        """Read the means of q(z|x) of a batch in the VAE's training, (B, L)."""

    @abstractmethod
    def top_phase(self, s: State, batch: Batch) -> Costs:
        """Update the classifier; the VAE stays as it is."""

    @torch.no_grad()
    def codes(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """Encode images (B, D) to draws of q(z|x), (B, L); without `noise` to its means."""
        mean, log_variance = self.vae.moments(x)
        return mean if noise is None else reparametrise(mean, log_variance, noise)

    def image(self, z: Tensor) -> Tensor:
        """Decode codes (B, L) to the pixels' probabilities, (B, D)."""
        return self.output(self.vae.decoder(z))


class M1(OnCodes):
    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan)
        config = plan.config
        widths = (config.code_dim, *config.hidden, plan.classes)
        self.top = SoftplusNet(plan, widths, config.init_std)

    def top_phase(self, s: State, batch: Batch) -> Costs:
        x, y = labelled(batch)
        cost = classification_cost(self.top(self.codes(x, s.streams["noise"])), y)
        penalty = self.settings.decay * half_squares(self.top)
        descend(s.optimizers["classification"], cost + penalty)
        return {"train/class": cost.detach()}

    def logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.top(self.codes(x))
        return logits

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Decode n draws of p(z), (n, D)."""
        z = standard_normal(torch.Size((n, self.code_dim)), generator)
        return self.image(self.vae.prior_std * z)
