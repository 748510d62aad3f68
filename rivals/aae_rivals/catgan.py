"""Categorical GAN (Springenberg 2015, arXiv:1511.06390) with labels for some images.

The discriminator is a classifier p(y|x) without a class for generated images.  Its entropy is low
for real images and high for generated images G(z), and it uses all classes equally often (section
3).  With entropy H and the mean E over a batch, the discriminator minimises

    −H(E p(y|x)) + E H(p(y|x)) − E H(p(y|G(z))) − λ·log p(y|x) of labelled images

and the generator minimises −H(E p(y|G(z))) + E H(p(y|G(z))).

The author published no code.  Layers, noise and rates are those of a public implementation
(github.com/smayru/catgan), which has no labels.  A layer of either network computes
leaky_relu(N(W·h + b + n)) with batch norm N.  The noise n is only in the discriminator, on the
pixels and on the hidden layers.  The first weights are N(0, 1/inputs).  Real, generated and
labelled images are normalised apart.

Difference: batch norm in evaluation uses running statistics of a pass without noise.

Shapes: B batch, D pixels, L noise z of the generator, K classes.  Units: nats.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from aae_core.models.base import Objectives
from aae_core.networks import Blueprint
from aae_core.phases import Batch, Costs, State, classification_cost, descend
from aae_core.priors import build_prior
from aae_core.streams import standard_normal
from aae_rivals import CatGanSettings
from aae_rivals.blocks import Classifying, batch_statistics, labelled, linear, refuse

_SLOPE = 0.1  # of leaky_relu below 0


class CatGAN(Classifying):
    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan)
        refuse(plan)
        config = plan.config
        self.settings: CatGanSettings = config.settings
        self.code_dim = config.code_dim
        self.prior = build_prior(config.prior, config.code_dim)
        self.discriminator = Net(plan, (plan.dim, *config.hidden, plan.classes))
        self.generator = Net(plan, (config.code_dim, *self.settings.generator, plan.dim))

    def objectives(self) -> Objectives:
        return {
            "classification": ("classification", (self.discriminator,)),
            "generator": ("adversarial", (self.generator,)),
        }

    def train_step(self, s: State, batch: Batch) -> Costs:
        fake = self.image(self.prior.sample(len(batch.x), generator=s.streams["prior"]))
        return self.discriminator_phase(s, batch, fake.detach()) | self.generator_phase(s, fake)

    def discriminator_phase(self, s: State, batch: Batch, fake: Tensor) -> Costs:
        """Update the discriminator on real, generated and labelled images."""
        x, y = labelled(batch)
        with torch.no_grad():
            self.discriminator(batch.x)  # only for the running statistics
        marginal, real = self.entropies(s, batch.x)
        _, generated = self.entropies(s, fake)
        cost = classification_cost(self.judge(s, x), y)
        weighted = self.settings.weight * cost
        descend(s.optimizers["classification"], real - marginal - generated + weighted)
        return {
            "train/class": cost.detach(),
            "train/entropy_classes": marginal.detach(),
            "train/entropy_real": real.detach(),
            "train/entropy_fake": generated.detach(),
        }

    def generator_phase(self, s: State, fake: Tensor) -> Costs:
        """Update the generator against the updated discriminator."""
        marginal, generated = self.entropies(s, fake)
        cost = generated - marginal
        descend(s.optimizers["generator"], cost)
        return {"train/gen_x": cost.detach()}

    def entropies(self, s: State, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return H(E p(y|x)) and E H(p(y|x)) of images (B, D)."""
        p = self.judge(s, x).softmax(-1)
        return entropy(p.mean(0)), entropy(p).mean()

    def judge(self, s: State, x: Tensor) -> Tensor:
        """Return the discriminator's logits of images (B, D), with noise in its layers."""
        with batch_statistics(self.discriminator):
            logits: Tensor = self.discriminator(x, s.streams["noise"], self.settings.noise)
        return logits

    def image(self, z: Tensor) -> Tensor:
        """Generate images in the networks' scale."""
        return self.output(self.generator(z))

    def logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.discriminator(x)
        return logits

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Generate n images, (n, D)."""
        z = self.prior.sample(n, generator=generator)
        x: Tensor = self.pixels.inverse(self.image(z))
        return x


class Net(nn.Module):
    """Layers with batch norm and leaky ReLU, and a linear output."""

    def __init__(self, plan: Blueprint, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(linear(plan, m, n) for m, n in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(m) for m in widths[1:-1])

    def forward(self, x: Tensor, noise: torch.Generator | None = None, std: float = 0.0) -> Tensor:
        """Add noise of this std, if any, to the input and to every layer but the last."""
        h = noisy(x, noise, std)
        for layer, norm in zip(self.layers, self.norms, strict=False):
            h = leaky_relu(norm(noisy(layer(h), noise, std)), _SLOPE)
        y: Tensor = self.layers[-1](h)
        return y


def noisy(h: Tensor, noise: torch.Generator | None, std: float) -> Tensor:
    return h if noise is None or std == 0 else h + std * standard_normal(h.shape, noise)


def entropy(p: Tensor) -> Tensor:
    """Return the entropy of distributions (…, K), (…); its gradient is finite where p is 0."""
    return -(p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum(-1)
