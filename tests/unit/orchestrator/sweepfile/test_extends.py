"""`extends`: a sweep file inherits another file's keys, and errors name the wrong file."""

from pathlib import Path

import pytest

from orchestrator.errors import Problem, SpecError
from orchestrator.sweepfile.loader import load_sweep, sweep_text
from orchestrator.sweepfile.spec import SweepSpec

BASE = """\
name: base
data: {name: digits}
model: {code_dim: 4, hidden: [100, 100]}
training:
  epochs: 6
  reconstruction: {lr: 1e-3}
search:
  trials: 10
  sampler: {kind: tpe, startup_trials: 3}
  space:
    model.prior.std: {float: [0.5, 20], log: true}
    model.code_dim: {int: [4, 8]}
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(**files: str) -> Path:
        (tmp_path / "base.yaml").write_text(BASE)
        for name, text in files.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return tmp_path / f"{next(iter(files))}.yaml"

    return write


def problems(path: Path, *overrides: str) -> list[Problem]:
    with pytest.raises(SpecError) as caught:
        load_sweep(path, overrides)
    return caught.value.problems


def test_extends_inherits_keys_that_the_file_omits(write) -> None:
    spec = load_sweep(write(small="extends: base.yaml\nname: small\ntraining: {epochs: 2}\n"))
    base = load_sweep(write(other=BASE))
    assert spec.name == "small"
    assert spec.training.epochs == 2
    assert spec.training.reconstruction == base.training.reconstruction
    assert spec.model == base.model
    assert spec.search == base.search


def test_extends_equals_one_file_with_the_same_keys(write) -> None:
    merged = BASE.replace("epochs: 6", "epochs: 2")
    extended = load_sweep(write(small="extends: base.yaml\ntraining: {epochs: 2}\n"))
    assert extended.sweep_id == load_sweep(write(whole=merged)).sweep_id


def test_extends_replaces_lists_and_parameters_whole(write) -> None:
    text = """\
extends: base.yaml
model: {hidden: [300]}
search:
  space:
    model.prior.std: {choice: [5.0, 10.0]}
"""
    spec = load_sweep(write(small=text))
    assert spec.model.hidden == (300,)
    assert spec.search.space["model.prior.std"].ends == (5.0, 10.0)
    assert spec.search.space["model.code_dim"].ends == (4, 8)


def test_extends_replaces_a_sampler_of_another_kind_whole(write) -> None:
    random = "extends: base.yaml\nsearch: {sampler: {kind: random}}\n"
    more = "extends: base.yaml\nsearch: {sampler: {startup_trials: 5}}\n"
    replaced, kept = load_sweep(write(a=random)).search, load_sweep(write(b=more)).search
    assert replaced.sampler.model_dump() == {"kind": "random"}
    assert kept.sampler.model_dump() == {"kind": "tpe", "startup_trials": 5}


@pytest.mark.parametrize(
    ("key", "gone"),
    [
        ("search: null", lambda spec: spec.search is None),
        ("model: {code_dim: null}", lambda spec: spec.model.code_dim == 8),
        (
            "search: {space: {model.code_dim: null}}",
            lambda spec: list(spec.search.space) == ["model.prior.std"],
        ),
    ],
)
def test_extends_drops_a_key_that_is_null(write, key: str, gone) -> None:
    spec: SweepSpec = load_sweep(write(small=f"extends: base.yaml\n{key}\n"))
    assert gone(spec)


def test_extends_follows_a_file_that_extends_another(write) -> None:
    path = write(
        top="extends: middle.yaml\nname: top\n",
        middle="extends: base.yaml\ntraining: {epochs: 3}\n",
    )
    spec = load_sweep(path)
    assert (spec.name, spec.training.epochs, spec.model.code_dim) == ("top", 3, 4)


def test_extends_error_names_the_file_and_line_of_the_wrong_key(write) -> None:
    path = write(
        top="extends: middle.yaml\nname: top\nsede: 1\n",
        middle="extends: wrong.yaml\n\nmodel: {code_dim: 0}\n",
        wrong=BASE.replace("epochs: 6", "epoch: 6"),
    )
    found = {p.path: p for p in problems(path)}
    assert found["sede"].line == 3
    assert found["training.epoch"].line is None
    assert found["training.epoch"].message.endswith("(from wrong.yaml:5)")
    assert found["model.code_dim"].message.endswith("(from middle.yaml:3)")


def test_extends_error_in_a_replaced_key_names_the_file_that_replaced_it(write) -> None:
    path = write(small="extends: base.yaml\nsearch: {space: {model.code_dim: {int: [0, 8]}}}\n")
    (problem,) = problems(path)
    assert problem.line == 2
    assert "from" not in problem.message


def test_override_wins_over_an_extended_file(write) -> None:
    path = write(small="extends: base.yaml\n")
    assert load_sweep(path, ["training.epochs=9"]).training.epochs == 9
    (problem,) = problems(path, "training.epochs=0")
    assert problem.message.endswith("(from --set training.epochs=0)")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "extends: a.yaml\n"}, "extends: refers to itself: a.yaml → a.yaml"),
        (
            {"a": "name: a\nextends: b.yaml\n", "b": "extends: a.yaml\n"},
            "extends: b.yaml:1: extends: refers to itself: a.yaml → b.yaml → a.yaml",
        ),
        ({"a": "extends: c.yaml\n"}, "extends: c.yaml: cannot be read: No such file or directory"),
        ({"a": "extends: [base.yaml]\n"}, "extends: must name one sweep file"),
        ({"a": "extends: b.yaml\n", "b": "name: b\n\t- x\n"}, "extends: b.yaml:2: not YAML"),
    ],
)
def test_extends_refuses_a_file_that_it_cannot_follow(
    write, files: dict[str, str], message: str
) -> None:
    path = write(**files)
    (problem,) = problems(path)
    assert problem.message.startswith(message)
    assert (
        problem.line
        == path.read_text()
        .splitlines()
        .index(next(line for line in path.read_text().splitlines() if line.startswith("extends")))
        + 1
    )


def test_extends_resolves_a_data_path_from_its_files_folder(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "base.yaml").write_text(
        "name: base\ndata: {name: arrays, path: images.npz}\n"
    )
    top = tmp_path / "top.yaml"
    top.write_text("extends: shared/base.yaml\n")
    assert load_sweep(top).data.path == str(tmp_path / "shared" / "images.npz")


def test_sweep_text_holds_every_extended_file(write) -> None:
    path = write(
        top="extends: middle.yaml\nname: top\n",
        middle="extends: base.yaml\ntraining: {epochs: 3}\n",
    )
    text = sweep_text(path)
    assert text.startswith("extends: middle.yaml\nname: top\n")
    assert "# extends: middle.yaml\nextends: base.yaml\n" in text
    assert text.endswith(f"# extends: base.yaml\n{BASE}")
