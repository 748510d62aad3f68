"""The documentation site: its commands exist, its links resolve, its generated pages agree."""

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from orchestrator.cli import app
from orchestrator.sweepfile.loader import load_sweep
from orchestrator.sweepfile.shipped import shipped

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
CLI = get_command(app)

NOT_CHECKED = {  # program -> why no test here checks its arguments
    ".": "the shell's own: it reads a file of settings",
    "cd": "the shell's own",
    "cp": "copies a file for the reader to edit",
    "docker": "needs a Docker engine; tests/e2e/cluster runs these commands",
    "export": "the shell's own",
    "install": "copies the reader's keys",
    "kubectl": "needs Kubernetes; tests/e2e/cluster checks the manifest that it applies",
    "openssl": "makes a secret for kubectl",
    "pip": "installs into the reader's environment; its folders are checked",
    "printf": "writes .env; tests/e2e/cluster validates the files that it names",
    "ray": "Ray's own command; tests/e2e/cluster starts a cluster of this kind",
    "sbatch": "needs Slurm; tests/e2e/cluster/test_slurm.py runs the script",
    "sed": "writes a manifest for kubectl",
    "umask": "the shell's own",
}


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place} {' '.join(self.words)}"


@cache
def blocks() -> list[Block]:
    """Return the fenced blocks of all pages."""
    return [block for page in PAGES for block in _blocks(page)]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for found in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.M | re.S):
        yield Block(page, text[: found.start()].count("\n") + 2, found[2], found[3])


@cache
def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text("utf-8"), flags=re.M | re.S)


def commands() -> list[Command]:
    """Return the commands of all blocks in a shell's language or in none."""
    return [
        Command(f"{block.page.name}:{block.line + number}", tuple(words))
        for block in blocks()
        if block.language in ("", "bash", "console", "sh")
        for number, line in enumerate(block.text.splitlines())
        for words in _commands(line)
    ]


def _commands(line: str) -> Iterator[list[str]]:
    """Yield the commands of a line without their environment, prompt and redirections."""
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if not set(word) <= set("();|&"):
            words.append(word)
            continue
        if ">" in words:
            words = words[: words.index(">")]
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        if words:
            yield words
        words = []


def program(command: Command) -> str:
    return command.words[0].removeprefix(".venv/bin/")


def of(name: str) -> list[Command]:
    return [command for command in commands() if program(command) == name]


def parsed(words: tuple[str, ...]) -> dict[str, Any]:
    """Return the parameters of an `aae-sweep` command line, as its command would receive them."""
    command: Any = CLI
    context = command.make_context("aae-sweep", list(words))
    while hasattr(command, "commands"):
        left = [*context._protected_args, *context.args]
        name, command, left = command.resolve_command(context, left)
        context = command.make_context(name, left, parent=context)
    return {"command": context.command_path, **context.params}


def test_pages_have_commands_of_aae_sweep_and_make() -> None:
    assert len(of("aae-sweep")) > 20
    assert len(of("make")) > 5


@pytest.mark.parametrize("command", of("aae-sweep"), ids=str)
def test_documented_command_parses_with_a_sweep_file_and_keys_that_exist(command: Command) -> None:
    given = parsed(command.words[1:])
    file, overrides = given.get("file"), given.get("set_") or ()
    if file is None or "…" in str(file) or str(file).startswith("~"):
        return
    if (ROOT / file).is_file() or str(file) in shipped():
        load_sweep(ROOT / file if (ROOT / file).is_file() else file, overrides)
    else:
        assert Path(file).name == "mine.yaml", "neither a shipped sweep nor the reader's own"


@pytest.mark.parametrize(
    "words",
    [
        ("trian", "sweeps/quickstart.yaml"),
        ("run", "sweeps/quickstart.yaml", "--smok"),
        ("run",),
        ("data", "show"),
        ("train", "sweeps/quickstart.yaml", "--seed", "one"),
    ],
    ids=" ".join,
)
def test_parsing_rejects_an_unknown_command_option_or_value(words: tuple[str, ...]) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|missing|valid integer"):
        parsed(words)


def test_command_named_in_running_text_exists_with_its_options() -> None:
    unknown = []
    for page in PAGES:
        for mention in re.findall(r"`aae-sweep ([a-z][^`]*)`", prose(page)):
            name, *words = mention.split()
            command: Any = CLI.commands.get(name)  # type: ignore[attr-defined]
            known = {option for each in command.params for option in each.opts} if command else ()
            options = [re.sub(r"[=\]].*", "", w.lstrip("[")) for w in words]
            options = [w for w in options if w.startswith("-") and w != "--help"]
            if command is None or not set(options) <= set(known):
                unknown.append(f"{page.name}: {mention}")
    assert unknown == []


def test_command_in_a_container_parses() -> None:
    given = [command.words for command in of("docker") if "sweep" in command.words]
    assert given
    for words in given:
        parsed(words[words.index("sweep") + 1 :])


@pytest.mark.parametrize("command", of("make"), ids=str)
def test_documented_make_target_exists(command: Command) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = [word for word in command.words[1:] if "=" not in word]
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target


@pytest.mark.parametrize("command", of("python"), ids=str)
def test_documented_script_exists(command: Command) -> None:
    assert (ROOT / command.words[1]).is_file()


@pytest.mark.parametrize("command", of("pip"), ids=str)
def test_documented_package_folder_exists(command: Command) -> None:
    folders = [word for word in command.words if "/" in word]
    assert all((ROOT / folder / "pyproject.toml").is_file() for folder in folders)


def test_every_other_documented_program_is_listed_with_a_reason() -> None:
    used = {program(command) for command in commands()}
    assert used - {"aae-sweep", "make", "python"} == set(NOT_CHECKED)


def test_anchors_equal_those_of_github() -> None:
    assert anchor("`--smoke`") == "--smoke"
    assert anchor("Parzen likelihood: ℓ, in nats") == "parzen-likelihood-ℓ-in-nats"
    assert anchor("[The sweep](x.md) file") == "the-sweep-file"


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings; repeated ones are numbered."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.M):
        name = anchor(heading)
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"], ids=lambda p: p.name
)
def test_internal_links_and_anchors_resolve(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (fragment and fragment not in anchors(linked)):
            broken.append(target)
    assert broken == []


def test_page_of_commands_agrees_with_their_help() -> None:
    """A change of a command's help changes the page: make docs."""
    written = (DOCS / "commands.md").read_text("utf-8")
    assert written == _script("commands").page()


def test_first_sweep_shows_the_quickstarts_current_id() -> None:
    page = (DOCS / "first-sweep.md").read_text("utf-8")
    assert set(re.findall(r"quickstart-[0-9a-f]{8}", page)) == {load_sweep("quickstart").sweep_id}


def test_every_page_is_in_the_navigation_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    listed = re.findall(r"^ +- .+: (\S+\.md)$", text, re.M)
    assert sorted(listed) == sorted(page.name for page in DOCS.glob("*.md"))


def test_site_shows_links_out_of_docs_as_code() -> None:
    shown = _script("hooks").on_page_markdown
    assert shown("see [`x`](../sweeps/x.yaml).") == "see `x`."
    assert shown("see [the file](../sweeps/x.yaml).") == "see `sweeps/x.yaml`."
    assert shown("see [faults](faults.md#memory).") == "see [faults](faults.md#memory)."


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _read_yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text("utf-8"))


def test_citation_has_the_required_keys_and_the_version_of_the_package() -> None:
    cited = _read_yaml(ROOT / "CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["cff-version"] == "1.2.0"
    assert cited["title"] == project["name"]
    assert cited["version"] == project["version"]
    assert cited["license"] == project["license"]
    assert all("name" in author for author in cited["authors"])


@pytest.mark.parametrize("name", ["bug", "question"])
def test_issue_form_has_the_keys_of_a_form(name: str) -> None:
    form = _read_yaml(ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml")
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert fields
    assert all("label" in field["attributes"] for field in fields)


def test_continuous_integration_runs_only_the_script_of_this_repository() -> None:
    workflow = _read_yaml(ROOT / ".github" / "workflows" / "ci.yml")
    [job] = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


def test_pre_commit_hooks_are_local_and_their_commands_exist() -> None:
    [repo] = _read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local"
    for hook in repo["hooks"]:
        words = shlex.split(hook["entry"])
        assert hook["language"] == "system"
        assert words[0] == ".venv/bin/ruff"
        ran = [sys.executable, "-m", "ruff", *words[1:], "--help"]
        subprocess.run(ran, check=True, capture_output=True)
