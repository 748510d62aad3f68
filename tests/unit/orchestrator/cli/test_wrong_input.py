"""Wrong input: a message in the author's words, exit code 2, and nothing started."""

import re
from pathlib import Path
from typing import Any

import pytest
from sweep_command import aae

COMMANDS = ("validate", "plan", "train", "run")

# mistake: (valid text, wrong text), path and line of the problem, words of the message
WRONG = {
    "unknown key": (("epochs:", "epoch:"), "training.epoch", 5, "did you mean `epochs`?"),
    "wrong type": (("trials: 3", "trials: many"), "search.trials", 9, "not 'many'"),
    "reversed bounds": (("[0.5, 8]", "[8, 0.5]"), "search.space.model.prior.std", 12, "swap them"),
    "unknown data set": (("digits", "mnits"), "data.name", 2, "mnist, fashion"),
    "when on a missing parameter": (
        ("log: true}", "when: {model.encoder.kind: universal}}"),
        "search.space.model.prior.std.when.model.encoder.kind",
        12,
        "is not in the space",
    ),
    "not YAML": (("search:", "search: ["), "", 10, "not YAML"),
    "duplicate key": (("name: tiny", "name: tiny\nname: other"), "name", 2, "first is on line 1"),
    "no trials": (("trials: 3", "trials: 0"), "search.trials", 9, "at least 1"),
    "a name with a slash": (("name: tiny", "name: a/b"), "name", 1, "a-z, 0-9"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_commands_refuse_a_wrong_file_with_its_line(
    sweep_file: Path, home: Path, command: str, wrong: Any
) -> None:
    (sound, broken), path, line, words = wrong
    sweep_file.write_text(sweep_file.read_text().replace(sound, broken, 1))
    ended = aae(command, sweep_file)
    assert ended.code == 2
    assert ended.out == ""
    assert re.search(rf"^{sweep_file}:{line}: {re.escape(path)}.*{re.escape(words)}", ended.err)
    assert not home.exists()


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_validate_json_reports_the_same_problem(sweep_file: Path, wrong: Any) -> None:
    (sound, broken), path, line, words = wrong
    sweep_file.write_text(sweep_file.read_text().replace(sound, broken, 1))
    ended = aae("validate", sweep_file, "--json")
    assert (ended.code, ended.err) == (2, "")
    assert ended.document["ok"] is False
    (error,) = ended.document["errors"]
    assert (error["path"], error["line"]) == (path, line)
    assert words in error["message"]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_report_all_problems_together(sweep_file: Path, command: str) -> None:
    text = sweep_file.read_text().replace("trials: 3", "trials: 0").replace("digits", "mnits")
    sweep_file.write_text(text)
    ended = aae(command, sweep_file, "--set", "training.epochs=-1")
    assert ended.code == 2
    assert [line.split(": ")[1] for line in ended.err.splitlines()] == [
        "data.name",
        "search.trials",
        "training.epochs",
    ]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epochs", "write key.path=value"),
        ("training.epoch=3", "did you mean `epochs`?"),
        ("training.epochs=[", "not YAML"),
        ("training.epochs=soon", "not 'soon'"),
        ("name.deeper=3", "is not a mapping"),
    ],
)
def test_commands_name_a_wrong_override(
    sweep_file: Path, home: Path, command: str, override: str, words: str
) -> None:
    ended = aae(command, sweep_file, "--set", override)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err
    assert f"--set {override}" in ended.err
    assert not home.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_a_missing_file(tmp_path: Path, home: Path, command: str) -> None:
    ended = aae(command, tmp_path / "missing.yaml")
    assert ended.code == 2
    assert ended.err == f"{tmp_path / 'missing.yaml'}: cannot be read: No such file or directory\n"
    assert not home.exists()


def test_validate_accepts_a_valid_file(sweep_file: Path, home: Path) -> None:
    ended = aae("validate", sweep_file, "--json", "--set", "training.epochs=5")
    assert ended.code == 0
    assert ended.document["ok"] is True
    assert ended.document["errors"] == []
    assert aae("validate", sweep_file).out.startswith(f"{sweep_file} is valid (sweep id tiny-")
    assert not home.exists()


def test_validate_writes_notes_to_stderr_beside_json(sweep_file: Path) -> None:
    pruner = "search.pruner={kind: median, grace_epochs: 50}"
    ended = aae("validate", sweep_file, "--json", "--set", pruner)
    assert ended.code == 0
    assert ended.document["ok"] is True
    assert ended.err.startswith("note: search.pruner.grace_epochs")


@pytest.mark.parametrize(
    "arguments", [("frobnicate",), ("run",), ("train", "x.yaml", "--seed", "-1"), ("parzen", "x")]
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    ended = aae(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Usage" in ended.err
