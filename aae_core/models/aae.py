"""Basic adversarial autoencoder (figure 1, sections 2 and 3): one code, one discriminator."""

from aae_core.models.base import Adversarial


class AAE(Adversarial):
    """`Adversarial` without additions; other architectures extend `Adversarial`."""
