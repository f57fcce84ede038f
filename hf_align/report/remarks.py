"""What a reader has to know before believing a figure of a report."""

from __future__ import annotations

from typing import NamedTuple

FEW_UNITS = 30
"""Fewest prompts or texts whose bootstrap intervals can be relied on."""


class Remark(NamedTuple):
    """A remark on a report: its kind, to look it up, and a sentence.

    Example:
        >>> from hf_align.evaluation import reward_report
        >>> rows = [{"prompt": f"Film {n}?", "chosen": "A joy.", "rejected": "Dull."} for n in range(40)]
        >>> report = reward_report(None, rows, scores=[[1.0, 1.0]] * 40)
        >>> [remark.kind for remark in report.remarks]
        ['constant_scores']
    """

    kind: str
    sentence: str


def few_units(count: int, unit: str) -> Remark:
    """Remark on intervals of so few prompts or texts; `unit` is the plural."""
    name = unit.removesuffix("s") if count == 1 else unit
    return Remark("few_units", f"With {count} {name} the bootstrap's intervals are too narrow.")
