"""A pack trains trials of one form as one model: weights are stacks, products are batched.

The members' weights, buffers and optimiser slots are views of the stacks.  A member can therefore
be validated, saved and read like any other state, and `fit` can continue a member that left the
pack.  A step is the model's own `train_step`, which returns one value per cost and member.

Shapes: P members, B batch, I inputs and O outputs of a layer.
"""

import copy
import time
from collections.abc import Collection, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.optim import SGD, Optimizer

from aae_core.config import OptimizerConfig, PriorConfig, ScheduleConfig, TrialConfig
from aae_core.data import TrainingData
from aae_core.data.resident import Images
from aae_core.errors import TrialDiverged
from aae_core.models import Model
from aae_core.phases import Batch
from aae_core.priors import Prior
from aae_core.streams import Streams
from aae_core.training.batches import BatchSource
from aae_core.training.loop import EpochMetrics, finish_epoch, fit
from aae_core.training.memory import keep_freed_memory
from aae_core.training.state import TrainState

Name = TypeVar("Name")
Net = TypeVar("Net", bound=nn.Module)
Settings = TypeVar("Settings", bound=OptimizerConfig)

_BETA2, _EPSILON = 0.999, 1e-8  # Adam's
_CPU_SIZES = ((3e6, 16), (1e7, 4))  # (maximum products a pass, members)
_KINDS: frozenset[str] = frozenset({"aae", "supervised", "semi_supervised", "clustering", "gan"})


def form(config: TrialConfig) -> TrialConfig | None:
    """Return the settings that all members of a pack share; None if this trial must train alone.

    Members may differ in seed, prior, initial weights' std, rates, momenta, schedules, epochs,
    input noise and input dropout.
    """
    model, training = config.model, config.training
    if (
        model.kind not in _KINDS
        or model.channels
        or model.dropout > 0
        or model.discriminator.dropout > 0
        or model.discriminator.input_dropout > 0
        or training.precision != "float32"
    ):
        return None
    return replace(
        config,
        model=replace(
            model,
            prior=PriorConfig(),
            init_std=1.0,
            encoder=replace(model.encoder, init_std=None),
            decoder=replace(model.decoder, init_std=None),
            discriminator=replace(model.discriminator, init_std=None),
        ),
        training=replace(
            training,
            epochs=1,
            extended_from=(),
            validate_every=1,
            reconstruction=_any_rate(training.reconstruction),
            adversarial=_any_rate(training.adversarial),
            classification=_any_rate(training.classification),
            schedule=ScheduleConfig(),
            input_noise=0.0,
            input_dropout=0.0,
        ),
        seed=0,
    )


def _any_rate(settings: Settings) -> Settings:
    return replace(settings, lr=1.0, momentum=0.0, schedule=None)


def worthwhile(config: TrialConfig, dim: int, *, on_gpu: bool) -> int:
    """Return the number of trials on images (dim,) for which a pack is faster than single trials.

    A pack makes fewer calls of operations.  On a CPU these calls dominate only steps with few
    products (`benchmarks/train_step.py --pack`), on a GPU every step that we measured.
    """
    if on_gpu:
        return 16
    model = config.model
    autoencoder = _weights(dim, *model.hidden, model.code_dim)
    discriminator = _weights(model.code_dim, *model.widths(model.discriminator), 1)
    products = config.training.batch_size * (2 * autoencoder + discriminator)
    return next((size for most, size in _CPU_SIZES if products <= most), 1)


def _weights(*widths: int) -> int:
    return sum(fan_in * fan_out for fan_in, fan_out in pairwise(widths))


def fit_pack(
    members: MutableMapping[Name, TrainState],
    data: TrainingData,
    validate_at: Collection[int] = (),
) -> Iterator[dict[Name, EpochMetrics | TrialDiverged]]:
    """Run `fit` for all members at once; yield each member's epoch metrics or its divergence.

    A member that diverged or finished its last epoch is removed from `members`.  Between two epochs
    the caller may remove any member.  Each result equals that of `fit`, up to rounding.
    """
    pack = None
    for name in [name for name, state in members.items() if _is_done(state)]:
        del members[name]
    while members:
        if len(members) == 1:
            yield from _alone(members, data, validate_at)
            continue
        if pack is None or list(map(id, pack.states)) != list(map(id, members.values())):
            pack = Pack(list(members.values()), data)
        results = dict(zip(members, pack.epoch(validate_at), strict=True))
        for name, result in results.items():
            if isinstance(result, TrialDiverged) or _is_done(members[name]):
                del members[name]
        yield results


def _alone(
    members: MutableMapping[Name, TrainState], data: TrainingData, validate_at: Collection[int]
) -> Iterator[dict[Name, EpochMetrics | TrialDiverged]]:
    """Run `fit` for the only member until the member finishes, diverges or is removed."""
    [(name, state)] = members.items()
    epochs = fit(state, data, validate_at)
    while list(members) == [name]:
        results: EpochMetrics | TrialDiverged
        try:
            results = next(epochs)
        except TrialDiverged as diverged:
            results = diverged
        if isinstance(results, TrialDiverged) or _is_done(state):
            del members[name]
        yield {name: results}


def _is_done(state: TrainState) -> bool:
    return state.epoch >= state.config.training.epochs


class Pack:
    """A `phases.State` of several members with the same form, device and data.

    Raises ValueError for members of different forms.
    """

    def __init__(self, states: Sequence[TrainState], data: TrainingData) -> None:
        keep_freed_memory()
        first, common = states[0], form(states[0].config)
        if common is None or {form(state.config) for state in states} != {common}:
            raise ValueError("a pack's members have one form, see pack.form; train others alone")
        self.training = common.training
        self.states = states
        self.valid = Images.of(data.x_valid, data.y_valid, first.device)
        self.supplies = [BatchSource.of(state, data) for state in states]
        self.model = _one_model([state.model for state in states])
        self.optimizers = {
            name: PackedOptimizer(
                [p for net in nets for p in net.parameters()],
                [state.optimizers[name] for state in states],
            )
            for name, (_, nets) in self.model.objectives().items()
        }
        self.streams = {
            name: Streams([state.streams[name] for state in states]) for name in first.streams
        }

    @property
    def progress(self) -> float:
        return min(state.progress for state in self.states)

    def epoch(self, validate_at: Collection[int] = ()) -> Iterator[EpochMetrics | TrialDiverged]:
        """Train one epoch, then yield each member's result, in order of the members."""
        began = time.perf_counter()
        rates = [state.set_rates() for state in self.states]
        images, costs = self.train_epoch()
        seconds = time.perf_counter() - began
        for state, supply, lr, own in zip(self.states, self.supplies, rates, costs, strict=True):
            try:
                yield finish_epoch(
                    state, supply.x, self.valid, own, lr, images, seconds, validate_at
                )
            except TrialDiverged as diverged:
                yield diverged

    def train_epoch(self) -> tuple[int, list[dict[str, float]]]:
        """Return the number of images that each member trained on, and each member's mean costs."""
        for optimizer in self.optimizers.values():
            optimizer.take_rates()
        self.model.train()
        sums: dict[str, Tensor] = {}
        images = batches = 0
        for batch in self._batches():
            for name, cost in self.model.train_step(self, batch).items():
                sums[name] = sums[name] + cost if name in sums else cost.double()
            images, batches = images + batch.x.shape[1], batches + 1
        means = {name: (total / batches).tolist() for name, total in sums.items()}
        members = range(len(self.states))
        return images, [{name: own[i] for name, own in means.items()} for i in members]

    def _batches(self) -> Iterator[Batch]:
        own = [s.batches(state) for s, state in zip(self.supplies, self.states, strict=True)]
        return map(_one_batch, zip(*own, strict=True))


def _one_batch(batches: Sequence[Batch]) -> Batch:
    x = torch.stack([batch.x for batch in batches])
    clean = all(batch.noisy is batch.x for batch in batches)
    labelled = [batch.labelled for batch in batches if batch.labelled is not None]
    return Batch(
        x,
        x if clean else torch.stack([batch.noisy for batch in batches]),
        torch.stack([batch.y for batch in batches]),
        (torch.stack([x for x, _ in labelled]), torch.stack([y for _, y in labelled]))
        if labelled
        else None,
    )


# -- stacks ----------------------------------------------------------------------------------


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Stack `tensors` (…) into one tensor (P, …) and turn each of `tensors` into a view of it."""
    stack = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, part in zip(tensors, stack, strict=True):
        tensor.data = part
    return stack


def _stack(layers: Sequence[nn.Module], name: str) -> Tensor:
    return stacked([getattr(layer, name) for layer in layers])


def _parameter(layers: Sequence[nn.Module], name: str) -> nn.Parameter:
    return nn.Parameter(_stack(layers, name))


def _one_model(models: Sequence[Model]) -> Model:
    one = _one(models)
    for name in ("prior", "categorical"):
        if hasattr(one, name):
            setattr(one, name, Priors([getattr(model, name) for model in models]))
    return one


def _one(nets: Sequence[Net]) -> Net:
    """Return a copy of the first net with the stacked layers of all nets."""
    one = copy.copy(nets[0])
    one._modules = {
        name: _LAYERS.get(type(child), _one)([net.get_submodule(name) for net in nets])
        for name, child in nets[0].named_children()
    }
    return one


class Linears(nn.Module):
    """Linear layers of all members: (P, B, I) -> (P, B, O)."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight, self.bias = (_parameter(layers, name) for name in ("weight", "bias"))

    def forward(self, x: Tensor) -> Tensor:
        # The result is (P, O, B) in memory, which gives gradients the memory layout of the weights.
        return torch.baddbmm(self.bias[..., None], self.weight, x.mT).mT


class BatchNorms(nn.Module):
    """Batch norms of all members in training, (P, B, O): each output over its member's batch."""

    def __init__(self, layers: Sequence[nn.BatchNorm1d]) -> None:
        super().__init__()
        self.weight, self.bias = (_parameter(layers, name) for name in ("weight", "bias"))
        buffers = ("running_mean", "running_var", "num_batches_tracked")
        self.mean, self.var, self.steps = (_stack(layers, name) for name in buffers)

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        mean, var, weight, bias = (
            each.view(-1) for each in (self.mean, self.var, self.weight, self.bias)
        )
        y = batch_norm(x.transpose(0, 1).flatten(1), mean, var, weight, bias, training=True)
        return y.view(-1, *self.mean.shape).transpose(0, 1)


_LAYERS = {nn.Linear: Linears, nn.BatchNorm1d: BatchNorms}


@dataclass(frozen=True)
class Priors:
    """The members' priors."""

    members: Sequence[Prior]

    @property
    def dim(self) -> int:
        return self.members[0].dim

    def sample(self, n: int, *, generator: Streams) -> Tensor:
        """Draw n samples of each member's prior, (P, n, dim)."""
        own = zip(self.members, generator.members, strict=True)
        return torch.stack([prior.sample(n, generator=stream) for prior, stream in own])


class PackedOptimizer(Optimizer):
    """SGD or Adam for all members, each with its own rate and momentum."""

    def __init__(self, params: Sequence[Tensor], members: Sequence[Optimizer]) -> None:
        super().__init__(params, {})
        self.members = members
        self.sgd = isinstance(members[0], SGD)
        for index, p in enumerate(params):
            zeros = {"momentum_buffer": p[0]}
            if not self.sgd:
                zeros = {"exp_avg": p[0], "exp_avg_sq": p[0], "step": p.new_zeros(())}
            self.state[p] = {name: self._slot(index, name, like) for name, like in zeros.items()}

    def _slot(self, index: int, name: str, like: Tensor) -> Tensor:
        """Stack the members' optimiser slot `name` of the parameter `index`, 0 if missing."""
        params = [member.param_groups[0]["params"][index] for member in self.members]
        states = [member.state[p] for member, p in zip(self.members, params, strict=True)]
        return stacked([state.setdefault(name, torch.zeros_like(like)) for state in states])

    def take_rates(self) -> None:
        """Copy the members' current rates and momenta."""
        groups = [member.param_groups[0] for member in self.members]
        device = self.param_groups[0]["params"][0].device
        momenta = [group["momentum"] if self.sgd else group["betas"][0] for group in groups]
        self.lr = torch.tensor([group["lr"] for group in groups], device=device)
        self.momentum = torch.tensor(momenta, device=device)
        self.param_groups[0].update(lr=self.lr, momentum=self.momentum)  # as in torch's optimisers

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no caller passes a closure
        (self._sgd if self.sgd else self._adam)()

    def _sgd(self) -> None:
        """Apply v ← m·v + g, p ← p − lr·v."""
        for p, slots in self.state.items():
            v = slots["momentum_buffer"]
            assert p.grad is not None
            torch.addcmul(p.grad, v, _each(self.momentum, p), out=v)
            p.addcmul_(v, _each(self.lr, p), value=-1)

    def _adam(self) -> None:
        """Apply algorithm 1 of Kingma and Ba 2015 (arXiv:1412.6980)."""
        first = next(iter(self.state.values()))
        t, beta1 = 1 + first["step"].double(), self.momentum.double()
        rate, root = self.lr / (1 - beta1**t), (1 - _BETA2**t).sqrt()
        for p, slots in self.state.items():
            slots["step"] += 1
            assert p.grad is not None
            m = slots["exp_avg"].lerp_(p.grad, _each(1 - self.momentum, p))
            v = slots["exp_avg_sq"].mul_(_BETA2).addcmul_(p.grad, p.grad, value=1 - _BETA2)
            p.addcdiv_(m * _each(rate, p), v.sqrt().div_(_each(root, p)).add_(_EPSILON), value=-1)


def _each(values: Tensor, p: Tensor) -> Tensor:
    """Reshape one value per member, (P,), to broadcast over the members' weights (P, …)."""
    return values.to(p.dtype).view(-1, *[1] * (p.dim() - 1))
