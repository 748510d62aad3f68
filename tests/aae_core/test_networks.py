import torch

from aae_core.networks import MLP


def test_weights_have_the_paper_s_initialisation() -> None:
    net = MLP(784, [1000, 1000], 8, init_std=0.01, generator=torch.Generator().manual_seed(0))
    weights = torch.cat([layer.weight.flatten() for layer in net.layers])
    assert abs(weights.std().item() - 0.01) < 1e-4
    assert abs(weights.mean().item()) < 1e-4
    assert all(not layer.bias.any() for layer in net.layers)


def test_the_output_layer_is_linear() -> None:
    net = MLP(2, [3], 1, init_std=1.0, generator=torch.Generator().manual_seed(0))
    outputs = net(torch.randn(100, 2, generator=torch.Generator().manual_seed(1)))
    assert outputs.min() < 0 < outputs.max()
