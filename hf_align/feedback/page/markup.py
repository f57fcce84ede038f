"""Markdown of prompts and responses as HTML that runs nothing and loads nothing.

All HTML in a text is shown as it stands. Links go to the web or to mail only; images are shown as their address, so
that no other host learns who reads. Formulas keep every character.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

LONGEST = 50_000
"""Longer texts, in characters, are shown without formatting: no text takes seconds to draw."""
MOST_BRACKETS, MOST_CELLS = 2_000, 20_000
"""More of them, and a text is shown without formatting: the parser's time grows with them, by its square for cells."""
DEEPEST = 40
"""Texts with deeper nesting of quotes, lists and emphasis are shown without formatting: the parser drops more."""
SCHEMES = re.compile(r"(https?|mailto):", re.IGNORECASE)
MATH_PAIRS = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"))
# Gradio fills texts into templates, where these would have a meaning.
_TEMPLATE = {ord(character): f"&#{ord(character)};" for character in "${}`"}


@lru_cache(maxsize=256)
def to_html(text: str) -> str:
    """Markdown as HTML that is safe to put into a page.

    Args:
        text: Markdown, in which HTML has no meaning.

    Returns:
        HTML of headings, lists, quotes, tables, code, emphasis, links and formulas as they were written. Text that is
        too long or nested too deeply is one preformatted block.

    Example:
        >>> from hf_align.feedback.page.markup import to_html
        >>> to_html("**Yes** <script>alert(1)</script>").strip()
        '<p><strong>Yes</strong> &lt;script&gt;alert(1)&lt;/script&gt;</p>'
    """
    text = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate can't be sent
    html = None
    if _is_quick(text):
        try:
            env: dict[str, Any] = {}
            tokens = _PARSER.parse(text, env)
            if _depth(tokens) < DEEPEST:
                html = _PARSER.renderer.render(tokens, _PARSER.options, env)
        except RecursionError:
            pass
    if html is None:
        html = f'<pre class="plain">{escape(text)}</pre>'
    return html.translate(_TEMPLATE)


def _is_quick(text: str) -> bool:
    cells = max((line.count("|") for line in text.splitlines()), default=0) * text.count("\n")
    return len(text) <= LONGEST and text.count("[") <= MOST_BRACKETS and cells <= MOST_CELLS


def _depth(tokens: Sequence[Token]) -> int:
    return max((max(token.level, _depth(token.children or ())) for token in tokens), default=0)


def _math_inline(state: StateInline, silent: bool) -> bool:
    """A formula: `$a$`, `$$a$$`, `\\(a\\)` or `\\[a\\]`; an amount such as `$5 and $6` is none."""
    for start, end in MATH_PAIRS:
        if not state.src.startswith(start, state.pos):
            continue
        inner = state.pos + len(start)
        # Whatever isn't closed after one place isn't after a later one.
        unclosed = state.env.setdefault("unclosed", set())
        stop = -1 if (end, state.src) in unclosed else state.src.find(end, inner)
        if stop < 0:
            unclosed.add((end, state.src))
        if stop <= inner or stop >= state.posMax:
            return False
        if start == "$" and (
            state.src[inner].isspace() or state.src[stop - 1].isspace() or state.src[stop + 1 : stop + 2].isdigit()
        ):
            return False
        if not silent:
            state.push("math", "", 0).content = state.src[state.pos : stop + len(end)]
        state.pos = stop + len(end)
        return True
    return False


def _math_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A formula of whole lines, from one that begins with `$$` or `\\[` to the one that ends it."""
    line = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    pair = next((pair for pair in MATH_PAIRS[:2] if line.startswith(pair[0])), None)
    if pair is None or state.is_code_block(start):
        return False
    unclosed = state.env.setdefault("unclosed", set())
    if (pair[1], end) in unclosed:
        return False
    for last in range(start, end):
        text = state.src[state.bMarks[last] + state.tShift[last] : state.eMarks[last]].rstrip()
        if last > start and state.sCount[last] < state.blkIndent:
            return False
        if text.endswith(pair[1]) and (last > start or len(text) > len(pair[0]) + len(pair[1])):
            break
    else:
        unclosed.add((pair[1], end))
        return False
    if silent:
        return True
    token = state.push("math", "div", 0)
    token.block = True
    token.content = state.getLines(start, last + 1, state.sCount[start], False)
    token.map = [start, last + 1]
    state.line = last + 1
    return True


def _render_math(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[index]
    tag = "div" if token.block else "span"
    return f'<{tag} class="math">{escape(token.content)}</{tag}>' + ("\n" if token.block else "")


def _render_image(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[index]
    title = token.attrGet("title")
    shown = f"![{token.content}]({token.attrGet('src')}" + (f' "{title}")' if title else ")")
    return f'<span class="image">{escape(shown)}</span>'


def _render_link(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[index]
    href, title = str(token.attrGet("href")), token.attrGet("title")
    shown = f"{href} {title}" if title else href
    token.attrs = {"href": href, "title": shown, "target": "_blank", "rel": "noopener noreferrer nofollow"}
    return renderer.renderToken(tokens, index, options, env)


def _make_parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": 2 * DEEPEST, "langPrefix": "lang-"})
    parser.enable(["table", "strikethrough"])
    parser.disable("reference")  # would hide its lines
    parser.validateLink = lambda url: bool(SCHEMES.match(url))  # type: ignore[method-assign]
    parser.inline.ruler.before("escape", "math", _math_inline)
    parser.block.ruler.before("fence", "math", _math_block, {"alt": ["paragraph", "blockquote", "list"]})
    for name, rule in (("math", _render_math), ("image", _render_image), ("link_open", _render_link)):
        parser.add_render_rule(name, rule)
    return parser


_PARSER = _make_parser()
