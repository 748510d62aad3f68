"""Bodies of encoder, decoder and discriminator (appendix A): ReLU layers, linear output.

Shapes: B batch, D input, O output.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """(B, D) -> (B, O). Weights N(0, init_std²) drawn from `generator`, biases 0."""

    def __init__(
        self,
        in_dim: int,
        hidden: Sequence[int],
        out_dim: int,
        *,
        init_std: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        widths = [in_dim, *hidden, out_dim]
        self.layers = nn.ModuleList(
            nn.utils.skip_init(nn.Linear, fan_in, fan_out) for fan_in, fan_out in pairwise(widths)
        )
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=init_std, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        *hidden, output = self.layers
        for layer in hidden:
            x = torch.relu(layer(x))
        y: Tensor = output(x)
        return y
