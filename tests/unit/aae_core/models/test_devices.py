"""Test a training step on PyTorch's `meta` device, which holds no numbers.

On `meta`, a product with a CPU tensor raises, and so does any wait for a device (`.item()`). A
step that passes mixes no devices and never waits.
"""

from dataclasses import replace

import pytest
import torch
from tiny import COVERING, dressed, first_batch, start, trial
from torch import Tensor
from torch.optim import SGD

from aae_core.config import TrialConfig
from aae_core.declarations import ARCHITECTURES
from aae_core.phases import Batch, Costs
from aae_core.training import TrainState

META = torch.device("meta")
CASES = [
    (*case, phases)
    for case in COVERING
    for phases in ("successive", "joint")
    if phases == "successive" or "z" in ARCHITECTURES[case[0]].adversaries
]


class OnMeta(torch.Generator):
    """A CPU generator that reports device `meta`, because `meta` has no generators of its own."""

    device = META


def moved(batch: Batch) -> Batch:
    pair = batch.labelled and tuple(tensor.to(META) for tensor in batch.labelled)
    return Batch(batch.x.to(META), batch.noisy.to(META), batch.y.to(META), pair)


def on_meta(config: TrialConfig) -> tuple[TrainState, Batch]:
    """Return a trial and its first batch on `meta`; torch has no fused optimiser there."""
    state = start(config)
    batch = first_batch(state)
    model = state.model.to(META).train()
    optimizers = {
        name: SGD([p for net in nets for p in net.parameters()], lr=0.1, momentum=0.5)
        for name, (_, nets) in model.objectives().items()
    }
    streams = {name: OnMeta() for name in state.streams}
    return replace(state, optimizers=optimizers, streams=streams, device=META), moved(batch)


def step(config: TrialConfig, epoch: int) -> Costs:
    state, batch = on_meta(config)
    state.epoch = epoch
    return state.model.train_step(state, batch)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("kind", "encoder", "prior", "phases"), CASES)
def test_train_step_mixes_no_devices_and_never_waits(
    kind: str, encoder: str, prior: str, phases: str, hard: bool
) -> None:
    config = trial(kind, encoder, prior)
    training = replace(config.training, phases=phases)
    if hard and ARCHITECTURES[kind].adversaries:
        training = replace(training, discriminator_steps=2, discriminator_noise=0.1)
    config = replace(config, training=training)
    for epoch in (0, 1):  # both halves of gmmn_ae
        costs = step(dressed(config) if hard else config, epoch)
        assert costs
        assert all(cost.device == META for cost in costs.values())


def test_meta_step_raises_when_a_draw_is_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnMeta, "device", torch.device("cpu"))
    with pytest.raises(RuntimeError, match="device"):
        step(trial("aae"), 0)


def test_meta_step_raises_when_a_value_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked_at(real: Tensor, fake: Tensor) -> Tensor:
        return (real - fake).mean() * real.mean().item()

    monkeypatch.setattr("aae_core.phases.discriminator_cost", looked_at)
    with pytest.raises(RuntimeError, match="meta"):
        step(trial("aae"), 0)
