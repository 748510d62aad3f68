"""The three encoders q(z|x) of section 2.

Shapes: B batch, D pixels, L code.  `noise` is the stream of every draw; without it the encoder
returns one fixed code per image (the Gaussian's mean; f(x, 0) of the universal approximator).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aae_core.config import EncoderConfig
from aae_core.networks import MLP


class Deterministic(nn.Module):
    """z = f(x): q(z) takes its randomness from the data alone.  The body: (B, D) -> (B, L)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        z: Tensor = self.body(x)
        return z


class Gaussian(nn.Module):
    """z ~ N(μ(x), diag σ²(x)), reparametrised: z = μ + σ·ε.  The body: (B, D) -> (B, 2L)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        mean: Tensor
        mean, log_variance = self.body(x).chunk(2, dim=-1)
        if noise is None:
            return mean
        return mean + torch.exp(0.5 * log_variance) * _standard_normal(mean.shape, noise)


class Universal(nn.Module):
    """z = f(x, η), η ~ N(0, I): any q(z|x), its density out of reach but never needed.

    The body: (B, D + noise_dim) -> (B, L).
    """

    def __init__(self, body: nn.Module, noise_dim: int) -> None:
        super().__init__()
        self.body = body
        self.noise_dim = noise_dim

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        shape = torch.Size((len(x), self.noise_dim))
        eta = x.new_zeros(shape) if noise is None else _standard_normal(shape, noise)
        z: Tensor = self.body(torch.cat([x, eta], dim=-1))
        return z


Posterior = Deterministic | Gaussian | Universal


def build_posterior(
    config: EncoderConfig,
    dim: int,
    hidden: Sequence[int],
    code_dim: int,
    *,
    init_std: float,
    generator: torch.Generator,
) -> Posterior:
    def body(in_dim: int, out_dim: int) -> MLP:
        return MLP(in_dim, hidden, out_dim, init_std=init_std, generator=generator)

    match config.kind:
        case "deterministic":
            return Deterministic(body(dim, code_dim))
        case "gaussian":
            return Gaussian(body(dim, 2 * code_dim))
        case "universal":
            return Universal(body(dim + config.noise_dim, code_dim), config.noise_dim)


def _standard_normal(shape: torch.Size, noise: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=noise, device=noise.device)
