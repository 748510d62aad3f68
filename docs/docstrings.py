"""Show docstrings as they are meant: examples as code, `name: text` as a list."""

import re
from typing import Any

from griffe import Extension, Object

_EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\n).*)*", re.MULTILINE)
_SKIP = re.compile(r" *# doctest:.*")
_FIELD = re.compile(r"^([a-z_]+): ", re.MULTILINE)


class Docstrings(Extension):
    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    text = _FIELD.sub(r"- `\1`: ", text)
    return _EXAMPLE.sub(lambda found: f"```pycon\n{_SKIP.sub('', found[0])}\n```", text)
