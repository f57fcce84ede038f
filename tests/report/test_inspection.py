"""The page and the text of an inspection: every section's figures, charts and findings, self-contained and escaped."""

from __future__ import annotations

from typing import Any

import pytest

from hf_align.report.inspection_page import render_inspection
from hf_align.report.inspection_sections import say_counts, sections_of
from hf_align.report.inspection_text import inspection_text
from tests.report.page import Page

BAD = "<b>&"
HISTOGRAM = {"edges": [0.0, 0.5, 1.0], "counts": [[3, 4]]}
LENGTHS = {"mean": 5.0, "min": 1.0, "50%": 4.0, "max": 9.0}
ALPHA = {"alpha": 0.81, "interval": [0.7, 0.9], "raw": 0.9, "units": 7}
METRICS: dict[str, Any] = {
    "size": {
        "unit": "tokens",
        "columns": [{"name": BAD, "type": "text", "nulls": 0.25}],
        "lengths": {"prompt": LENGTHS, "chosen": LENGTHS, "rejected": LENGTHS, "prompt and longest response": LENGTHS},
        "histogram": {"edges": [0, 5, 10], "counts": [[3, 4], [2, 5]]},
        "truncation": {"max_length": 8, "max_prompt_length": None, "prompt_cut": 2, "response_cut": 1},
    },
    "defects": {"ends": {"proper_ends": 0.98}},
    "duplicates": {},
    "contradictions": {
        "scores": {
            f"chosen_{BAD}": {"pairs": 7, "agree": 6, "length_correlation": None, "min": 1, "median": 2, "max": 3}
        }
    },
    "agreement": {
        "source": "votes",
        "how": "the share of agreeing pairs",
        "level": "interval",
        "least": 0.7,
        "rows": 7,
        "mean": 0.9,
        "histogram": HISTOGRAM,
        "annotators": {BAD: {"alpha": 0.5, "raw": 0.8, "values": 9}, "x": {"alpha": None, "raw": None, "values": 1}},
        "groups": {
            "domain": {BAD: ALPHA, "y": {**ALPHA, "alpha": None, "interval": [None, None]}},
            "group": {"reason": "many"},
        },
        **ALPHA,
    },
    "margins": {
        "margins": {"source": "margin", "quartiles": [0.5, 1, 2], "least": 0.2, "histogram": HISTOGRAM},
        "length": {
            "longer_better": 0.6,
            "interval": [0.5, 0.7],
            "pairs": 7,
            "by_ratio": [
                {"from": 1.0, "to": 2.0, "pairs": 7, "longer_better": 0.6, "interval": [0.5, 0.7]},
                {"from": 2.0, "to": None, "pairs": 0, "longer_better": None, "interval": [None, None]},
            ],
            "lengths": {"edges": [0, 5, 10], "counts": [[3, 4], [2, 5]]},
        },
        "style": {"lists": {"better": 0.5, "worse": 0.1, "differs": True}},
        "scripts": {"responses": {"Latin": 13, "Cyrillic": 1}},
    },
}


def finding(section: str, severity: str, rows: list[int], kind: str = "a_kind") -> dict[str, Any]:
    return {
        "kind": kind,
        "severity": severity,
        "section": section,
        "message": f"They are {BAD}.",
        "fix": f"Drop {BAD}.",
        "example": BAD if rows else "",
        "rows": rows,
        "drop": rows[:1],
        "changes": [],
    }


def inspection(metrics: dict[str, Any], findings: list[dict[str, Any]]) -> dict[str, Any]:
    facts = {"rows": 7, "columns": ["prompt", BAD], "layout": "pairs", "converted": f"recognised {BAD}", "seed": 0}
    facts |= {"tokenizer": BAD, "max_length": 8, "max_prompt_length": None, "eval_rows": 3, "versions": {"Python": "3"}}
    counts = {name: sum(each["severity"] == name for each in findings) for name in ("error", "warning", "note")}
    fixed = {"dropped": len({row for each in findings for row in each["drop"]}), "changed": 0}
    return {"facts": facts, "metrics": metrics, "findings": findings, "counts": counts, "fixed": fixed}


FOUND = [
    finding("size", "note", []),
    finding("defects", "error", [0, 3]),
    finding("defects", "warning", [1], "another_kind"),
    finding("margins", "warning", [1]),
]


def test_the_page_has_every_section_with_its_charts_and_loads_nothing() -> None:
    text = render_inspection(inspection(METRICS, FOUND))
    page = Page(text)
    assert BAD not in text.replace("<b>2", "").replace("<b>7", ""), "texts of the data are escaped"
    assert [name for name in page.ids if name != "verdict"] == list(METRICS)
    assert all(link.startswith("#") for link in page.loads) and "script" not in page.tags and not page.unlabelled
    # Lengths; rows by finding of the defects; agreement, annotators, a group; margins, length bias, lengths.
    assert page.tags.count("svg") == 1 + 1 + 3 + 3
    assert text.count("<article") == len(FOUND) and "prefers-color-scheme: dark" in text
    assert "Not yet: 1 error in 2 of 7 rows." in text and "2 of 7 rows dropped" in text


def test_the_terminal_says_the_same_within_its_width() -> None:
    shown = inspection_text(inspection(METRICS, FOUND), 90)
    assert max(map(len, shown.splitlines())) <= 90
    said = " ".join(shown.split())
    for part in (
        "With max_length 8 the prompt is cut in 2 rows and a response in 1 row.",
        "98.0% of the responses end properly. Found: 1 error, 1 warning in 3 rows.",
        "Two people agree in 90.0% of the cases (7 rows, by votes).",
        "Krippendorff's alpha is 0.81 [0.70, 0.90].",
        "Half of the margins (margin) lie between 0.5 and 2, with the median 1.",
        "The longer response is the better one in 60.0% [50.0, 70.0] of 7 pairs.",
        "error: They are <b>&. rows 0, 3 such as <b>& fix: Drop <b>&.",
    ):
        assert part in said, part
    titles = [line.split()[-1] for line in shown.splitlines() if line[:2] in ("1 ", "2 ", "3 ", "4 ")]
    assert titles == ["note", "error", "fine", "fine"]


def test_without_pairs_of_unequal_length_no_share_of_the_longer_response_is_said() -> None:
    nothing = {"longer_better": None, "interval": [None, None], "pairs": 0}
    margins = {"margins": {**METRICS["margins"], "length": {**METRICS["margins"]["length"], **nothing}}}
    shown = " ".join(inspection_text(inspection({**METRICS, **margins}, []), 90).split())
    assert "The better and the worse response are equally long in every pair." in shown
    assert "better one in" not in shown and "0 pairs" not in shown


@pytest.mark.parametrize("found", [[], [finding("agreement", "note", [])]])
def test_a_section_that_could_not_be_checked_says_so_unless_something_was_found(found: list[dict[str, Any]]) -> None:
    empty: dict[str, Any] = {**{name: {} for name in METRICS}, "agreement": {"source": None, "reason": "no votes"}}
    sections = {section.key: section for section in sections_of(inspection(empty, found))}
    assert sections["agreement"].empty is (not found)
    assert found or sections["agreement"].sentence == "Not checked: no votes."
    assert sections["margins"].sentence == "Nothing found." and sections["margins"].label == "fine"
    text = render_inspection(inspection(empty, found))
    assert "Yes: nothing that speaks against training on it." in text


def test_counts_name_severities_and_distinct_rows() -> None:
    assert say_counts(FOUND) == "1 error, 2 warnings, 1 note in 3 rows"
    assert say_counts(FOUND, "warning") == "2 warnings" and say_counts([], "note") == "fine"
    assert say_counts(FOUND[:1]) == "1 note"
