"""A page as a browser would read it."""

from __future__ import annotations

import html.parser


class Page(html.parser.HTMLParser):
    """Tags of a page, and what they load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.unlabelled = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.loads += [str(given[name]) for name in ("src", "href") if name in given]
        self.ids += [str(given["id"])] if tag == "h2" and "id" in given else []
        self.unlabelled += tag == "svg" and not given.get("aria-label")
