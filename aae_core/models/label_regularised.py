"""Labels shape the code space (figure 3, section 2.3): only the discriminator receives labels.

A one-hot vector of K + 1 entries, the last for "unlabelled", names the prior's mode of a labelled
image.  Positive phase: the prior sample comes from the class's mode, or from the whole prior for an
unlabelled image.  Negative phase: the image's code, with the same vector.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from aae_core.errors import ConfigError
from aae_core.models.base import Adversarial
from aae_core.networks import Blueprint
from aae_core.phases import Adversary, State
from aae_core.priors import LabelledPrior


class LabelRegularised(Adversarial):
    prior: LabelledPrior

    def __init__(self, plan: Blueprint) -> None:
        super().__init__(plan, discriminator_extra=plan.config.prior.modes + 1)
        if plan.classes != self.prior.modes:
            raise ConfigError(
                {"model.prior.modes": f"the data have {plan.classes} classes; give as many modes"}
            )

    def adversaries(self, s: State, logits: Tensor, z: Tensor, y: Tensor) -> Sequence[Adversary]:
        stream, k = s.streams["prior"], self.prior.modes
        anywhere = torch.randint(k, y.shape, generator=stream, device=y.device)
        z_p = self.prior.sample_modes(torch.where(y < 0, anywhere, y), generator=stream)
        label = one_hot(torch.where(y < 0, k, y), k + 1).float()
        real, fake = torch.cat([z_p, label], dim=-1), torch.cat([z, label], dim=-1)
        discriminator = partial(self.discriminator, noise=s.streams["noise"])
        return [Adversary("z", discriminator, real, fake)]
