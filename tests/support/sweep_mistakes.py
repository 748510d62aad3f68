"""Sweep files with a mistake each, and what the loader says of them."""

# ruff: noqa: E501 - one mistake a line reads best

GOOD = """\
name: good
seed: 1
data: {name: digits}
model:
  encoder: {kind: universal}
  code_dim: 4
  prior: {std: 5}
training:
  epochs: 6
  reconstruction: {lr: 1e-3}
search:
  trials: 10_000
  sampler: {kind: tpe}
  balance: model.encoder.kind
  space:
    model.encoder.kind: {choice: [deterministic, universal]}
    model.encoder.noise_dim: {int: [2, 8], when: {model.encoder.kind: universal}}
    model.prior.std: {float: [0.5, 20], log: true}
confirm: {per: model.encoder.kind, seeds: 2}
"""


def edited(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


MISTAKES: list[tuple[str, str, str, int, str]] = [
    # keys
    ("epochs: 6", "epochs: 6\n  epoch: 7", "training.epoch", 10, "unknown key `epoch`; did you mean `epochs`?"),
    ("seed: 1", "sede: 1", "sede", 2, "unknown key `sede`; did you mean `seed`?"),
    ("{kind: tpe}", "{kind: tpe, zzz: 1}", "search.sampler.zzz", 13, "unknown key `zzz`; known are kind, startup_trials"),
    ("{kind: tpe}", "{kind: random, startup_trials: 1}", "search.sampler.startup_trials", 13, "unknown key `startup_trials`; known are kind"),
    ("seeds: 2", "seed: 2", "confirm.seed", 19, "unknown key `seed`; did you mean `seeds`?"),
    ("name: good\n", "", "name", 1, "is missing"),
    ("  trials: 10_000\n", "", "search.trials", 11, "is missing"),
    ("seed: 1", "seed: 1\nseed: 2", "seed", 3, "duplicate key `seed`; the first is on line 2"),
    ("seed: 1", "? [seed]\n: 1", "", 2, "a key must be a single word"),
    # types
    ("seed: 1", "seed: '5'", "seed", 2, "must be a whole number, not '5'"),
    ("seed: 1", "seed: 1.5", "seed", 2, "must be a whole number, not 1.5"),
    ("seed: 1", "seed: true", "seed", 2, "must be a whole number, not true"),
    ("seed: 1", "seed:", "seed", 2, "must be a whole number, not null"),
    ("seed: 1", "seed: 2026-01-31", "seed", 2, "must be a whole number, not '2026-01-31'"),
    ("seed: 1", f"seed: {'9' * 5000}", "seed", 2, "cannot be read as int"),
    ("seed: 1", "seed: !!python/name:os.system x", "seed", 2, "the tag tag:yaml.org,2002:python/name:os.system is not understood"),
    ("lr: 1e-3", "lr: .nan", "training.reconstruction.lr", 10, "must be a finite number, not NaN"),
    ("lr: 1e-3", "lr: 1e999", "training.reconstruction.lr", 10, "must be a finite number, not Infinity"),
    ("lr: 1e-3", "lr: fast", "training.reconstruction.lr", 10, "must be a number, not 'fast'"),
    ("name: good", "name: 12", "name", 1, "must be text, not 12"),
    ("prior: {std: 5}", "prior: 5", "model.prior", 7, "must be a mapping of `key: value`, not 5"),
    ("prior: {std: 5}", "hidden: 5", "model.hidden", 7, "must be a list, not 5"),
    ("prior: {std: 5}", "hidden:\n  - 5\n  - wide", "model.hidden", 9, "must be a whole number, not 'wide'"),
    ("{kind: tpe}", "tpe", "search.sampler", 13, "must be a mapping of `key: value`, not 'tpe'"),
    ("log: true", "log: 1", "search.space.model.prior.std.log", 18, "must be true or false, not 1"),
    # values
    ("name: good", "name: a/b", "name", 1, "must be 1 to 64 of the characters a-z, 0-9, `_` and `-`, not 'a/b'"),
    ("seed: 1", "seed: -1", "seed", 2, "must be at least 0, not -1"),
    ("{name: digits}", "{name: cifar}", "data.name", 3, "must be one of digits, mnist, fashion_mnist, svhn, tfd, arrays, not 'cifar'"),
    ("{name: digits}", "{name: arrays}", "data.path", 3, "give the .npz file with `name: arrays`, and only there"),
    ("std: 5", "std: -5", "model.prior.std", 7, "must be positive, not -5"),
    ("epochs: 6", "epochs: 0", "training.epochs", 9, "must be at least 1, not 0"),
    ("10_000", "0", "search.trials", 12, "must be at least 1, not 0"),
    ("seeds: 2", "seeds: 0", "confirm.seeds", 19, "must be at least 1, not 0"),
    ("{kind: tpe}", "{kind: magic}", "search.sampler.kind", 13, "must be one of 'tpe', 'gp', 'qmc', 'random', 'grid', not 'magic'"),
    ("{kind: tpe}", "{}", "search.sampler.kind", 13, "is missing"),
    ("seed: 1", "resources: {gpu: all}", "resources.gpu", 2, "must be 'auto', not 'all'"),
    ("seed: 1", "resources: {gpu: -1}", "resources.gpu", 2, "must be at least 0, not -1"),
    ("seed: 1", "resources: {pack: 0}", "resources.pack", 2, "must be at least 1, not 0"),
    ("seed: 1", "resources: {pack: all}", "resources.pack", 2, "must be 'auto', not 'all'"),
    # objective
    ("{kind: tpe}", "{kind: tpe}\n  objective: {metric: test/parzen_ll}", "search.objective.metric", 14, "search has no test data"),
    ("{kind: tpe}", "{kind: tpe}\n  objective: {metric: val/parzenll}", "search.objective.metric", 14, "unknown metric `val/parzenll`; did you mean `val/parzen_ll`?"),
    ("{kind: tpe}", "{kind: tpe}\n  objective: {metric: val/latent_std}", "search.objective.metric", 14, "is a diagnostic, not an objective"),
    ("{kind: tpe}", "{kind: tpe}\n  objective: {metric: val/recon, direction: maximize}", "search.objective.direction", 14, "must be minimize for val/recon, not 'maximize'"),
    # parameters
    ("[0.5, 20]", "[20, 0.5]", "search.space.model.prior.std", 18, "low 20 > high 0.5; swap them"),
    ("[0.5, 20]", "[0, 20]", "search.space.model.prior.std", 18, "a `log` range needs bounds above 0, not 0"),
    ("[0.5, 20], log: true", "[-1, 20]", "search.space.model.prior.std", 18, "must be positive, not -1.0"),
    ("[0.5, 20]", "[0.5]", "search.space.model.prior.std", 18, "has too few entries"),
    ("[0.5, 20]", "[0.5, 1, 2]", "search.space.model.prior.std", 18, "must have at most 2 entries, not [0.5, 1, 2]"),
    ("[0.5, 20]", "[0.5, .inf]", "search.space.model.prior.std", 18, "must be a finite number, not Infinity"),
    ("float: [0.5, 20]", "flaot: [0.5, 20]", "search.space.model.prior.std", 18, "give exactly one of `choice`, `int` and `float`"),
    ("float: [0.5, 20]", "float: [0.5, 20], int: [1, 2]", "search.space.model.prior.std", 18, "give exactly one of `choice`, `int` and `float`"),
    ("int: [2, 8]", "int: [2.5, 8]", "search.space.model.encoder.noise_dim", 17, "must be a whole number, not 2.5"),
    ("int: [2, 8]", "int: [0, 8]", "search.space.model.encoder.noise_dim", 17, "must be at least 1, not 0"),
    ("int: [2, 8]", "float: [2, 8]", "search.space.model.encoder.noise_dim", 17, "must be a whole number, not 2.0; must be a whole number, not 8.0"),
    ("int: [2, 8]", "int: [2, 8], log: true, step: 2", "search.space.model.encoder.noise_dim", 17, "`log` and `step` exclude each other; drop one"),
    ("[deterministic, universal]", "[universal, universal]", "search.space.model.encoder.kind", 16, "the choice 'universal' is given twice"),
    ("[deterministic, universal]", "[universal, foo]", "search.space.model.encoder.kind", 16, "must be 'deterministic', 'gaussian' or 'universal', not 'foo'"),
    ("[deterministic, universal]", "[]", "search.space.model.encoder.kind", 16, "must have 1 entries or more"),
    ("model.prior.std:", "model.prior.sdt:", "search.space.model.prior.sdt", 18, "not a setting of a trial; did you mean `model.prior.std`?"),
    ("model.prior.std:", "seed:", "search.space.seed", 18, "`seed` cannot be searched"),
    # conditions
    ("when: {model.encoder.kind: universal}", "when: {model.encoder.kind: gaussian}", "search.space.model.encoder.noise_dim.when.model.encoder.kind", 17, "is never 'gaussian'; its choices are 'deterministic', 'universal'"),
    ("when: {model.encoder.kind: universal}", "when: {model.encoder.kind: []}", "search.space.model.encoder.noise_dim.when.model.encoder.kind", 17, "names no value: it can never hold"),
    ("when: {model.encoder.kind: universal}", "when: {model.code_dim: 4}", "search.space.model.encoder.noise_dim.when.model.code_dim", 17, "is not in the space, so it never varies"),
    ("when: {model.encoder.kind: universal}", "when: {model.prior.std: 1}", "search.space.model.encoder.noise_dim.when.model.prior.std", 17, "is a float range, which hits no single value; use `choice` or `int`"),
    ("when: {model.encoder.kind: universal}", "when: {model.encoder.noise_dim: 2}", "search.space.model.encoder.noise_dim.when", 17, "refers to itself: model.encoder.noise_dim → model.encoder.noise_dim"),
    ("when: {model.encoder.kind: universal}", "when: universal", "search.space.model.encoder.noise_dim.when", 17, "must be a mapping of `key: value`, not 'universal'"),
    # references to parameters
    ("{kind: tpe}", "{kind: tpe}\n  also: [val/recon]", "search.also", 14, "unknown key `also`; its name is `secondary_objectives` now"),
    ("{kind: tpe}", "{kind: tpe}\n  start: [{}]", "search.start", 14, "its name is `initial_trials` now"),
    ("{kind: tpe}", "{kind: tpe}\n  learn_from: other", "search.learn_from", 14, "its name is `warm_start` now"),
    ("{kind: tpe}", "{kind: tpe}\n  secondary_objectives: [val/latent_std]", "search.secondary_objectives", 14, "`val/latent_std` is a diagnostic, not an objective"),
    ("{kind: tpe}", "{kind: tpe}\n  secondary_objectives: [val/error]", "search.secondary_objectives", 14, "`val/error` is not measured on all its models; choose one of val/"),
    ("{kind: tpe}", "{kind: tpe}\n  secondary_objectives: [val/recon, val/recon]", "search.secondary_objectives", 14, "names an objective twice"),
    ("{kind: tpe}", "{kind: tpe}\n  secondary_objectives: [val/latent_mmd]\n  patience: 3", "search.patience", 15, "several objectives have no single best"),
    ("{kind: tpe}", "{kind: tpe}\n  secondary_objectives: [val/latent_mmd]\n  target: 3", "search.target", 15, "several objectives have no single best"),
    ("{kind: tpe}", "{kind: tpe}\n  constraints: {val/latent_sdt: [0, 1]}", "search.constraints.val/latent_sdt", 14, "is not measured; did you mean `val/latent_std`?"),
    ("{kind: tpe}", "{kind: tpe}\n  constraints: {val/error: [0, 1]}", "search.constraints.val/error", 14, "is not measured"),
    ("{kind: tpe}", "{kind: tpe}\n  constraints: {val/recon: [2, 1]}", "search.constraints.val/recon", 14, "must be [low, high]; 2 is not below 1"),
    ("{kind: tpe}", "{kind: tpe}\n  constraints: {val/recon: [null, null]}", "search.constraints.val/recon", 14, "must have a low end, a high end, or both"),
    ("{kind: tpe}", "{kind: tpe}\n  initial_trials: [{model.prior.std: 21}]", "search.initial_trials.model.prior.std", 14, "21 is not in its range"),
    ("{kind: tpe}", "{kind: tpe}\n  initial_trials: [{model.encoder.kind: gaussian}]", "search.initial_trials.model.encoder.kind", 14, "'gaussian' is not in its range"),
    ("{kind: tpe}", "{kind: tpe}\n  initial_trials: [{}, {model.code_dim: 4}]", "search.initial_trials.model.code_dim", 14, "is not in the space"),
    ("{kind: tpe}", "{kind: tpe}\n  budget: {}", "search.budget", 14, "must say `hours` or `gpu_hours`"),
    ("seeds: 2", "seeds: 2, race: 2", "confirm.race", 19, "must be below confirm.seeds, 2"),
    ("seeds: 2", "seeds: 2, race: 1", "confirm.race", 19, "must be at least 2, not 1"),
    ("seeds: 2", "seeds: 2, margin: 0", "confirm.margin", 19, "must be more than 0"),
    ("seeds: 2", "seeds: 2, baseline: 1", "confirm.baseline", 19, "must be true or false"),
    ("balance: model.encoder.kind", "balance: model.encoder", "search.balance", 14, "`model.encoder` is not in the search space; did you mean `model.encoder.kind`?"),
    ("balance: model.encoder.kind", "balance: model.prior.std", "search.balance", 14, "`model.prior.std` is a range; name a parameter with `choice`"),
    ("per: model.encoder.kind", "per: model.encoder.noise_dim", "confirm.per", 19, "`model.encoder.noise_dim` is a range"),
]  # fmt: skip

TOGETHER: list[tuple[str, list[tuple[str, int, str]]]] = [
    (
        "name: x\ndata: {labels: 10}",
        [("data.labels", 2, "aae reads no labels; drop this")],
    ),
    (
        "name: x\nmodel:\n  kind: vae\n  prior: {kind: uniform}\n  code_dim: 0",
        [
            ("model.encoder.kind", 2, "vae accepts gaussian, not deterministic"),
            ("model.prior.kind", 4, "vae accepts gaussian, mixture, not uniform"),
            ("model.code_dim", 5, "must be at least 1, not 0"),
        ],
    ),
    (  # a default contradicts a given setting
        "name: x\ndata: {standardise: true}",
        [("model.output", 1, "standardised pixels leave [0, 1]; set `linear`")],
    ),
    (
        "name: x\nmodel:\n  kind: gmmn_ae\ntraining: {epochs: 1}",
        [("training.epochs", 4, "gmmn_ae needs at least 2")],
    ),
    (
        "name: x\nmodel:\n  heads: {kind: glued}\n  prior: {std: 0, widht: 1}",
        [
            ("model.heads.kind", 3, "must be 'learned' or 'fixed', not 'glued'"),
            ("model.prior.widht", 4, "unknown key `widht`; did you mean `width`?"),
            ("model.prior.std", 4, "must be positive, not 0"),
        ],
    ),
]
SPACES: list[tuple[str, str, list[tuple[str, str]]]] = [  # base, space, problems
    (
        "{kind: vae, encoder: {kind: gaussian}}",
        "model.encoder.kind: {choice: [deterministic, gaussian]}",
        [("model.encoder.kind", "vae accepts gaussian, not deterministic")],
    ),
    (
        "{code_dim: 8}",
        "model.prior.kind: {choice: [gaussian, mixture]}",
        [("model.prior.kind", "with 'mixture', model.code_dim: must be 2, the dimension of the")],
    ),
    (
        "{code_dim: 2}",
        "model.prior.kind: {choice: [gaussian, mixture]}\n    model.code_dim: {int: [2, 8]}",
        [("model.code_dim", "where model.prior.kind is 'mixture': must be 2, the dimension of th")],
    ),
    (
        "{code_dim: 8}",
        "model.prior.kind: {choice: [gaussian, mixture]}\n"
        "    model.code_dim: {choice: [2], when: {model.prior.kind: mixture}}",
        [],
    ),
    (
        "{encoder: {kind: gaussian}}",
        "model.kind: {choice: [aae, vae]}\n    model.encoder.kind: {choice: [gaussian, universal]}",
        [("model.encoder.kind", "where model.kind is 'vae': vae accepts gaussian, not uni")],
    ),
    (
        "{encoder: {kind: gaussian}}",
        "model.kind: {choice: [aae, vae]}\n"
        "    model.encoder.kind: {choice: [gaussian, universal], when: {model.kind: aae}}",
        [],
    ),
    (
        "{kind: gmmn_ae}",
        "training.epochs: {int: [1, 5]}",
        [("training.epochs", "gmmn_ae needs at least 2")],
    ),
]
