"""The pages' tables show the figures of the committed metrics."""

import json

import pytest

from docs import make_results

METRICS = json.loads(make_results.METRICS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", ["README.md", "docs/results/README.md"])
def test_the_committed_tables_are_those_of_the_committed_metrics(page: str) -> None:
    text = (make_results.ROOT / page).read_text(encoding="utf-8")
    assert make_results.END in text
    assert make_results.filled(text, METRICS) == text, "run: python docs/make_results.py"


def test_a_table_replaces_what_stands_between_its_marks() -> None:
    text = f"a\n{make_results.START.format('stages')}\nold\n{make_results.END}\nb\n"
    seconds = {"base": 4.2, "reward": 300.0}
    table = "| base | reward | all |\n|---|---|---|\n| 4 s | 300 s | 304 s |"
    assert make_results.filled(text, {"seconds": seconds}) == text.replace("old", table)
