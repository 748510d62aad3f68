"""The three encoders q(z|x) of section 2, with an additional q(y|x) for models with categories.

Shapes: B batch, D pixels, L code, K categories (0 without q(y|x)).  Both heads are rows of the
body's last layer, so they share all other layers.  `noise` is the stream of every draw; without
`noise` the encoder returns one fixed code per image (the Gaussian's mean; f(x, 0) of the universal
approximator).
"""

import torch
from torch import Tensor, nn

from aae_core.config import EncoderConfig
from aae_core.networks import Blueprint
from aae_core.streams import standard_normal


class Posterior(nn.Module):
    """Base of the encoders: x (B, D) to the logits of q(y|x), (B, K), and z ~ q(z|x), (B, L)."""

    def __init__(self, body: nn.Module, categories: int = 0) -> None:
        super().__init__()
        self.body = body
        self.categories = categories

    def heads(self, x: Tensor, noise: torch.Generator | None) -> tuple[Tensor, Tensor]:
        outputs: Tensor = self.body(x, noise)
        return outputs[..., : self.categories], outputs[..., self.categories :]


class Deterministic(Posterior):
    """z = f(x): q(z) is random only through the data.  The body maps (B, D) -> (B, K + L)."""

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return self.heads(x, noise)


class Gaussian(Posterior):
    """z ~ N(μ(x), diag σ²(x)), computed as z = μ + σ·ε.  The body maps (B, D) -> (B, K + 2L)."""

    def moments(
        self, x: Tensor, noise: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits, μ and log σ²; `noise` only draws the body's dropout masks."""
        logits, code = self.heads(x, noise)
        mean, log_variance = code.chunk(2, dim=-1)
        return logits, mean, log_variance

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        logits, mean, log_variance = self.moments(x, noise)
        return logits, mean if noise is None else reparametrise(mean, log_variance, noise)


class Universal(Posterior):
    """z = f(x, η), η ~ N(0, I): represents any q(z|x); its density is unknown and not needed.

    The body maps (B, D + noise_dim) -> (B, K + L).
    """

    def __init__(self, body: nn.Module, noise_dim: int, categories: int = 0) -> None:
        super().__init__(body, categories)
        self.noise_dim = noise_dim

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        shape = torch.Size((*x.shape[:-1], self.noise_dim))
        eta = x.new_zeros(shape) if noise is None else standard_normal(shape, noise)
        return self.heads(torch.cat([x, eta], dim=-1), noise)


def build_posterior(
    config: EncoderConfig, blueprint: Blueprint, code_dim: int, categories: int = 0
) -> Deterministic | Gaussian | Universal:
    match config.kind:
        case "deterministic":
            return Deterministic(blueprint.encoder(categories + code_dim), categories)
        case "gaussian":
            return Gaussian(blueprint.encoder(categories + 2 * code_dim), categories)
        case "universal":
            body = blueprint.encoder(categories + code_dim, extra=config.noise_dim)
            return Universal(body, config.noise_dim, categories)


def reparametrise(mean: Tensor, log_variance: Tensor, noise: torch.Generator) -> Tensor:
    """Return z = μ + σ·ε, ε ~ N(0, I) (Kingma and Welling 2014)."""
    return mean + torch.exp(0.5 * log_variance) * standard_normal(mean.shape, noise)
