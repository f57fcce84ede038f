"""mkdocs hook: links that lead out of `docs` are replaced by their text.

On GitHub such a link opens a file of the repository, of which the site has no copy.
"""

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:|#)([^)\s]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page's text without links that lead out of the site."""

    def inside(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), match[2]))
        return match[1] if target.startswith("..") else match[0]

    return LINK.sub(inside, markdown)
