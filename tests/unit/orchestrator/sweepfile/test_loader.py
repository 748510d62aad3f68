"""Mistakes in a sweep file: the path, the line and the message of each report."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_mistakes import GOOD, MISTAKES, SPACES, TOGETHER, edited

from orchestrator.errors import Problem, SpecError
from orchestrator.sweepfile.loader import load_sweep, parse_sweep
from orchestrator.sweepfile.parameters import Choice, IntRange
from orchestrator.sweepfile.spec import SweepSpec


def problems(text: str, *overrides: str) -> list[Problem]:
    with pytest.raises(SpecError) as caught:
        parse_sweep(text, "sweep.yaml", overrides)
    return caught.value.problems


def only(text: str, *overrides: str) -> Problem:
    found = problems(text, *overrides)
    assert len(found) == 1, found
    return found[0]


def test_loader_accepts_a_valid_file() -> None:
    spec = parse_sweep(GOOD, "sweep.yaml")
    assert spec.search.trials == 10_000
    assert spec.training.reconstruction.lr == 1e-3
    assert spec.model.prior.std == 5.0


# old text, new text, path, line, message


@pytest.mark.parametrize(
    ("old", "new", "path", "line", "message"), MISTAKES, ids=[new[:50] for _, new, *_ in MISTAKES]
)
def test_loader_names_path_line_and_message_of_a_mistake(
    old: str, new: str, path: str, line: int, message: str
) -> None:
    problem = only(edited(old, new))
    assert (problem.path, problem.line) == (path, line)
    assert message in problem.message


@pytest.mark.parametrize(("text", "expected"), TOGETHER)
def test_loader_refuses_settings_that_contradict_each_other(
    text: str, expected: list[tuple[str, int, str]]
) -> None:
    found = problems(text)
    assert [(p.path, p.line) for p in found] == [(path, line) for path, line, _ in expected]
    for problem, (_, _, message) in zip(found, expected, strict=True):
        assert problem.message.startswith(message)


@pytest.mark.parametrize(("base", "space", "expected"), SPACES)
def test_loader_refuses_space_values_that_contradict_the_settings(
    base: str, space: str, expected: list[tuple[str, str]]
) -> None:
    text = f"name: x\nmodel: {base}\nsearch:\n  trials: 1\n  space:\n    {space}\n"
    if not expected:
        assert parse_sweep(text, "sweep.yaml").search
        return
    found = problems(text)
    assert [p.path for p in found] == [f"search.space.{path}" for path, _ in expected]
    for problem, (_, message) in zip(found, expected, strict=True):
        assert problem.message.startswith(message)


NO_SWEEP: list[tuple[str, int | None, str]] = [
    ("", None, "is empty"),
    ("# nothing but words\n", None, "is empty"),
    ("\n- name: x\n", 2, "must be a mapping"),
    ("name: x\n\tseed: 1\n", 2, "indent with spaces, not tabs"),
    ("name: x\nseed: [1, 2\n", 3, "while parsing a flow sequence"),
    ("name: x\nseed: a: b\n", 2, "mapping values are not allowed here"),
    ("name: x\nseed: *other\n", 2, "found undefined alias"),
    ("name: x\n---\nname: y\n", 2, "but found another document"),
    ("name: x\nseed: \x00\n", 2, "control character"),
    ("name: &a [*a]\n", 1, "nested deeper"),
    ("name: " + "[" * 30 + "]" * 30, 1, "nested deeper"),
    ("name: " + "[" * 2000, None, "nested deeper"),
]


@pytest.mark.parametrize(("text", "line", "message"), NO_SWEEP, ids=[t[:20] for t, *_ in NO_SWEEP])
def test_loader_refuses_text_that_is_not_a_sweep(text: str, line: int | None, message: str) -> None:
    problem = only(text)
    assert (problem.path, problem.line) == ("", line)
    assert message in problem.message


def test_loader_accepts_aliases_but_no_alias_bombs() -> None:
    spec = parse_sweep("name: x\nmodel: {code_dim: &n 3, hidden: [*n, *n]}", "sweep.yaml")
    assert spec.model.hidden == (3, 3)
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    assert "aliases expanded" in only("\n".join(["a0: &a0 [x]", *levels])).message


def test_loader_reports_all_mistakes_in_the_order_of_the_file() -> None:
    text = """\
name: A/B
data: {name: cifar}
model: {code_dim: x, code_dmi: 3}
training: {epochs: 0, batch_size: x}
search:
  trials: 0
  balance: model.encoder.knd
  space:
    model.encoder.kind: {choice: [deterministic, foo]}
    model.prior.std: {float: [3, 1]}
    model.code_dim: {int: [1, 4], when: {model.prior.sdt: 2}}
confirm: {per: model.prior.std, seeds: -1}
resources: {gpu: -1}
"""
    assert [(p.line, p.path) for p in problems(text)] == [
        (1, "name"),
        (2, "data.name"),
        (3, "model.code_dim"),
        (3, "model.code_dmi"),
        (4, "training.batch_size"),
        (4, "training.epochs"),
        (6, "search.trials"),
        (7, "search.balance"),
        (9, "search.space.model.encoder.kind"),
        (10, "search.space.model.prior.std"),
        (11, "search.space.model.code_dim.when.model.prior.sdt"),
        (12, "confirm.seeds"),
        (13, "resources.gpu"),
    ] or problems(text)


def test_loader_refuses_a_circle_of_several_conditions() -> None:
    text = """\
name: x
search:
  trials: 1
  space:
    model.code_dim: {int: [1, 2], when: {training.epochs: 3}}
    training.epochs: {int: [3, 4], when: {model.code_dim: 2}}
"""
    problem = only(text)
    assert problem.line in (5, 6)
    assert problem.message.startswith("refers to itself: ")


def test_grid_sampler_needs_values_to_enumerate() -> None:
    grid = edited("{kind: tpe}", "{kind: grid}")
    assert {(p.path, p.message) for p in problems(grid)} == {
        ("search.space.model.prior.std", "a grid needs `choice`, or `int` without `log`"),
        (
            "search.space.model.encoder.noise_dim.when",
            "a grid cannot have `when`: it would repeat trials",
        ),
        ("search.balance", "a grid is balanced already; drop this"),
    }


def test_confirm_per_needs_a_search() -> None:
    problem = only("name: x\nconfirm: {per: model.encoder.kind}\n")
    assert (problem.path, problem.line) == ("confirm.per", 2)
    assert "is not in the search space" in problem.message


def test_spec_error_reads_as_file_line_path_message() -> None:
    with pytest.raises(SpecError) as caught:
        parse_sweep(edited("seed: 1", "seed: -1"), "sweeps/a.yaml")
    assert str(caught.value) == "sweeps/a.yaml:2: seed: must be at least 0, not -1"


# --- files


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "sweep.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_loader_ignores_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_sweep(path) == parse_sweep(GOOD, "text")


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"name: x\n# caf\xe9\n", 2, "is not UTF-8"),
        (b"#" * 300_000, None, "larger than 256 KiB"),
    ],
)
def test_loader_refuses_a_file_that_is_not_text(
    tmp_path: Path, content: bytes, line: int | None, message: str
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        load_sweep(written(tmp_path, content))
    assert caught.value.problems[0].line == line


def test_loader_refuses_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        load_sweep(tmp_path / "no.yaml")
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        load_sweep(tmp_path)


def test_relative_data_path_starts_at_the_sweep_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    path = written(tmp_path, "name: own\ndata: {name: arrays, path: mine.npz}\n")
    assert load_sweep(path).data.path == str(tmp_path / "mine.npz")
    assert load_sweep(path, ["data.path=/a/b.npz"]).data.path == "/a/b.npz"
    assert load_sweep(path, ["data.path=b.npz"]).data.path == str(elsewhere / "b.npz")
    assert load_sweep(path, ["data.path=~/b.npz"]).data.path == str(Path.home() / "b.npz")
    assert load_sweep(path, ["data.path=~nobody-here/b.npz"]).data.path is not None


# --- overrides


def overridden(*overrides: str) -> SweepSpec:
    return parse_sweep(GOOD, "sweep.yaml", overrides)


def test_overrides_are_parsed_as_yaml() -> None:
    spec = overridden(
        "model.prior.std=1e-1",
        "model.hidden=[7, 5]",
        "training.schedule.kind=cosine",
        "search.budget.hours=2",
        "search.pruner={kind: median}",
        "name=other",
    )
    assert spec.model.prior.std == 0.1
    assert spec.model.hidden == (7, 5)
    assert spec.training.schedule.kind == "cosine"
    assert (spec.search.budget.hours, spec.search.pruner.kind, spec.name) == (
        2.0,
        "median",
        "other",
    )


def test_overrides_reach_into_the_space() -> None:
    spec = overridden(
        "search.space.model.code_dim={int: [4, 8]}",
        "search.space.model.prior.std.float=[1, 2]",
        "search.space.model.encoder.noise_dim.when.model.encoder.kind=[universal]",
    )
    space = spec.search.space
    assert space["model.code_dim"] == IntRange(int=(4, 8))
    assert space["model.prior.std"].ends == (1.0, 2.0)
    assert space["model.encoder.noise_dim"].when == {"model.encoder.kind": ("universal",)}
    assert isinstance(space["model.encoder.kind"], Choice)


def test_last_override_of_a_key_wins() -> None:
    assert overridden("seed=5", "seed=6").seed == 6


def test_override_with_null_removes_the_search() -> None:
    assert overridden("search=null", "confirm.per=null").search is None


@pytest.mark.parametrize(
    ("override", "path", "message"),
    [
        ("seed", "", "--set seed: write key.path=value"),
        ("=5", "", "--set =5: write key.path=value"),
        ("model..std=5", "", "write key.path=value"),
        ("seed=x", "seed", "must be a whole number, not 'x' (from --set seed=x)"),
        ("seed=[1", "seed", "not YAML"),
        ("name.first=x", "name.first", "`name` is not a mapping; set it as a whole (from --set"),
        ("model.hidden.0=x", "model.hidden", "must be a list"),
        ("model.prior={std: 1, std: 2}", "model.prior", "duplicate key `std`"),
        ("model.prior={std: -1}", "model.prior.std", "must be positive, not -1 (from --set model"),
        ("modle.code_dim=3", "modle", "unknown key `modle`; did you mean `model`?"),
        ("search.space.model.cod_dim={int: [1, 2]}", "search.space.model.cod_dim", "did you mean"),
    ],
)
def test_loader_names_a_wrong_override(override: str, path: str, message: str) -> None:
    problem = only(GOOD, override)
    assert (problem.path, problem.line) == (path, None)
    assert message in problem.message


def test_override_replaces_a_wrong_value_of_the_file() -> None:
    broken = edited("std: 5", "std: -5")
    assert parse_sweep(broken, "sweep.yaml", ["model.prior.std=3"]).model.prior.std == 3.0


# --- laws

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
PATHS = (
    "name", "data", "data.path", "model", "model.hidden", "model.prior.std", "training.schedule",
    "search", "search.space", "search.space.model.code_dim", "search.space.model.code_dim.int",
    "search.space.model.encoder.kind.choice", "search.balance", "search.sampler", "search.budget",
    "search.objective.metric", "confirm", "confirm.per", "resources.gpu", "evaluate.parzen",
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(path=st.sampled_from(PATHS), value=anything)
def test_override_with_any_value_loads_or_is_explained(path: str, value: Any) -> None:
    override = f"{path}={json.dumps(value)}"
    try:
        spec = parse_sweep(GOOD, "sweep.yaml", [override])
    except SpecError as error:
        found = error.problems
    else:
        found = []
        resolved = spec.resolved()
        assert SweepSpec.of(resolved).resolved() == resolved
    assert not any("Input should" in problem.message for problem in found)


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=40) | st.text("ab:{}[],&*!|>-? \n\t#'\"%", max_size=40))
def test_loader_raises_spec_error_on_random_text(text: str) -> None:
    with pytest.raises(SpecError):
        parse_sweep(text, "sweep.yaml")


def test_loader_imports_no_heavy_package() -> None:
    heavy = ["torch", "ray", "mlflow", "optuna", "pandas", "plotly"]
    found = f"[m for m in {heavy} if m in sys.modules]"
    code = f"import orchestrator.sweepfile.loader, sys; print({found})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


# -- numbers beyond their types ----------------------------------------------------------------

NUMBERS: list[tuple[str, str, str]] = [  # key, value, message
    ("resources.cpu", "1e-9", "must be at least 0.0001"),
    ("resources.cpu", "0.00015", "must have at most 4 decimals"),
    ("resources.cpu", "1e400", "must be a finite number"),
    ("resources.cpu", ".nan", "must be a finite number"),
    ("resources.cpu", "1e12", "must be at most 100,000,"),
    ("resources.gpu", "1e-9", "must be 0 or at least 0.0001"),
    ("resources.gpu", "1.5", "must be a whole number above 1"),
    ("resources.gpu", "0.33333", "must have at most 4 decimals"),
    ("resources.gpu", "-.inf", "must be a finite number"),
    ("resources.pack", "4294967296", "must be at most 2,147,483,647"),
    ("seed", "9223372036854775808", "must be a whole number below 2^63 in size"),
    ("seed", f"0x{'f' * 6000}", "must be a whole number below 2^63 in size"),
    ("seed", "9" * 6000, "cannot be read as int"),
    ("training.epochs", "2147483648", "must be at most 2,147,483,647"),
    ("training.reconstruction.lr", "1e-320", "must be 0 or from 1.2e-38 to 1.7e+38"),
    ("training.input_noise", "1e39", "must be 0 or from 1.2e-38 to 1.7e+38"),
    ("model.hidden", "[8, 99999999999]", "must be at most 2,147,483,647"),
    ("search.trials", "2147483648", "must be at most 2,147,483,647"),
    ("search.budget.hours", "1e-320", "must be at least 0.0001"),
    ("search.budget.hours", "1e39", "must be at most 1,000,000"),
    ("confirm.seeds", "2147483647", "must be at most 10,000"),
    ("evaluate.parzen.samples", "2147483648", "must be at most 2,147,483,647"),
    ("search.space.model.prior.std", "{float: [1e-320, 1]}", "must be 0 or from 1.2e-38"),
    ("search.space.model.prior.std", "{float: [1, 1e400]}", "must be a finite number"),
    ("search.space.model.prior.std", "{float: [0, 1], log: true}", "needs bounds above 0"),
    ("search.space.model.prior.std", "{choice: [1.0, .inf]}", "must be a finite number"),
    ("search.space.model.code_dim", "{int: [1, 2147483648]}", "must be at most 2,147,483,647"),
    ("search.space.model.code_dim", "{int: [1, 99999999999999999999]}", "below 2^63 in size"),
]


@pytest.mark.parametrize(
    ("key", "value", "message"), NUMBERS, ids=[f"{k}={v[:30]}" for k, v, _ in NUMBERS]
)
def test_loader_refuses_numbers_that_a_trial_cannot_hold(
    key: str, value: str, message: str
) -> None:
    problem = only(
        GOOD.replace("balance: model.encoder.kind", "budget: {gpu_hours: 1}"), f"{key}={value}"
    )
    assert problem.path == key
    assert message in problem.message
    assert "\n" not in problem.message


def test_loader_names_the_line_of_a_bound_beyond_its_type() -> None:
    problem = only(edited("code_dim: 4", "code_dim: 99999999999999999999"))
    assert (problem.path, problem.line) == ("model.code_dim", 6)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("resources.cpu", "0.0001"),
        ("resources.cpu", "2.5"),
        ("resources.gpu", "0"),
        ("resources.gpu", "0.25"),
        ("resources.gpu", "2"),
        ("seed", "9223372036854775807"),
        ("training.epochs", "2147483647"),
        ("model.prior.std", "1e-30"),
    ],
)
def test_loader_accepts_numbers_at_the_ends_of_their_types(key: str, value: str) -> None:
    assert overridden(f"{key}={value}")


def test_grid_too_large_to_list_is_refused() -> None:
    text = (
        "name: x\nsearch:\n  trials: 3\n  sampler: {kind: grid}\n"
        "  space: {model.code_dim: {int: [1, 1001]}, training.epochs: {int: [1, 1000]}}\n"
    )
    problem = only(text)
    assert (problem.path, problem.line) == ("search.space", 5)
    assert problem.message.startswith("a grid of 1,001,000 combinations")


# -- invisible characters and look-alikes ------------------------------------------------------

ODD: list[tuple[str, int, str]] = [
    ("name:\u00a0x\ndata: {name: digits}\n", 1, "a no-break space (U+00A0) after `name:`"),
    ("name:\u00a0x\ndata:\u00a0{name: digits}\n", 1, "(also on line 2)"),
    ("name\uff1a x\nseed: 1\n", 1, "a fullwidth colon (U+FF1A) after `name`; type a plain : there"),
    ("name: x\nmodel: \u3000{code_dim: 2}\n", 2, "an ideographic space (U+3000) after `model:`"),
    ("name: x\n\u200e\nseed: 2\n", 2, "a left-to-right mark (U+200E) at the start of the line"),
    ("name: x\u0085seed: 2\n", 1, "a next-line character (U+0085) after `x`; end the line there"),
    ("name: x\nmodel:\n\tcode_dim: 2\n", 3, "a tab (U+0009) at the start of the line; type spaces"),
    ("name: x\nmodel:\n  code_dim:\t2\n", 3, "a tab (U+0009) after `code_dim:`; type spaces there"),
    ("name: x\nseed: \u0007\n", 2, "it holds a control character (U+0007); delete it"),
    ("name: \u200bx\n", 1, "has a zero width space (U+200B) after `name:`; delete it"),
    ("name: x\nmo\u00addel: {}\n", 2, "has a soft hyphen (U+00AD) after `mo`; delete it"),
    ("name: \u201cx\u201d\n", 1, 'a left double quotation mark (U+201C) after `name:`; type a plain "'),  # noqa: E501
    ("name: x\nmodel: {prior: {kind: \u2018gaussian\u2019}}\n", 2, "a left single quotation mark"),
    ("name: x\nmodel: {code_dim: \u22122}\n", 2, "a minus sign (U+2212) after `{code_dim:`"),
    ("name: x\nmodel: {code_dim: \uff12}\n", 2, "a fullwidth digit two (U+FF12)"),
    ("name: x\nsearch:\n\u00a0\u00a0trials: 2\n", 3, "a no-break space (U+00A0) at the start"),
    ("name: x\u202e\n", 1, "a right-to-left override (U+202E) after `x`; delete it"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "message"), ODD, ids=[ascii(t)[:40] for t, *_ in ODD])
def test_loader_names_an_invisible_character_and_its_line(
    text: str, line: int, message: str
) -> None:
    problem = only(text)
    assert problem.line == line
    assert message in problem.message


def test_two_byte_order_marks_are_named() -> None:
    missing, unknown = problems("\ufeff\ufeffname: x\n")
    assert missing.line == unknown.line == 1
    assert "a byte order mark (U+FEFF) at the start of the line; delete it" in unknown.message


@pytest.mark.parametrize(
    "text",
    [
        "name: x # a note with\u00a0a no-break space\nmodel: {code_dim: 0}\n",
        "name: x\nmodel: {prior: {kind: caf\u00e9}}\n",
        "name: x\ndata: {name: arrays, path: a\u202fb.npz}\nmodel: {code_dim: 2\n",
    ],
)
def test_error_omits_characters_that_are_not_its_cause(text: str) -> None:
    assert "U+" not in only(text).message


def test_quoted_path_may_hold_any_space() -> None:
    text = "name: x\ndata: {name: arrays, path: '/a\u202fb.npz'}\n"
    assert parse_sweep(text, "sweep.yaml").data.path == "/a\u202fb.npz"


def test_override_with_a_look_alike_is_named() -> None:
    assert "a minus sign (U+2212)" in only(GOOD, "model.code_dim=\u22124").message
