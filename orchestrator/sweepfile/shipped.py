"""The sweep files that come with the package, by the names of their sweeps."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).with_name("sweeps")  # in a checkout a link to its `sweeps/`


@dataclass(frozen=True)
class ShippedSweep:
    """A sweep file whose comment says what it reproduces."""

    name: str
    file: Path

    @property
    def about(self) -> str:
        """The file's comment, without the lines for the editor and the shell."""
        comment = re.match(r"(?:#.*\n)*", self.file.read_text())
        assert comment is not None
        _, _, said = comment[0].partition("\n#\n")
        return " ".join(line.removeprefix("#").strip() for line in said.splitlines())


@cache
def shipped() -> dict[str, ShippedSweep]:
    """Return the shipped sweeps by name, those of full size first."""
    files = [*sorted(_FOLDER.glob("*.yaml")), *sorted(_FOLDER.glob("*/*.yaml"))]
    names = ("_".join([file.stem, *file.relative_to(_FOLDER).parts[:-1]]) for file in files)
    return {name: ShippedSweep(name, file) for name, file in zip(names, files, strict=True)}


def file_of(named: Path) -> Path:
    """Return the file itself, or the shipped file whose sweep has this name if there is no file."""
    known = shipped().get(str(named))
    return known.file if known is not None and not named.is_file() else named


def similar(named: Path) -> str:
    """Return the part of a message that names the shipped sweep whose name is nearest, if any."""
    close = get_close_matches(str(named), shipped(), n=1)
    return f"; did you mean the shipped sweep `{close[0]}`?" if close else ""


def copied(sweep: ShippedSweep, file: Path, name: str) -> str:
    """Return the text of a shipped file for a user's `file`, under another name."""
    _, _, text = sweep.file.read_text().partition("\n")  # without the schema's place
    text = re.sub(r"^# aae-sweep run .*$", f"# aae-sweep run {file}", text, count=1, flags=re.M)
    text = re.sub(r"^name: .*$", f"name: {name}", text, count=1, flags=re.M)
    return re.sub(r"^extends: \.\./(\w+)\.yaml$", r"extends: \1", text, count=1, flags=re.M)
