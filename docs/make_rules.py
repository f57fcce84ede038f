"""Write docs/reference/rules.md from the table of rules (`make docs`); a test checks that the page is current."""

from pathlib import Path

from hf_align.planning.selection.needs import NEEDS
from hf_align.planning.selection.rules import Rule, read_rules

PAGE = Path(__file__).parent / "reference" / "rules.md"
INTRODUCTION = """\
# Rules of hf-align select

<!-- Written by `make docs` from hf_align/planning/selection/rules.yaml. -->

The table that [`hf-align select`](../how-to/choose.md) reads: `hf_align/planning/selection/rules.yaml`. An effect is
added to a part of the score, which begins at .5. *Read* says how far the source was: *measured* (here), *abstract*,
*second-hand* (from a summary of the paper) or *definition*. The sizes of the effects are judgement, in steps of .05;
[ten cells of a benchmark](../results/benchmark.md#the-selectors-choices) have tested them.
"""
PARTS = {"data": "The data", "model": "The model", "needs": "Stated needs"}


def page() -> str:
    """Write the page."""
    rules = read_rules()
    text = INTRODUCTION
    for part, title in PARTS.items():
        text += f"\n## {title}\n\n| rule | when | effect | because | source | read | scope | would change with |\n"
        text += "| --- " * 8 + "|\n" + "".join(row(rule) for rule in rules if rule.part == part)
    text += "\n## Needs\n\n| need | meaning |\n| --- | --- |\n"
    return text + "".join(f"| `{name}` | {meaning} |\n" for name, meaning in NEEDS.items())


def row(rule: Rule) -> str:
    """A rule's line."""
    when = ", ".join(f"{name} {_condition(value)}" for name, value in rule.when.items())
    if isinstance(rule.effect, str):
        effect = f"`{rule.effect}`"
    else:
        effect = ", ".join(
            f"{name} {value if isinstance(value, str) else format(value, '+g')}" for name, value in rule.effect.items()
        )
    cells = (rule.name, when, effect or "advice", rule.because, ", ".join(map(_source, rule.source)))
    return "| " + " | ".join((*cells, rule.read, rule.scope, rule.revise)) + " |\n"


def _condition(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _source(source: str) -> str:
    if source.startswith("arXiv:"):
        return f"[{source}](https://arxiv.org/abs/{source.removeprefix('arXiv:')})"
    if source.startswith("docs/"):
        return f"[{source}](../{source.removeprefix('docs/')})"
    return f"<{source}>" if source.startswith("http") else source


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Wrote {PAGE}")
