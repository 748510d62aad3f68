"""Test the JSON Schema of the sweep file, which an editor reads."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from sweep_command import aae
from sweep_mistakes import GOOD, MISTAKES, SPACES, TOGETHER, edited

from orchestrator.sweepfile.parameters import SETTINGS
from orchestrator.sweepfile.schema import sweep_schema

ROOT = Path(__file__).parents[4]
FOLDERS = ("sweeps", "rivals/sweeps")
SHIPPED = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.yaml"))]
SCHEMA = sweep_schema()


def messages(document: object, schema: dict[str, Any]) -> list[str]:
    return [error.message for error in Draft202012Validator(schema).iter_errors(document)]


def test_schema_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_schema_accepts_every_shipped_sweep(file: Path) -> None:
    text = file.read_text()
    document = YAML(typ="safe", pure=True).load(text)
    assert messages(json.loads(json.dumps(document)), SCHEMA) == []
    assert not re.search(r"[0-9]_[0-9]{3}", text), "editors read 10_000 as text, as YAML 1.2 does"


def test_shipped_schema_is_the_printed_one() -> None:
    printed = aae("schema", "--builtin")
    assert printed.out == (ROOT / "sweeps" / "schema.json").read_text(), "run `make schema`"


def test_settings_have_their_comment_default_and_limits() -> None:
    groups = SCHEMA["$defs"]
    assert groups["TrainConfig"]["properties"]["validate_every"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 2147483647,
        "default": 1,
        "description": "number of epochs; the last one is always validated",
    }
    labels = groups["DataConfig"]["properties"]["labels"]
    assert labels["description"] == "number of visible labels, drawn by the seed; null: all"
    assert set(groups["Space"]["properties"]) >= set(SETTINGS)


@pytest.mark.usefixtures("example", "own_parts")
def test_schema_includes_declarations_of_installed_packages() -> None:
    document: dict[str, Any] = {
        "name": "x",
        "data": {"name": "stripes", "settings": {"side": 5}},
        "model": {
            "kind": "sliced_wasserstein",
            "code_dim": 2,
            "settings": {"projections": 3},
            "prior": {"kind": "ring", "settings": {"width": 0.2}},
        },
        "search": {
            "trials": 2,
            "objective": {"metric": "val/contrast"},
            "space": {"model.prior.settings.width": {"float": [0.1, 0.5]}},
        },
    }
    schema = sweep_schema()
    assert messages(document, schema) == []
    assert messages(document, sweep_schema(installed=False))
    width = schema["$defs"]["aae_example.RingSettings"]["properties"]["width"]
    assert width["description"] == "std of the radius"
    document["model"]["prior"]["settings"]["width"] = "wide"
    assert messages(document, schema)


@pytest.mark.parametrize(
    ("change", "accepted"),
    [
        ({"training": None}, True),
        ({"search": {"budget": None, "space": {"model.code_dim": None}}}, True),
        ({"search": {"sampler": {"startup_trials": 3}}}, True),
        ({"training": {"epoch": 3}}, False),
        ({"training": {"epochs": 0}}, False),
        ({"search": {"space": {"model.code_dim": {"int": None}}}}, False),
    ],
)
def test_schema_of_an_extending_file_accepts_parts_and_null(
    change: dict[str, Any], accepted: bool
) -> None:
    assert (not messages({"extends": "base.yaml", **change}, SCHEMA)) == accepted
    assert messages(change, SCHEMA)  # without `extends` the name is missing


# -- mistakes ---------------------------------------------------------------------------------

BEYOND_THE_SCHEMA = (  # relations of values, and infinite numbers, which JSON does not have
    "must be a finite number",
    "swap them",
    "exclude each other",
    "is never 'gaussian'",
    "is not in the space",
    "is a float range",
    "refers to itself",
    "is not measured",
    "names an objective twice",
    "several objectives",
    "is not below",
    "must have a low end",
    "is not in its range",
    "must be below confirm.seeds",
    "is not in the search space",
    "is a range",
    "standardised pixels",
    "gmmn_ae needs at least 2",
)


def schema_accepts(text: str) -> bool:
    """Return whether an editor would show the text without an error."""
    try:
        document = YAML(typ="safe", pure=True).load(text)
        return Draft202012Validator(SCHEMA).is_valid(json.loads(json.dumps(document)))
    except (YAMLError, TypeError, ValueError):  # no YAML, or nothing that JSON holds
        return False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((edited(old, new), message) for old, new, _, _, message in MISTAKES),
        *((text, expected[0][2]) for text, expected in TOGETHER),
    ],
)
def test_schema_rejects_mistakes_except_relations_of_values(text: str, message: str) -> None:
    assert schema_accepts(text) == any(part in message for part in BEYOND_THE_SCHEMA)


def test_schema_accepts_what_the_loader_accepts() -> None:
    assert schema_accepts(GOOD)
    for base, space, expected in SPACES:
        if not expected:
            head = f"name: x\nmodel: {base}\nsearch:\n  trials: 1\n  space:\n"
            assert schema_accepts(f"{head}    {space}\n")
