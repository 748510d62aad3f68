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
    """z = f(x): q(z) takes its randomness from the data alone."""

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int],
        code_dim: int,
        *,
        init_std: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.body = MLP(dim, hidden, code_dim, init_std=init_std, generator=generator)

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        z: Tensor = self.body(x)
        return z


class Gaussian(nn.Module):
    """z ~ N(μ(x), diag σ²(x)), reparametrised: z = μ + σ·ε."""

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int],
        code_dim: int,
        *,
        init_std: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.body = MLP(dim, hidden, 2 * code_dim, init_std=init_std, generator=generator)

    def forward(self, x: Tensor, noise: torch.Generator | None = None) -> Tensor:
        mean: Tensor
        mean, log_variance = self.body(x).chunk(2, dim=-1)
        if noise is None:
            return mean
        return mean + torch.exp(0.5 * log_variance) * _standard_normal(mean.shape, noise)


class Universal(nn.Module):
    """z = f(x, η), η ~ N(0, I): any q(z|x), its density out of reach but never needed."""

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int],
        code_dim: int,
        *,
        noise_dim: int,
        init_std: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.noise_dim = noise_dim
        self.body = MLP(dim + noise_dim, hidden, code_dim, init_std=init_std, generator=generator)

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
    shape = (dim, hidden, code_dim)
    if config.kind == "universal":
        return Universal(*shape, noise_dim=config.noise_dim, init_std=init_std, generator=generator)
    if config.kind == "gaussian":
        return Gaussian(*shape, init_std=init_std, generator=generator)
    return Deterministic(*shape, init_std=init_std, generator=generator)


def _standard_normal(shape: torch.Size, noise: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=noise, device=noise.device)
