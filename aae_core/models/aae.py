"""The basic adversarial autoencoder (figure 1, sections 2 and 3): one code, one discriminator."""

import torch
from torch import Tensor, nn

from aae_core.config import ModelConfig
from aae_core.networks import MLP
from aae_core.phases import State, discriminator_phase, generator_phase, reconstruction_phase
from aae_core.posteriors import build_posterior
from aae_core.priors import build_prior


class AAE(nn.Module):
    """Encoder q(z|x), decoder p(x|z) and a discriminator on z.  Shapes: B batch, D, L code."""

    def __init__(self, config: ModelConfig, dim: int, *, generator: torch.Generator) -> None:
        super().__init__()
        init_std, hidden = config.init_std, config.hidden
        self.dim = dim
        self.code_dim = config.code_dim
        self.sigmoid = config.output == "sigmoid"
        self.prior = build_prior(config.prior, config.code_dim)
        self.encoder = build_posterior(
            config.encoder, dim, hidden, config.code_dim, init_std=init_std, generator=generator
        )
        self.decoder = MLP(
            config.code_dim, hidden[::-1], dim, init_std=init_std, generator=generator
        )
        self.discriminator = MLP(config.code_dim, hidden, 1, init_std=init_std, generator=generator)

    def encode(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """(B, D) in [0, 1] -> z ~ q(z|x), (B, L); without a generator, one fixed code each."""
        z: Tensor = self.encoder(x, generator)
        return z

    def decode(self, z: Tensor) -> Tensor:
        """(B, L) -> x̂, (B, D)."""
        x: Tensor = self.decoder(z)
        return torch.sigmoid(x) if self.sigmoid else x

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Decode n draws of the prior, (n, D)."""
        return self.decode(self.prior.sample(n, generator=generator))

    def objectives(self) -> dict[str, tuple[str, tuple[nn.Module, ...]]]:
        """Optimiser -> the settings it takes its rates from, and the nets that it moves."""
        return {
            "reconstruction": ("reconstruction", (self.encoder, self.decoder)),
            "disc_z": ("adversarial", (self.discriminator,)),
            "gen_z": ("adversarial", (self.encoder,)),
        }

    def train_step(self, s: State, x: Tensor) -> dict[str, Tensor]:
        recon = reconstruction_phase(s, self, x)
        z_p = self.prior.sample(len(x), generator=s.streams["prior"])
        z_q = self.encode(x, generator=s.streams["noise"])  # serves both adversarial phases
        disc = discriminator_phase(s, self.discriminator, z_p, z_q, block="z")
        gen = generator_phase(s, self.discriminator, z_q, block="z")
        return {"train/recon": recon, "train/disc_z": disc, "train/gen_z": gen}
