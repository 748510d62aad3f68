"""GMMN + AE (Li, Swersky, Zemel 2015): a network matches the moments of an autoencoder's codes.

The first epochs train the autoencoder, with dropout and, if configured, first layer by layer.  The
later epochs train the matcher, a network from the prior's noise to codes.  Its cost is the maximum
mean discrepancy of a batch; the autoencoder no longer changes.

Shapes: B batch, D pixels, L code.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from aae_core.models.base import Autoencoder, Objectives
from aae_core.networks import MLP, Blueprint, Encoder
from aae_core.phases import Batch, Costs, State, descend, reconstruction_cost
from aae_core.priors import build_prior

_WIDTHS = (0.01, 0.03, 0.1, 0.3, 1.0)  # σ² of the Gaussian kernels, in ‖z − z′‖² of two codes
_LEAST = 1e-2  # floor of that unit: an untrained autoencoder maps all images to one code


class GMMNAE(Autoencoder):
    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan)
        config = plan.config
        self.settings = config.autoencoder
        self.sigmoids = config.encoder.activation == config.decoder.activation == "sigmoid"
        self.prior = build_prior(config.prior, config.prior_dim)
        self.matcher = plan.mlp(config.prior_dim, self.code_dim, config.matcher)

    def objectives(self) -> Objectives:
        return {
            "reconstruction": ("reconstruction", (self.encoder, self.decoder)),
            "generator": ("adversarial", (self.matcher,)),
        }

    def train_step(self, s: State, batch: Batch) -> Costs:
        if s.progress < self.settings.share:
            size = self.settings.batch_size or len(batch.x)
            parts = zip(batch.x.split(size), batch.noisy.split(size), strict=True)
            costs = [self._reconstruction_phase(s, x, noisy) for x, noisy in parts]
            return {"train/recon": torch.stack(costs).mean()}
        self.encoder.eval()
        with torch.no_grad():
            z = self._code(self.encoder(batch.x, s.streams["noise"])[1])
        self.encoder.train()
        noise = self.prior.sample(len(z), generator=s.streams["prior"])
        cost = moment_distance(self.match(noise, s.streams["noise"]), z)
        descend(s.optimizers["generator"], cost)
        return {"train/gen_z": cost.detach()}

    def style(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Encode images (B, D) to the codes (B, L) that the matcher learns to draw."""
        return self._code(super().style(x, generator=generator))

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Decode n codes of the matching network, (n, D)."""
        return self.decode(self.match(self.prior.sample(n, generator=generator)))

    def match(self, noise: Tensor, dropout: torch.Generator | None = None) -> Tensor:
        """Map draws of the prior (B, ·) to the matcher's codes, (B, L)."""
        return self._code(self.matcher(noise, dropout))

    def _code(self, z: Tensor) -> Tensor:
        return torch.sigmoid(z) if self.settings.code == "sigmoid" else z

    def _reconstruction_phase(self, s: State, x: Tensor, noisy: Tensor) -> Tensor:
        """Update the autoencoder; in pretraining, only one layer of encoder and of decoder."""
        noise, layer = s.streams["noise"], self._pretrained_layer(s.progress)
        if layer is None:
            x_hat = self.image(self._code(self.encoder(noisy, noise)[1]))
        else:
            x, x_hat = self._through_layer(layer, x, noisy, noise)
        bounded = not layer or self.sigmoids
        entropic = self.settings.cost == "cross_entropy" and bounded
        cost = cross_entropy_cost(x_hat, x) if entropic else reconstruction_cost(x_hat, x)
        descend(s.optimizers["reconstruction"], cost)
        return cost.detach()

    def _pretrained_layer(self, progress: float) -> int | None:
        """Return the index of the encoder layer in pretraining; None once all train together.

        Each layer gets as many epochs as the whole autoencoder afterwards.
        """
        if not self.settings.pretraining:
            return None
        layers = len(self._mlps()[0].layers)
        stage = int(progress / self.settings.share * (layers + 1))
        return stage if stage < layers else None

    def _through_layer(
        self, i: int, x: Tensor, noisy: Tensor, noise: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the encoder layer i's input and its reconstruction by the mirrored layer."""
        encoder, decoder = self._mlps()
        last = len(encoder.layers) - 1
        if i > 0:
            encoder.eval()
            with torch.no_grad():
                for below in range(i):
                    x = encoder.layer(below, x)
            encoder.train()
        h = encoder.layer(i, noisy if i == 0 else x, noise)
        x_hat = decoder.layer(last - i, self._code(h) if i == last else h, noise)
        return x, self.output(x_hat) if i == 0 else x_hat

    def _mlps(self) -> tuple[MLP, MLP]:
        body, decoder = self.encoder.body, self.decoder
        assert isinstance(body, Encoder)
        assert isinstance(decoder, MLP)
        return body.mlp, decoder


def cross_entropy_cost(x_hat: Tensor, x: Tensor) -> Tensor:
    """Return −Σ x·log x̂ + (1 − x)·log(1 − x̂) over pixels; (B, D) in [0, 1], nats per image."""
    return binary_cross_entropy(x_hat, x, reduction="sum") / len(x)


def moment_distance(fake: Tensor, real: Tensor) -> Tensor:
    """Return √MMD² of batches (n, L), (m, L): biased, sum of Gaussian kernels (Li et al., eq. 3).

    The kernel widths scale with the spread of the real codes, so the unit of length is irrelevant.
    """
    centre = real.mean(0)  # avoids cancellation for points far from 0
    points = torch.cat([fake - centre, real - centre])
    signs = (
        fake.new_full((len(fake),), 1 / len(fake)),
        real.new_full((len(real),), -1 / len(real)),
    )
    weight = torch.cat(signs)
    norms = points.square().sum(-1)
    squared = (norms[:, None] + norms - 2 * points @ points.T).clamp_min(0)
    unit = (2 * real.var(0).sum()).clamp_min(_LEAST)
    kernel = torch.stack([torch.exp(-squared / (2 * w * unit)) for w in _WIDTHS]).sum(0)
    return (weight @ kernel @ weight).clamp_min(1e-12).sqrt()
