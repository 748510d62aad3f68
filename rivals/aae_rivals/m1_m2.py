"""M1+M2, the stacked model of Kingma et al. 2014 (arXiv:1406.5298): M2 on the codes of M1.

M1, a VAE, trains for `share` of the epochs as in `m1`.  Then M2 (`m2`) trains on its codes: every
step draws them from M1's q(z|x), and p(code|y,z) is a Gaussian whose means and variances are the
decoder's output.  The model classifies the means of M1's codes.

A code's entry that M1 leaves unused is noise to M2.  M2 keeps the entries whose means have a std
above 0.1 over images, as in the authors' code (github.com/dpkingma/nips14-ssl).

Settings are those of `m1` and `m2`.  Both codes have `model.code_dim` entries.  `training.
reconstruction` is the optimiser of M1, `training.classification` that of M2.

Differences from the authors' code, beside those of `m1` and `m2`:

- The last batch of M1's training decides which entries M2 keeps; the authors take 1000 images.
- Both parts have batches of one size.  The authors have 1000 images for M1; for M2 500 with 100
  labels, and 250 with more.

Shapes: B batch, D pixels, K classes, L code of M1 and code z of M2.  Units: nats.
"""

import math

import torch
from torch import Tensor

from aae_core.networks import Blueprint
from aae_core.phases import Batch, Costs, State
from aae_core.streams import standard_normal
from aae_rivals import M1M2Settings
from aae_rivals.blocks import labelled
from aae_rivals.m1 import OnCodes
from aae_rivals.m2 import LabelledVAE, semi_supervised_phase

_LEAST_STD = 0.1  # of the means of a code's entry that is in use


class CodeVAE(LabelledVAE):
    """M2 of codes, with a Gaussian p(code|y,z)."""

    kept: Tensor  # (L,) 1 for an entry of the code that is in use, else 0

    def __init__(self, plan: Blueprint) -> None:
        dim = plan.config.code_dim
        super().__init__(plan, dim, 2 * dim)
        self.register_buffer("kept", torch.ones(dim))

    def keep(self, means: Tensor) -> None:
        """Keep the entries that differ between images, given the means of their codes, (B, L)."""
        self.kept.copy_(means.std(0, correction=0) > _LEAST_STD)

    def log_likelihood(self, parameters: Tensor, x: Tensor) -> Tensor:
        mean, log_variance = parameters.chunk(2, dim=-1)
        deviation = (x - mean).square() * torch.exp(-log_variance)
        return -0.5 * ((deviation + log_variance + math.log(2 * math.pi)) * self.kept).sum(-1)


class M1M2(OnCodes):
    settings: M1M2Settings
    top: CodeVAE

    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan)
        self.top = CodeVAE(plan)

    def observe(self, means: Tensor) -> None:
        self.top.keep(means)

    def top_phase(self, s: State, batch: Batch) -> Costs:
        noise = s.streams["noise"]
        few, classes = labelled(batch)
        x, few = self.codes(batch.x, noise), self.codes(few, noise)
        return semi_supervised_phase(s, self.top, self.settings, x, batch.y, (few, classes))

    def codes(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        return self.top.kept * super().codes(x, noise)

    def logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.top.classifier(self.codes(x))
        return logits

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Generate n images of random classes, (n, D)."""
        mean, log_variance = self.top.draw(n, generator).chunk(2, dim=-1)
        noise = standard_normal(mean.shape, generator)
        drawn = mean + torch.exp(0.5 * log_variance) * noise
        return self.image(torch.where(self.top.kept > 0, drawn, self.vae.prior_std * noise))
