"""Test our training against a plain reference: equal seeds give equal losses at every step.

The reference is a tutorial's reading of the paper: a torch optimiser for every phase, a whole
backward pass for every cost, costs by torch's own functions. The reference shares only networks,
priors and random streams with our training.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from tiny import CASES, CLASSES, KINDS, as_published, dressed, images, start, trial
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    log_softmax,
    nll_loss,
    one_hot,
    softmax,
)
from torch.optim import SGD, Adam, Optimizer

from aae_core.config import HeadsConfig, ScheduleConfig, TrialConfig
from aae_core.declarations import ARCHITECTURES
from aae_core.priors import GaussianPrior
from aae_core.training import fit
from aae_core.training.batches import visible_labels

Losses = dict[str, Tensor]

JOINED = [kind for kind in KINDS if "z" in ARCHITECTURES[kind].adversaries]
STEPS = 50
EPOCHS = {"none": 17, "some": 17, "only": 25}  # epochs of 3 steps, or of 2 with few labels
DROP, FACTOR = 8, 0.5  # schedule of the learning rates
NEAR = {"rel": 3e-5, "abs": 1e-6}
# our distances come from products, which cancel; each step of the matcher may grow the difference
NEAR_MOMENTS, GROWTH = 5e-6, 1.5
SETTINGS = {  # by phase: the settings of its optimiser
    "reconstruction": "reconstruction",
    "discriminator": "adversarial",
    "generator": "adversarial",
    "classification": "classification",
}


@dataclass
class Seen:
    x: Tensor
    noisy: Tensor
    y: Tensor
    labelled: tuple[Tensor, Tensor] | None


class Plain:
    def __init__(self, config: TrialConfig, step: "Step | None" = None) -> None:
        twin = start(config)
        self.step = step or STEP[config.model.kind]
        self.config, self.model, self.streams = config, twin.model.train(), twin.streams
        self.optimizers: dict[str, Optimizer] = {}
        self.epoch = 0
        self.codes: tuple[Tensor, Tensor] | None = None
        self.held_back: tuple[Tensor, tuple[nn.Module, ...]] | None = None  # for joint phases

    def train(self) -> Iterator[Losses]:
        for _ in range(self.config.training.epochs):
            self.epoch += 1
            for seen in self.batches():
                yield self.step(self, seen)

    def batches(self) -> Iterator[Seen]:
        data, kind = images(), self.config.model.kind
        x, y = torch.from_numpy(data.x_train) / 255, torch.from_numpy(data.y_train)
        output = torch.tensor(visible_labels(self.config, data), dtype=torch.long)
        if ARCHITECTURES[kind].labels == "only":
            x, y = x[output], y[output]
        else:
            y = torch.full_like(y, -1).scatter(0, output, y[output])
        size = self.config.training.batch_size
        steps, few = len(x) // size, min(size, len(output))
        order = shuffled(len(x), steps * size, self.streams["batches"]).split(size)
        pairs: list[Tensor | None] = [None] * steps
        if len(output) and kind in ("semi_supervised", "dimensionality_reduction"):
            turns = shuffled(len(output), steps * few, self.streams["labelled"])
            pairs = list(output[turns].split(few))
        for now, some in zip(order, pairs, strict=True):
            noisy = self.corrupted(x[now])
            pair = None if some is None else (self.corrupted(x[some]), y[some])
            yield Seen(x[now], noisy, y[now], pair)

    def corrupted(self, x: Tensor) -> Tensor:
        training, stream = self.config.training, self.streams["corruption"]
        if training.input_noise:
            x = x + training.input_noise * torch.randn(x.shape, generator=stream)
        if training.input_dropout:
            kept = torch.empty(x.shape).bernoulli_(1 - training.input_dropout, generator=stream)
            x = x * kept / (1 - training.input_dropout)
        return x

    def dropped(self, x: Tensor, share: float) -> Tensor:
        kept = torch.empty(x.shape).bernoulli_(1 - share, generator=self.streams["noise"])
        return x * kept / (1 - share)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.held_back is None:
            logits, z = self.model.encoder(x, self.streams["noise"])
            self.codes = softmax(logits, dim=-1), z
        assert self.codes is not None
        return self.codes

    def decode(self, code: Tensor) -> Tensor:
        return torch.sigmoid(self.model.decoder(code))

    def draw(self, n: int) -> Tensor:
        z: Tensor = self.model.prior.sample(n, generator=self.streams["prior"])
        return z

    def draw_category(self, n: int, categories: int) -> Tensor:
        return one_hot(torch.randint(categories, (n,), generator=self.streams["prior"]), categories)

    def descend(self, phase: str, cost: Tensor, *nets: nn.Module) -> None:
        training = self.config.training
        if training.phases == "joint" and phase == "reconstruction":
            self.held_back = cost, nets
            return
        if training.phases == "joint" and phase == "generator":
            assert self.held_back is not None
            (recon, others), self.held_back = self.held_back, None
            if training.reconstruction.optimizer == training.adversarial.optimizer == "sgd":
                phase, cost, nets = "reconstruction", recon + self.generator_weight() * cost, others
            else:
                self.descend_from_one_point(
                    {"reconstruction": (recon, others), phase: (cost, nets)}
                )
                return
        optimizer = self.optimizer(phase, nets)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()

    def descend_from_one_point(
        self, costs: dict[str, tuple[Tensor, tuple[nn.Module, ...]]]
    ) -> None:
        """Move each parameter by the sum of the moves of all costs' own optimisers."""
        parameters = {phase: parameters_of(nets) for phase, (_, nets) in costs.items()}
        gradients = {
            phase: torch.autograd.grad(cost, parameters[phase], retain_graph=True)
            for phase, (cost, _) in costs.items()
        }
        starts = {p: p.detach().clone() for own in parameters.values() for p in own}
        moves = {p: torch.zeros_like(p) for p in starts}
        for phase, (_, nets) in costs.items():
            for p, gradient in zip(parameters[phase], gradients[phase], strict=True):
                p.grad = gradient
            self.optimizer(phase, nets).step()
            with torch.no_grad():
                for p in parameters[phase]:
                    moves[p] += p - starts[p]
                    p.copy_(starts[p])
        with torch.no_grad():
            for p, move in moves.items():
                p += move

    def optimizer(self, phase: str, nets: tuple[nn.Module, ...]) -> Optimizer:
        settings = getattr(self.config.training, SETTINGS[phase])
        if phase not in self.optimizers:
            parameters = parameters_of(nets)
            self.optimizers[phase] = (
                SGD(parameters, settings.lr, settings.momentum, foreach=False)
                if settings.optimizer == "sgd"
                else Adam(parameters, settings.lr, (settings.momentum, 0.999), foreach=False)
            )
        optimizer = self.optimizers[phase]
        optimizer.param_groups[0]["lr"] = settings.lr * (FACTOR if self.epoch > DROP else 1)
        return optimizer

    def generator_weight(self) -> float:
        one, other = self.config.training.adversarial, self.config.training.reconstruction
        return one.lr / other.lr * (1 - other.momentum) / (1 - one.momentum)


def parameters_of(nets: tuple[nn.Module, ...]) -> list[nn.Parameter]:
    return [p for net in nets for p in net.parameters()]


def shuffled(n: int, wanted: int, stream: torch.Generator) -> Tensor:
    """Return `wanted` entries of successive permutations of 0 … n−1."""
    turns = [torch.randperm(n, generator=stream) for _ in range(math.ceil(wanted / n))]
    return torch.cat(turns)[:wanted]


# -- phases ----------------------------------------------------------------------------------


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    return (0.5 * (x_hat - x) ** 2).sum(dim=1).mean()


def adversarial(
    p: Plain, games: dict[str, tuple[nn.Module, Tensor, Tensor]], generator: nn.Module
) -> Losses:
    """Take the discriminators' step, then the generator's."""

    def judged(logits: Tensor, as_real: bool) -> Tensor:
        return binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(as_real)))

    losses = {}
    for name, (net, real, fake) in games.items():
        seen = net(torch.cat([real, fake.detach()]))  # one dropout mask for both
        on_real, on_fake = seen.split([len(real), len(fake)])
        losses[f"train/disc_{name}"] = judged(on_real, True) + judged(on_fake, False)
    p.descend("discriminator", sum(losses.values()), *[net for net, _, _ in games.values()])
    fooled = {
        f"train/gen_{name}": judged(net(fake), True) for name, (net, _, fake) in games.items()
    }
    p.descend("generator", sum(fooled.values()), generator)
    return losses | fooled


# -- architectures ---------------------------------------------------------------------------


def aae(p: Plain, b: Seen) -> Losses:
    m = p.model
    recon = squared_error(p.decode(p.encode(b.noisy)[1]), b.x)
    p.descend("reconstruction", recon, m.encoder, m.decoder)
    _, z = p.encode(b.noisy)
    game = {"z": (m.discriminator, p.draw(len(z)), z)}
    return {"train/recon": recon} | adversarial(p, game, m.encoder)


def label_regularised(p: Plain, b: Seen) -> Losses:
    m = p.model
    recon = squared_error(p.decode(p.encode(b.noisy)[1]), b.x)
    p.descend("reconstruction", recon, m.encoder, m.decoder)
    _, z = p.encode(b.noisy)
    anywhere = torch.randint(CLASSES, b.y.shape, generator=p.streams["prior"])
    unlabelled = b.y == -1
    part = torch.where(unlabelled, anywhere, b.y)
    z_p = m.prior.sample_modes(part, generator=p.streams["prior"])
    output = one_hot(b.y.masked_fill(unlabelled, CLASSES), CLASSES + 1)
    real, fake = torch.cat([z_p, output], dim=1), torch.cat([z, output], dim=1)
    game = {"z": (m.discriminator, real, fake)}
    return {"train/recon": recon} | adversarial(p, game, m.encoder)


def supervised(p: Plain, b: Seen) -> Losses:
    m, label = p.model, one_hot(b.y, CLASSES)
    recon = squared_error(p.decode(torch.cat([label, p.encode(b.noisy)[1]], dim=1)), b.x)
    p.descend("reconstruction", recon, m.encoder, m.decoder)
    _, z = p.encode(b.noisy)
    game = {"z": (m.discriminator, p.draw(len(z)), z)}
    return {"train/recon": recon} | adversarial(p, game, m.encoder)


def categorical(p: Plain, b: Seen) -> Losses:
    m, learned = p.model, p.config.model.heads
    y, z = p.encode(b.noisy)
    moved, crowding = [m.encoder, m.decoder], torch.zeros(())
    if p.config.model.kind == "dimensionality_reduction":
        code = y @ m.heads.weight + z
        if learned.kind == "learned":
            moved.append(m.heads)
            heads = list(m.heads.weight)
            for i, head in enumerate(heads):
                for other in heads[:i]:
                    crowding = crowding + torch.relu(learned.distance - (head - other).norm())
    else:
        code = torch.cat([y, z], dim=1)
    recon = squared_error(p.decode(code), b.x)
    p.descend("reconstruction", recon + crowding, *moved)
    y, z = p.encode(b.noisy)
    y_p = p.draw_category(*y.shape).float()
    games = {"y": (m.discriminator_y, y_p, y), "z": (m.discriminator, p.draw(len(z)), z)}
    losses = {"train/recon": recon} | adversarial(p, games, m.encoder)
    if b.labelled is not None:
        x, classes = b.labelled
        logits, _ = m.encoder(x, p.streams["noise"])
        losses["train/class"] = nll_loss(log_softmax(logits, dim=1), classes)
        p.descend("classification", losses["train/class"], m.encoder)
    return losses


def vae(p: Plain, b: Seen) -> Losses:
    m = p.model
    _, mean, log_variance = m.encoder.moments(b.noisy, p.streams["noise"])
    q = Normal(mean, torch.exp(log_variance / 2))
    z = mean + q.stddev * torch.randn(mean.shape, generator=p.streams["noise"])
    if isinstance(m.prior, GaussianPrior):
        kl = kl_divergence(q, Normal(0.0, m.prior.std)).sum(dim=1).mean()
    else:
        kl = (q.log_prob(z).sum(dim=1) - m.prior.log_density(z)).mean()
    recon = squared_error(p.decode(z), b.x)
    p.descend("reconstruction", recon + m.decoder_std**2 * kl, m.encoder, m.decoder)
    return {"train/recon": recon, "train/kl": kl}


def gan(p: Plain, b: Seen) -> Losses:
    fake = p.decode(p.draw(len(b.x)))
    return adversarial(p, {"x": (p.model.discriminator, b.x, fake)}, p.model.decoder)


class Maxout(nn.Module):
    """Discriminator layers that find the largest piece by sorting and draw masks layer by layer."""

    def __init__(self, p: Plain) -> None:
        super().__init__()
        self.p, self.layers = p, p.model.discriminator.layers

    def forward(self, x: Tensor) -> Tensor:
        net = self.p.config.model.discriminator
        x = self.p.dropped(x, net.input_dropout)
        for layer in self.layers[:-1]:
            units = torch.stack(layer(x).split(net.pieces, dim=1), dim=1)
            x = self.p.dropped(units.sort(dim=2).values[:, :, -1], net.dropout)
        logits: Tensor = self.layers[-1](x)
        return logits


def gan_as_published(p: Plain, b: Seen) -> Losses:
    fake = p.decode(p.draw(len(b.x)))
    return adversarial(p, {"x": (Maxout(p), b.x, fake)}, p.model.decoder)


def gmmn_ae(p: Plain, b: Seen) -> Losses:
    m = p.model
    if p.epoch - 1 < p.config.training.epochs / 2:
        recon = squared_error(p.decode(p.encode(b.noisy)[1]), b.x)
        p.descend("reconstruction", recon, m.encoder, m.decoder)
        return {"train/recon": recon}
    m.encoder.eval()
    real = p.encode(b.x)[1].detach()
    m.encoder.train()
    return matching(p, m.matcher(p.draw(len(real))), real)


def gmmn_ae_as_published(p: Plain, b: Seen) -> Losses:
    """Train layers of sigmoids; `lowest` and `highest` bound the encoder's layers that train."""
    settings = p.config.model.autoencoder
    up, down = list(p.model.encoder.body.mlp.layers), list(p.model.decoder.layers)
    done = (p.epoch - 1) / p.config.training.epochs / settings.share
    if done >= 1:
        real = b.x
        for layer in up:
            real = torch.sigmoid(layer(real)).detach()
        z = p.draw(len(real))
        for layer in p.model.matcher.layers[:-1]:
            z = p.dropped(torch.relu(layer(z)), p.config.model.matcher.dropout)
        return matching(p, torch.sigmoid(p.model.matcher.layers[-1](z)), real)
    lowest = int(done * (len(up) + 1))
    highest = lowest + 1
    if lowest == len(up):
        lowest, highest = 0, len(up)
    costs = []
    size = settings.batch_size
    for clean, noisy in zip(b.x.split(size), b.noisy.split(size), strict=True):
        x = clean
        for layer in up[:lowest]:
            x = torch.sigmoid(layer(x)).detach()
        h = x if lowest > 0 else noisy
        for i in range(lowest, highest):
            h = torch.sigmoid(up[i](p.dropped(h, p.config.model.dropout) if i > 0 else h))
        for layer in down[len(down) - highest : len(down) - lowest]:
            h = torch.sigmoid(layer(h))
        costs.append(binary_cross_entropy(h, x, reduction="none").sum(dim=1).mean())
        p.descend("reconstruction", costs[-1], p.model.encoder, p.model.decoder)
    return {"train/recon": torch.stack(costs).mean()}


def matching(p: Plain, fake: Tensor, real: Tensor) -> Losses:
    apart = torch.clamp(2 * real.var(dim=0).sum(), min=0.01)

    def alike(a: Tensor, b: Tensor) -> Tensor:
        squared = ((a[:, None] - b) ** 2).sum(dim=-1)
        return sum(torch.exp(-squared / (2 * s * apart)) for s in (0.01, 0.03, 0.1, 0.3, 1)).mean()

    distance = alike(fake, fake) + alike(real, real) - 2 * alike(fake, real)
    cost = torch.clamp(distance, min=1e-12).sqrt()
    p.descend("generator", cost, p.model.matcher)
    return {"train/gen_z": cost}


def classifier(p: Plain, b: Seen) -> Losses:
    logits = p.model.body(b.noisy, p.streams["noise"])
    cost = nll_loss(log_softmax(logits, dim=1), b.y)
    p.descend("classification", cost, p.model.body)
    return {"train/class": cost}


Step = Callable[[Plain, Seen], Losses]

STEP: dict[str, Step] = {
    "aae": aae,
    "label_regularised": label_regularised,
    "supervised": supervised,
    "semi_supervised": categorical,
    "clustering": categorical,
    "dimensionality_reduction": categorical,
    "vae": vae,
    "gan": gan,
    "gmmn_ae": gmmn_ae,
    "classifier": classifier,
}


# -- comparison ------------------------------------------------------------------------------


def ours(config: TrialConfig, monkeypatch: pytest.MonkeyPatch) -> list[Losses]:
    """Return the losses of every step of `fit`; validation between epochs is off to save time."""
    monkeypatch.setattr("aae_core.training.loop.validation_metrics", lambda *_: {})
    state, losses = start(config), []
    train_step = state.model.train_step

    def counted(*arguments: object) -> Losses:
        losses.append(train_step(*arguments))
        return losses[-1]

    monkeypatch.setattr(state.model, "train_step", counted)
    for _ in fit(state, images()):
        pass
    return losses


def compare(
    config: TrialConfig, monkeypatch: pytest.MonkeyPatch, step_of_reference: Step | None = None
) -> None:
    schedule = ScheduleConfig("step", drop_epochs=(DROP,), factor=FACTOR)
    epochs = EPOCHS[ARCHITECTURES[config.model.kind].labels]
    training = replace(config.training, epochs=epochs, schedule=schedule)
    config = replace(config, training=training)
    got, want = ours(config, monkeypatch), list(Plain(config, step_of_reference).train())
    assert len(got) == len(want) >= STEPS
    near, matched = dict(NEAR), 0
    for step, (losses, plain) in enumerate(zip(got, want, strict=True)):
        assert losses.keys() == plain.keys()
        if config.model.kind == "gmmn_ae" and "train/gen_z" in losses:
            near, matched = {"rel": NEAR_MOMENTS * GROWTH**matched}, matched + 1
        for name, loss in losses.items():
            wanted = pytest.approx(plain[name].item(), **near)
            assert loss.item() == wanted, f"{name} of step {step}"


def test_plain_reference_covers_every_architecture() -> None:
    assert STEP.keys() == set(KINDS)


@pytest.mark.parametrize(("kind", "encoder", "prior"), CASES)
def test_losses_match_plain_reference_for_every_case(
    kind: str, encoder: str, prior: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(trial(kind, encoder, prior), monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_match_plain_reference_with_adam(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(trial(kind, optimizer="adam"), monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_match_plain_reference_with_batch_norm_dropout_and_noise(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(dressed(trial(kind)), monkeypatch)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("kind", "reference"), [("gan", gan_as_published), ("gmmn_ae", gmmn_ae_as_published)]
)
def test_losses_match_plain_reference_with_the_authors_networks(
    kind: str, reference: Step, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(as_published(trial(kind, optimizer=optimizer)), monkeypatch, reference)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("kind", JOINED)
def test_losses_match_plain_reference_with_joint_phases(
    kind: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test Adam without batch norm.

    Batch norm cancels a bias, but Adam still moves that bias by its gradient's rounding error.
    """
    config = trial(kind, "gaussian", optimizer=optimizer)
    hard = dressed(config)
    if optimizer == "adam":
        hard = replace(hard, model=replace(hard.model, batch_norm="none"))
    for one in (config, hard):
        adversarial = replace(one.training.adversarial, lr=1.5 * one.training.adversarial.lr)
        training = replace(one.training, adversarial=adversarial, phases="joint")
        compare(replace(one, training=training), monkeypatch)


@pytest.mark.parametrize("kinds", [("sgd", "adam"), ("adam", "sgd")])
def test_losses_match_plain_reference_when_joint_phases_mix_optimizers(
    kinds: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sgd, adam = (trial("semi_supervised", optimizer=kind).training for kind in ("sgd", "adam"))
    of = {"sgd": sgd, "adam": adam}
    training = replace(of[kinds[0]], phases="joint", adversarial=of[kinds[1]].adversarial)
    compare(replace(trial("semi_supervised"), training=training), monkeypatch)


@pytest.mark.parametrize("heads", ["learned", "fixed"])
def test_losses_match_plain_reference_with_learned_and_fixed_heads(
    heads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test clusters without labels; fixed heads span one dimension each."""
    config = trial("dimensionality_reduction", labels=0, clusters=4, code_dim=4)
    model = replace(config.model, heads=HeadsConfig(heads, scale=2.0))
    compare(replace(config, model=model), monkeypatch)


def test_losses_match_plain_reference_when_all_labels_are_visible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compare(trial("semi_supervised", labels=None), monkeypatch)
