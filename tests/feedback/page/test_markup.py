import re
import string
from html.parser import HTMLParser

import pytest

from hf_align.feedback.page.markup import DEEPEST, LONGEST, to_html

TAGS = {
    *("p", "br", "hr", "strong", "em", "s", "code", "pre", "ul", "ol", "li", "blockquote", "a", "span", "div"),
    *("table", "thead", "tbody", "tr", "th", "td", "h1", "h2", "h3", "h4", "h5", "h6"),
}
ATTRIBUTES = {"href", "title", "target", "rel", "class", "start", "style"}
HOSTILE = [
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil.example/x.js></sCrIpT>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<!-- --><script>alert(1)</script> -->",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "</div></section><form action=//evil.example><input name=a></form>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](<javascript:alert(1)>)",
    "[x](&#106;avascript:alert(1))",
    "[x](&#x6A;&#x61;vascript&colon;alert(1))",
    "[x](\x01javascript:alert(1))",
    "[x](\u00a0javascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](data:image/svg+xml;base64,PHN2Zz4=)",
    "[x](vbscript:x) [y](file:///etc/passwd) [z](//evil.example)",
    "<javascript:alert(1)>",
    '[x](http://a.example/"onmouseover="alert(1))',
    "[x](http://a.example 'title\" onclick=\"alert(1)')",
    '![x](http://evil.example/pixel.png "a")',
    '![x" onerror="alert(1)](http://evil.example/pixel.png)',
    "![x](data:image/png;base64,AAAA)",
    "[![x](http://evil.example/p.png)](http://evil.example/?click)",
    "[x]: javascript:alert(1)\n\n[x]",
    "[//]: # (hidden)\n",
    '```"><script>alert(1)</script>\ncode\n```',
    "```html onload=alert(1)\n<script>alert(1)</script>\n```",
    "`<script>alert(1)</script>`",
    "$<script>alert(1)</script>$ \\(<img src=x onerror=alert(1)>\\)",
    "$$\n<script>alert(1)</script>\n$$",
    "| a |\n|---|\n| <script>alert(1)</script> |",
    "\u202e<script>alert(1)</script>\u202c \ufeff<\u200bscript> \uff1cscript\uff1e",
    "<\x00script>alert(1)</script>",
    "\ud800<script>alert(1)</script>",
    "${alert(1)} {{constructor.constructor('alert(1)')()}} `${alert(1)}`",
    "&lt;script&gt;alert(1)&lt;/script&gt; &amp;#60;script>",
    "> " * 500 + "<script>alert(1)</script>",
    "*" * 3000 + "<b>" + "[" * 3000 + "<script>",
    "<script>" * (LONGEST // 8 + 1),
]


class Elements(HTMLParser):
    """Collects what an HTML text is made of."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.others: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    def handle_decl(self, decl: str) -> None:
        self.others.append(decl)

    def handle_pi(self, data: str) -> None:
        self.others.append(data)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_html_of_any_text_has_only_harmless_elements(text: str) -> None:
    html = to_html(text)
    found = Elements(html)
    assert found.tags <= TAGS
    assert not found.others
    for name, value in found.attributes:
        assert name in ATTRIBUTES
        assert name != "href" or re.match(r"(https?|mailto):", value, re.IGNORECASE)
        assert name != "style" or re.fullmatch(r"text-align:(left|right|center)", value)
    assert not re.search(r"[${}`]", html)
    html.encode("utf-8")


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_shown_not_swallowed(text: str) -> None:
    html = to_html(text)
    shown = Elements(html).text
    for word in set(re.findall(r"(?:script|alert|onerror|hidden|pixel|evil)\b", text)):
        if "&#" not in text:  # entities are decoded first
            assert word in shown or word in html


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("**a** *b* ~~c~~ `d`", "<p><strong>a</strong> <em>b</em> <s>c</s> <code>d</code></p>"),
        ("a\nb", "<p>a<br />\nb</p>"),
        ("# a", "<h1>a</h1>"),
        ("- a\n- b", "<ul>\n<li>a</li>\n<li>b</li>\n</ul>"),
        ("> a", "<blockquote>\n<p>a</p>\n</blockquote>"),
        (
            "```py\nif a < b:\n    c_d_e = 1\n```",
            '<pre><code class="lang-py">if a &lt; b:\n    c_d_e = 1\n</code></pre>',
        ),
        (
            "[a](https://b.example/?x=1&y)",
            '<p><a href="https://b.example/?x=1&amp;y" title="https://b.example/?x=1&amp;y" target="_blank" '
            'rel="noopener noreferrer nofollow">a</a></p>',
        ),
        ("![a](http://b.example/c.png)", '<p><span class="image">![a](http://b.example/c.png)</span></p>'),
    ],
)
def test_markdown_is_formatted(text: str, html: str) -> None:
    assert to_html(text).strip() == html


FORMULAS = [
    "$a_1*b*c_2$",
    "$$x_1 * y_2 * z$$",
    r"\(a_1 \times b_2\)",
    r"\[ \frac{a*b*c}{d_1 e_1} \]",
    "$$\na_1\n- b*c*d\n# e\n$$",
    "\\[\n\\begin{aligned}\na &= b_1 \\\\\n&= c_1\n\\end{aligned}\n\\]",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_formulas_keep_every_character(formula: str) -> None:
    html = to_html(f"So\n\n{formula}\n\nholds." if "\n" in formula else f"So {formula} holds.")
    found = Elements(html)
    assert formula in found.text
    assert not found.tags & {"em", "li", "h1"}
    assert ("class", "math") in found.attributes


def test_amounts_are_no_formulas() -> None:
    found = Elements(to_html("It costs $5 and *not* $10, or 3 $ a piece and $ 4 $."))
    assert ("class", "math") not in found.attributes
    assert "em" in found.tags


def test_an_unclosed_formula_is_text() -> None:
    found = Elements(to_html("$$\na\n\nb *c*"))
    assert found.text.split() == ["$$", "a", "b", "c"]


def test_code_keeps_every_character() -> None:
    code = "".join(string.printable.replace("`", "").split("\r"))
    assert Elements(to_html(f"````\n{code}\n````")).text.rstrip("\n\x0b\x0c") in code


@pytest.mark.parametrize("text", ["> " * (DEEPEST + 5) + "deep", "- " * (DEEPEST + 5) + "deep", "a" * (LONGEST + 1)])
def test_texts_that_the_parser_would_cut_are_plain(text: str) -> None:
    found = Elements(to_html(text))
    assert found.text == text
    assert found.tags == {"pre"}
