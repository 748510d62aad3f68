"""M2, the generative semi-supervised model of Kingma et al. 2014 (arXiv:1406.5298).

A class y and a code z generate an image, p(x, y, z) = p(y)·p(z)·p(x|y,z), with p(y) = 1/K and
p(z) = N(0, I).  The lower bounds on log p(x, y) and log p(x) are, for labelled and for unlabelled
images (equations 6 and 7 of the paper),

    −L(x, y) = E log p(x|y,z) + log p(y) − KL(q(z|x,y) ‖ p(z)),    z ~ q(z|x,y)
    −U(x) = Σ_y q(y|x)·(−L(x, y) − log q(y|x))

The model minimises J^α (equation 9) per image: the mean of L over images with a label and of U over
all others, plus `alpha` times the mean of −log q(y|x) over labelled images, plus `decay` times
½‖W‖².  The paper's α is 0.1·N, so `alpha` is 0.1.  The sum over y is exact.  In training, the
pixels are probabilities from which every step draws binary images, and p(x|y,z) is Bernoulli.
`train/bound` is the mean of −L and −U, `train/class` that of −log q(y|x).

q(y|x), q(z|x,y) and p(x|y,z) have softplus layers of `model.hidden`.  The code has `model.code_dim`
entries, and `model.prior.std` is the std of p(z).  The first weights are N(0, init_std²).

Differences from the paper and from the authors' code (github.com/dpkingma/nips14-ssl), which has M2
with labels for all images, and for few labels only M1+M2:

- The cross-entropy takes labelled images from batches of their own.  The authors' batches mix
  labelled and unlabelled images, such as 1 in 500.
- The first log-variances are not 0, and `decay` leaves out the biases.
- Adam is PyTorch's, with bias correction.

Shapes: B batch, n inputs of the model (pixels, or codes of M1), K classes, L code z.  Units: nats.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aae_core.models.vae import gaussian_divergence
from aae_core.networks import Blueprint
from aae_core.phases import Batch, Costs, State, classification_cost, descend
from aae_core.posteriors import reparametrise
from aae_core.streams import standard_normal
from aae_rivals import M1M2Settings, M2Settings
from aae_rivals.blocks import (
    Classifying,
    SoftplusNet,
    bernoulli_log_likelihood,
    binary,
    half_squares,
    labelled,
    linear,
    need_probabilities,
    refuse,
)


class ConditionalNet(SoftplusNet):
    """Softplus layers of an input and a class; without `y`, of every class at once.

    (B, 1 or K, n) -> (B, K, m), or with the classes y (B,), (B, n) -> (B, m).
    """

    def __init__(self, plan: Blueprint, widths: Sequence[int], std: float | None = None) -> None:
        super().__init__(plan, widths, std)
        self.classes = linear(plan, plan.classes, widths[1], bias=False, std=std)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:  # type: ignore[override]
        shifts = self.classes.weight.T
        return super().forward(x, shifts if y is None else shifts[y])


class LabelledVAE(nn.Module, ABC):
    """q(y|x), q(z|x,y) and p(x|y,z) of inputs x; `outputs` parameters make up p(x|y,z)."""

    def __init__(self, plan: Blueprint, inputs: int, outputs: int) -> None:
        super().__init__()
        config, std = plan.config, plan.config.init_std
        self.prior_std = config.prior.std
        self.code_dim, self.classes = config.code_dim, plan.classes
        q, p = config.hidden, config.hidden[::-1]
        self.classifier = SoftplusNet(plan, (inputs, *q, plan.classes), std)
        self.encoder = ConditionalNet(plan, (inputs, *q, 2 * config.code_dim), std)
        self.decoder = ConditionalNet(plan, (config.code_dim, *p, outputs), std)

    @abstractmethod
    def log_likelihood(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Return log p(x|y,z) of the decoder's output: (B, K, ·) and x (B, 1, n) -> (B, K)."""

    def joint_bounds(self, x: Tensor, noise: torch.Generator) -> Tensor:
        """Return −L(x, y) of inputs (B, n) for every class, (B, K)."""
        x = x[:, None]
        mean, log_variance = self.encoder(x).chunk(2, dim=-1)
        z = reparametrise(mean, log_variance, noise)
        divergence = gaussian_divergence(mean, log_variance, self.prior_std)
        return self.log_likelihood(self.decoder(z), x) - math.log(self.classes) - divergence

    def bound(self, x: Tensor, y: Tensor, noise: torch.Generator) -> Tensor:
        """Return −L(x, y), or −U(x) where y is −1: inputs (B, n), classes (B,) -> (B,)."""
        joint = self.joint_bounds(x, noise)
        known = joint.gather(-1, y.clamp_min(0)[:, None])[:, 0]
        log_q = self.classifier(x).log_softmax(-1)
        unknown = (log_q.exp() * (joint - log_q)).sum(-1)
        return torch.where(y < 0, unknown, known)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Return the decoder's output for n draws of p(y) and p(z)."""
        device = generator.device
        y = torch.randint(self.classes, (n,), generator=generator, device=device)
        z = self.prior_std * standard_normal(torch.Size((n, self.code_dim)), generator)
        parameters: Tensor = self.decoder(z, y)
        return parameters


def semi_supervised_phase(
    s: State,
    net: LabelledVAE,
    settings: M2Settings | M1M2Settings,
    x: Tensor,
    y: Tensor,
    few: tuple[Tensor, Tensor],
) -> Costs:
    """Update q and p on inputs x (B, n) with classes y (B,), −1 if hidden, and on labelled ones."""
    bound = net.bound(x, y, s.streams["noise"]).mean()
    cost = classification_cost(net.classifier(few[0]), few[1])
    penalty = settings.decay * half_squares(net)
    descend(s.optimizers["classification"], settings.alpha * cost - bound + penalty)
    return {"train/class": cost.detach(), "train/bound": bound.detach()}


class BinaryVAE(LabelledVAE):
    """M2 of binary images."""

    def log_likelihood(self, parameters: Tensor, x: Tensor) -> Tensor:
        return bernoulli_log_likelihood(parameters, x)


class M2(Classifying):
    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan)
        refuse(plan)
        need_probabilities(plan)
        self.settings: M2Settings = plan.config.settings
        self.code_dim = plan.config.code_dim
        self.net = BinaryVAE(plan, plan.dim, plan.dim)

    def train_step(self, s: State, batch: Batch) -> Costs:
        noise = s.streams["noise"]
        few, classes = labelled(batch)
        x, few = binary(batch.x, noise), binary(few, noise)
        return semi_supervised_phase(s, self.net, self.settings, x, batch.y, (few, classes))

    def logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net.classifier(x)
        return logits

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Generate n images of random classes, (n, D)."""
        return self.output(self.net.draw(n, generator))
