"""JSON Schema of the sweep file, for editors, from the types that the loader checks.

Descriptions are the comments beside the settings. The schema has names, types, limits and the
settings of each kind. Only the loader finds other contradictions.
"""

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter

from aae_core import config
from aae_core.declarations import ARCHITECTURES, ARRAYS, DATA_SETS, PRIORS, Architecture
from aae_core.metrics import DECLARED_METRICS, METRICS
from aae_core.plugins import Registry
from aae_core.reading import MOST
from orchestrator.sweepfile import parameters, spec

Schema = dict[str, Any]
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PARAMETERS = ("Choice", "IntRange", "FloatRange")
_WHOLE = {"Parameter", *_PARAMETERS}  # in an extending file, too
_OF_A_WHOLE = ("required", "allOf", "anyOf", "minProperties")
_CHANGES = "Changes"  # suffix of what an extending file may give of a group
_YAML = {"None": "null", "True": "true", "False": "false"}
_NETWORKS = ("encoder", "decoder", "discriminator", "matcher", "autoencoder")


def sweep_schema(*, installed: bool = True) -> Schema:
    """Return the schema; `installed`: with the declarations of other installed packages."""
    schema = spec.SweepSpec.model_json_schema(by_alias=True)
    groups = schema.pop("$defs")
    groups["Sweep"] = schema
    _describe(groups)
    _name_kinds(groups, installed)
    _add_conditions(groups, installed)
    _name_settings(groups)
    _tidy(groups)
    changes = {
        f"{name}{_CHANGES}": _changes(name, group)
        for name, group in groups.items()
        if name not in _WHOLE
    }
    base = {"type": "string", "description": "another sweep file, whose keys this file takes over"}
    changes[f"Sweep{_CHANGES}"]["properties"]["extends"] = base
    return {
        "$schema": _DIALECT,
        "title": "Sweep file of aae-sweep",
        "type": "object",
        "if": {"required": ["extends"]},
        "then": _ref(f"Sweep{_CHANGES}"),
        "else": _ref("Sweep"),
        "$defs": groups | changes,
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


# -- descriptions ----------------------------------------------------------------------------


def _describe(groups: dict[str, Schema]) -> None:
    known = {
        name: kind for module in (spec, parameters, config) for name, kind in vars(module).items()
    }
    for name, group in groups.items():
        kind = spec.SweepSpec if name == "Sweep" else known[name]
        for key, comment in _comments(kind).items():
            if key in group.get("properties", {}):
                group["properties"][key].setdefault("description", comment)


def _comments(settings: type) -> dict[str, str]:
    """Return the comment beside each field of a class, by the field's name in a file."""
    found: dict[str, str] = {}
    for owner in reversed(settings.__mro__):
        if is_dataclass(owner) or (issubclass(owner, BaseModel) and owner is not BaseModel):
            found |= _own_comments(owner)
    aliases = settings.model_fields if issubclass(settings, BaseModel) else {}
    return {
        (aliases[key].alias or key if key in aliases else key): said for key, said in found.items()
    }


def _own_comments(settings: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(settings))
    except (OSError, TypeError):  # another package's class without its source
        return {}
    said = {
        token.start[0]: _in_yaml(token.string.lstrip("# "))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    [tree] = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            if comment := " ".join(said[line] for line in lines if line in said):
                found[node.target.id] = comment
    return found


def _in_yaml(comment: str) -> str:
    return re.sub(r"\b(None|True|False)\b", lambda word: _YAML[word[0]], comment)


# -- kinds -----------------------------------------------------------------------------------


def _sound(registry: Registry[Any], installed: bool) -> dict[str, Any]:
    """Return the declarations by name, without broken ones."""
    names = registry if installed else registry.own
    return {name: found for name in names if (found := registry.find(name)) is not None}


def _name_kinds(groups: dict[str, Schema], installed: bool) -> None:
    metrics = _sound(DECLARED_METRICS, installed)
    objectives = [
        f"val/{name}"
        for name, metric in metrics.items()
        if "val" in metric.splits and metric.better != "none"
    ]
    further = [name for name, metric in metrics.items() if metric.measure]
    enums = {
        ("ModelConfig", "kind"): list(_sound(ARCHITECTURES, installed)),
        ("PriorConfig", "kind"): list(_sound(PRIORS, installed)),
        ("DataConfig", "name"): list(_sound(DATA_SETS, installed)),
        ("ObjectiveSpec", "metric"): objectives,
    }
    for (group, key), names in enums.items():
        groups[group]["properties"][key]["enum"] = names
    groups["SearchSpec"]["properties"]["secondary_objectives"]["items"]["enum"] = objectives
    groups["TrainConfig"]["properties"]["metrics"]["items"] = (
        {"enum": further} if further else False
    )


# -- conditions ------------------------------------------------------------------------------


def _add_conditions(groups: dict[str, Schema], installed: bool) -> None:
    architectures, priors = _sound(ARCHITECTURES, installed), _sound(PRIORS, installed)
    data = groups["DataConfig"]["properties"]
    groups["ModelConfig"]["allOf"] = [
        *(
            _where("kind", kind, _of_architecture(declared, priors, groups), kind == "aae")
            for kind, declared in architectures.items()
        ),
        _flat_priors([name for name, prior in priors.items() if prior.flat]),
    ]
    unlabelled = [kind for kind, declared in architectures.items() if declared.labels == "none"]
    groups["Sweep"]["allOf"] = [
        {
            "if": {"properties": {"model": {"properties": {"kind": {"enum": unlabelled}}}}},
            "then": {"properties": {"data": {"properties": {"labels": {"type": "null"}}}}},
        }
    ]
    groups["ObjectiveSpec"]["allOf"] = [
        _where("metric", name, {"direction": {"const": METRICS[name].direction}})
        for name in groups["ObjectiveSpec"]["properties"]["metric"]["enum"]
    ]
    groups["BudgetSpec"]["anyOf"] = [{"required": ["hours"]}, {"required": ["gpu_hours"]}]
    groups["Choice"]["properties"]["choice"]["uniqueItems"] = True
    groups["PriorConfig"]["allOf"] = [
        _where("kind", kind, {"settings": _settings(declared.settings, groups)}, kind == "gaussian")
        for kind, declared in priors.items()
    ]
    groups["DataConfig"]["allOf"] = [
        _where(
            "name",
            name,
            {"settings": _settings(declared.settings, groups)}
            | {
                key: {"const": data[key]["default"]}
                for key, owner in config.OWNERS.items()
                if owner != name
            }
            | ({} if name == ARRAYS else {"path": {"type": "null"}}),
            name == "digits",
        )
        for name, declared in _sound(DATA_SETS, installed).items()
    ]
    groups["DataConfig"]["allOf"].append(
        {"if": _is("name", ARRAYS), "then": {"required": ["path"]}}
    )


def _where(key: str, kind: str, then: Mapping[str, Any], is_default: bool = False) -> Schema:
    """Return the condition that a group of this kind has these properties."""
    case = _is(key, kind)
    if is_default:
        del case["required"]
    return {"if": case, "then": {"properties": dict(then)}}


def _is(key: str, kind: str) -> Schema:
    return {"properties": {key: {"const": kind}}, "required": [key]}


def _of_architecture(
    declared: Architecture, priors: Mapping[str, Any], groups: dict[str, Schema]
) -> dict[str, Any]:
    accepted = [name for name, prior in priors.items() if declared.accepts(name, prior)]
    unread = [name for name in _NETWORKS if name not in declared.networks]
    found: dict[str, Any] = {name: _unchanged(name) for name in unread}
    found["prior"] = {"properties": {"kind": {"enum": accepted}}}
    found.setdefault("encoder", {"properties": {}})
    found["encoder"]["properties"]["kind"] = {"enum": list(declared.encoders)}
    return found | {"settings": _settings(declared.settings, groups)}


def _unchanged(network: str) -> Schema:
    """Return the schema of a network that the architecture does not read: only defaults."""
    defaults = asdict(getattr(config.ModelConfig(), network))
    free = ("kind", "noise_dim") if network == "encoder" else ()
    return {
        "properties": {key: {"const": value} for key, value in defaults.items() if key not in free}
    }


def _flat_priors(flat: list[str]) -> Schema:
    """Return the condition that a flat prior needs two dimensions."""
    prior = {"properties": {"kind": {"enum": flat}}, "required": ["kind"]}
    matcher = {"properties": {"noise_dim": {"const": 2}}, "required": ["noise_dim"]}
    return {
        "if": {"properties": {"prior": prior}, "required": ["prior"]},
        "then": {
            "anyOf": [
                {"properties": {"code_dim": {"const": 2}}, "required": ["code_dim"]},
                {"properties": {"matcher": matcher}, "required": ["matcher"]},
            ]
        },
    }


def _settings(declared: type | None, groups: dict[str, Schema]) -> Schema:
    """Return the schema of a declaration's own settings, whose class becomes a group."""
    if declared is None:
        return {"type": "null"}
    name = f"{declared.__module__}.{declared.__qualname__}"
    if name not in groups:
        schema = TypeAdapter(declared).json_schema()
        schema.pop("$defs", None)
        schema["additionalProperties"] = False
        for key, comment in _comments(declared).items():
            schema["properties"][key].setdefault("description", comment)
        groups[name] = schema
    return {"anyOf": [_ref(name), {"type": "null"}]}


# -- settings by path ------------------------------------------------------------------------


def _name_settings(groups: dict[str, Schema]) -> None:
    """List the settings of a trial in the groups whose keys are paths of settings."""
    settings = dict(_paths(groups, "ModelConfig", "model"))
    settings |= _paths(groups, "TrainConfig", "training")
    for name, group in groups.items():
        if "." in name:  # the own settings of a declaration of either kind
            for where in ("model.settings", "model.prior.settings"):
                settings |= {f"{where}.{key}": _of(name, key) for key in group["properties"]}
    search, confirm = groups["SearchSpec"]["properties"], groups["ConfirmSpec"]["properties"]
    groups["Parameter"] = search["space"]["additionalProperties"]
    for kind in _PARAMETERS:
        groups[kind]["properties"]["when"]["additionalProperties"] = {"minItems": 1}
    groups["Space"] = {
        "type": "object",
        "properties": {path: _searched(groups, value) for path, value in settings.items()},
        "additionalProperties": False,
        "minProperties": 1,
    }
    groups["Settings"] = {
        "type": "object",
        "properties": settings,
        "additionalProperties": False,
    }
    search["space"] = _ref("Space")
    search["initial_trials"]["items"] = confirm["set"] = _ref("Settings")


def _of(group: str, key: str) -> Schema:
    return {"$ref": f"#/$defs/{group}/properties/{key}"}


def _paths(groups: dict[str, Schema], group: str, prefix: str) -> Iterator[tuple[str, Schema]]:
    for key, value in groups[group]["properties"].items():
        options = value.get("anyOf", [value])
        inner = next((o["$ref"].rpartition("/")[2] for o in options if "$ref" in o), None)
        if inner is not None:
            yield from _paths(groups, inner, f"{prefix}.{key}")
        elif key != "settings":
            yield f"{prefix}.{key}", _of(group, key)


def _searched(groups: dict[str, Schema], setting: Schema) -> Schema:
    """Return the schema of a parameter whose values are those of a setting."""
    _, _, group, _, key = setting["$ref"].split("/")
    value = groups[group]["properties"][key]
    types = {option.get("type") for option in value.get("anyOf", [value])}
    ranges = {"number": ("int", "float"), "integer": ("int",)}
    possible = {kind for name, kinds in ranges.items() if name in types for kind in kinds}
    bounds = {kind: {"items": setting} if kind in possible else False for kind in ("int", "float")}
    described = {"description": value["description"]} if "description" in value else {}
    return _ref("Parameter") | {"properties": {"choice": {"items": setting}, **bounds}} | described


# -- form ------------------------------------------------------------------------------------


def _tidy(node: Any) -> None:
    """Drop pydantic's titles, which repeat the keys, and limit whole numbers as the core does."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    elif isinstance(node, dict):
        if isinstance(node.get("title"), str):
            del node["title"]
        if node.get("type") == "integer" and "exclusiveMaximum" not in node:
            node.setdefault("maximum", MOST)
        for item in node.values():
            _tidy(item)


def _changes(name: str, group: Schema) -> Schema:
    """Return what an extending file may give: any part of a group, and null to drop a key."""
    changes: Schema = {k: v for k, v in group.items() if k not in _OF_A_WHOLE}
    if "properties" in group:
        changes["properties"] = {
            key: {"anyOf": [_of(name, key) if loose == value else loose, {"type": "null"}]}
            for key, value in group["properties"].items()
            for loose in [_loosened(value)]
        }
    return changes


def _loosened(value: Schema) -> Schema:
    """Return a property's schema with the changes of the groups that it refers to."""
    options = value.get("anyOf") or value.get("oneOf")
    if options:
        return {"anyOf": [_loosened(option) for option in options]}
    group = value.get("$ref", "").removeprefix("#/$defs/")
    if group and "/" not in group and group not in _WHOLE:
        return _ref(f"{group}{_CHANGES}")
    if isinstance(value.get("additionalProperties"), dict):
        inner = {"anyOf": [value["additionalProperties"], {"type": "null"}]}
        return value | {"additionalProperties": inner}
    return value
