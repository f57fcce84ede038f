"""What the sections of a report on policies share: names, grades, and a sentence or figure for each compared policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hf_align.report.figures import Metrics, absent, decimal, ends
from hf_align.report.sections import Grade

EVEN = 0.5
ORDER: Sequence[Grade] = ("bad", "fair", "good", "")


def label_of(name: str, facts: Metrics) -> str:
    """What tables and sentences call a policy."""
    return facts.get("labels", {}).get(name, name)


def grade_of_share(interval: Sequence[float | None] | None, even: float = EVEN) -> Grade:
    """Whether a 95% interval lies above (good), below (bad) or around what no difference gives; "" without one."""
    if interval is None or any(map(absent, interval)):
        return ""
    low, high = (float(end or 0) for end in interval)
    return "good" if low > even else "bad" if high < even else "fair"


def worst(grades: Iterable[Grade]) -> Grade:
    """The grade of the policy that does worst."""
    given = set(grades) or {""}
    return next(grade for grade in ORDER if grade in given)


def sentences(figures: Metrics, facts: Metrics, say: Callable[[str, Metrics], str]) -> str:
    """One sentence for each compared policy."""
    names = [name for name in figures["policies"] if name != facts["reference"]]
    return " ".join(say(label_of(name, facts), figures["policies"][name]) for name in names)


def lead(figures: Metrics, facts: Metrics, show: Callable[[Metrics], str]) -> str:
    """The figure beside the title: that of the only compared policy."""
    others = [each for name, each in figures["policies"].items() if name != facts["reference"]]
    return show(others[0]) if len(others) == 1 else ""


def gain(each: Metrics, name: str, digits: int = 2) -> str:
    """What a policy has more than the reference, with its 95% interval; "" of the reference itself."""
    if name not in each:
        return ""
    return f"{decimal(each[name], digits, sign=True)} {ends(each[f'{name}_interval'], 1, digits)}".rstrip()
