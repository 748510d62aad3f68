"""Ladder network (Rasmus et al. 2015, arXiv:1507.02672), the full ladder of fully connected layers.

Algorithm 1 of the paper.  Layer l of the encoder, from z⁰ = x, has weights W, shift β, noise n:

    z = N(W·h) + n,    h = relu(z + β); at the top h = softmax(γ·(z + β))

N is batch norm without parameters.  A clean pass has no noise.  Layer l of the decoder denoises the
corrupted z̃ with the layer above, from u = h̃ at the top:

    ẑ = (z̃ − μ(u))·υ(u) + μ(u),    u = N(V·ẑ of the layer above)

The cost is −log p(y|x̃) of labelled images plus the sum over layers of λ·‖z − ẑ′‖²/m of all images.
z is the clean pass's, ẑ′ is ẑ normalised with the clean pass's statistics, m is the layer's width.
Gradients flow through z, too.  Labelled and unlabelled images are normalised apart.

`training.input_noise` is the noise of the pixels, `model.settings.noise` that of the layers above.
The first weights are N(0, 1/inputs) as in the authors' code (github.com/CuriousAI/ladder).

Difference: batch norm in evaluation uses running statistics of the unlabelled images.  The authors
take those of the labelled images after training.

Shapes: B batch, D pixels, K classes, m units of a layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from aae_core.networks import Blueprint
from aae_core.phases import Batch, Costs, State, classification_cost, descend
from aae_core.streams import standard_normal
from aae_rivals import LadderSettings
from aae_rivals.blocks import Classifying, batch_statistics, labelled, linear, refuse

_EPSILON = 1e-10  # of batch norm


@dataclass(frozen=True)
class Pass:
    """One pass of the encoder; lists begin with the pixels."""

    z: Sequence[Tensor]  # (B, m) of each layer: normalised, and with noise if the pass is corrupted
    a: Sequence[Tensor]  # W·h of each layer before batch norm; of the pixels, x
    logits: Tensor  # (B, K)


class Ladder(Classifying):
    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan)
        refuse(plan)
        self.settings: LadderSettings = plan.config.settings
        widths = (plan.dim, *plan.config.hidden, plan.classes)
        self.up = nn.ModuleList(linear(plan, m, n, bias=False) for m, n in pairwise(widths))  # W
        self.down = nn.ModuleList(linear(plan, n, m, bias=False) for m, n in pairwise(widths))  # V
        self.norms = nn.ModuleList(nn.BatchNorm1d(m, _EPSILON, affine=False) for m in widths[1:])
        self.shifts = nn.ParameterList(torch.zeros(m) for m in widths[1:])  # β
        self.scale = nn.Parameter(torch.ones(plan.classes))  # γ
        self.denoisers = nn.ModuleList(Denoiser(m) for m in widths)

    def train_step(self, s: State, batch: Batch) -> Costs:
        x, y = labelled(batch)
        noise = s.streams["noise"]
        clean = self.encode(batch.x)
        with batch_statistics(self):
            corrupted = self.encode(batch.noisy, noise)
            cost = classification_cost(self.encode(x, noise).logits, y)
        denoising = self.denoising(clean, corrupted)
        descend(s.optimizers["classification"], cost + denoising)
        return {"train/class": cost.detach(), "train/denoising": denoising.detach()}

    def encode(self, x: Tensor, noise: torch.Generator | None = None) -> Pass:
        """Encode images (B, D); `noise` makes a corrupted pass."""
        z, a, h = [x], [x], x
        for i, (up, norm, shift) in enumerate(zip(self.up, self.norms, self.shifts, strict=True)):
            a.append(up(h))
            z.append(norm(a[-1]))
            if noise is not None:
                z[-1] = z[-1] + self.settings.noise * standard_normal(a[-1].shape, noise)
            h = z[-1] + shift
            if i < len(self.up) - 1:
                h = torch.relu(h)
        return Pass(z, a, self.scale * h)

    def denoising(self, clean: Pass, corrupted: Pass) -> Tensor:
        """Decode a corrupted pass from the top, and add up the costs of all layers."""
        costs = []
        above = corrupted.logits.softmax(-1)
        for i in reversed(range(len(self.denoisers))):
            z = self.denoisers[i](corrupted.z[i], normalised(above))
            if i > 0:
                above = self.down[i - 1](z)
                z = normalised(z, clean.a[i])
            costs.append(self.weight(i) * (clean.z[i] - z).square().mean())
        return torch.stack(costs).sum()

    def weight(self, layer: int) -> float:
        """Return λ of a layer, 0 being the pixels."""
        weights = self.settings.denoising
        return weights[min(layer, len(weights) - 1)]

    def logits(self, x: Tensor) -> Tensor:
        return self.encode(x).logits


class Denoiser(nn.Module):
    """The paper's g, optimal for Gaussian z: each unit's μ and υ are functions of its u.

    μ(u) = a₁·sigmoid(a₂·u + a₃) + a₄·u + a₅, and υ(u) likewise with a₆ … a₁₀.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        mean = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])  # at first μ = υ = 0
        self.a = nn.Parameter(mean.repeat(2)[:, None].repeat(1, units))

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 = self.a
        mean: Tensor = a1 * torch.sigmoid(a2 * u + a3) + a4 * u + a5
        gain: Tensor = a6 * torch.sigmoid(a7 * u + a8) + a9 * u + a10
        return (z - mean) * gain + mean


def normalised(z: Tensor, batch: Tensor | None = None) -> Tensor:
    """Normalise each unit of z (B, m) with the mean and the variance of `batch`, or of z itself."""
    a = z if batch is None else batch
    return (z - a.mean(0)) / (a.var(0, correction=0) + _EPSILON).sqrt()
