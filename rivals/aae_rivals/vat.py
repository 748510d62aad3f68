"""Virtual adversarial training (Miyato et al. 2015, arXiv:1507.00677), with its MNIST network.

A network p(y|x) minimises −log p(y|x) of labelled images plus λ·Δ(r_vadv, x) of all images
(section 2.1 of the paper):

    Δ(r, x) = KL(p(y|x) ‖ p(y|x + r)),    r_vadv = argmax Δ(r, x) over ‖r‖ ≤ ε

Near r = 0, Δ is ½·rᵀHr, so r_vadv is ε times the first eigenvector of H.  The power method finds
this vector without H (section 2.2), from a random d:

    d ← Hd / ‖Hd‖,    Hd ≈ ∇Δ(ξd, x) / ξ

p(y|x) is a constant in the gradient of Δ, as in the authors' code (github.com/takerum/vat).

Differences from the authors' code:

- ε, ξ and the output without batch norm are those of another public implementation
  (mnist-collection/vat.py in github.com/sony/nnabla-examples).  ξ = 10 is about the length of an
  image, so that Hd is a difference between the image and noise.  The authors' ξ of 1e-6 measures
  the Hessian at the image, but float32 rounds most of Hd away: on MNIST its cosine with the exact
  Hd is 0.3 at the first weights, and 0.9997 with ξ = 1e-3.  With such an exact direction, and with
  batch norm of the output, the error does not fall (rivals/README.md).
- Batch norm in evaluation uses running statistics of the unlabelled batches.  The authors average
  over all unlabelled images after training.
- The first weights have one std in all layers, `model.init_std`, and not 1/√inputs.

Shapes: B batch, D pixels, K classes.  Units: nats per image, mean over B.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from aae_core.networks import Blueprint
from aae_core.phases import Batch, Costs, State, classification_cost, descend
from aae_core.streams import standard_normal
from aae_rivals import VatSettings
from aae_rivals.blocks import Classifying, batch_statistics, labelled, refuse


class VAT(Classifying):
    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan)
        refuse(plan, channels=True, batch_norm=True)  # bfloat16 would round ξd away
        self.settings: VatSettings = plan.config.settings
        self.net = plan.encoder(plan.classes)
        if self.net.mlp.norms and not self.settings.output_norm:
            self.net.mlp.norms[-1] = nn.Identity()

    def train_step(self, s: State, batch: Batch) -> Costs:
        x, y = labelled(batch)
        with torch.no_grad():
            p = self.net(batch.x)
        with batch_statistics(self.net):
            r = self.perturbation(batch.x, p, s.streams["noise"])
            smoothness = divergence(p, self.net(batch.x + r))
            cost = classification_cost(self.net(x), y)
        descend(s.optimizers["classification"], cost + self.settings.weight * smoothness)
        return {"train/class": cost.detach(), "train/divergence": smoothness.detach()}

    def perturbation(self, x: Tensor, p: Tensor, noise: torch.Generator) -> Tensor:
        """Return r_vadv of images x (B, D) with the logits p of p(y|x), (B, K)."""
        d = unit(standard_normal(x.shape, noise))
        for _ in range(self.settings.power_iterations):
            r = (self.settings.xi * d).requires_grad_()
            (gradient,) = torch.autograd.grad(divergence(p, self.net(x + r)), r)
            d = unit(gradient)
        return self.settings.epsilon * d

    def logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Return KL(p ‖ q) of the distributions with logits p and q, (B, K)."""
    p, q = p.log_softmax(-1), q.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean()


def unit(d: Tensor) -> Tensor:
    """Scale each row of (B, D) to length 1; a row of zeros stays."""
    largest = d.abs().amax(-1, keepdim=True)  # its square, unlike that of d, is not below float32
    return normalize(d / largest.clamp_min(torch.finfo(d.dtype).tiny), dim=-1)
