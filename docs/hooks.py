"""Show links that leave docs/ as code: the site has no such files, and GitHub has."""

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    return _OUTSIDE.sub(lambda link: link[1] if "`" in link[1] else f"`{link[2]}`", markdown)
