from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.make_rules import PAGE, page
from hf_align.errors import UserError
from hf_align.planning.selection.needs import NEEDS
from hf_align.planning.selection.rules import read_rules

ROOT = Path(__file__).parents[3]
GOOD = """
- name: mine
  part: data
  when: {agreement: "< 0.8"}
  effect: {cdpo ipo: 0.2}
  because: people disagree
  source: our report
  read: measured
  scope: chats
  revise: instructions
"""


def test_every_rule_has_a_source_that_can_be_followed():
    for rule in read_rules():
        for source in rule.source:
            followed = re.fullmatch(r"arXiv:\d{4}\.\d{5}|https://\S+|definition", source)
            assert followed or (ROOT / source).is_file(), f"{rule.name}: {source}"


def test_every_need_has_a_rule():
    assert {rule.when.get("need") for rule in read_rules()} - {None} == set(NEEDS)


def test_measured_figures_stand_in_the_results():
    online, study, quickstart = (
        (ROOT / "docs" / "results" / name).read_text() for name in ("online.md", "study.md", "README.md")
    )
    for figure in ("+.127 [+.098, +.158]", ".544", ".417", "13.4", "15.3", "3.6"):
        assert figure in online
    for figure in ("71%", "36%", "+.002, +.011"):
        assert figure in study
    for figure in ("+0.29", "+0.58", "| 444 s |", "| 2242 s |"):
        assert figure in quickstart


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == page()


def test_a_table_of_ones_own(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(GOOD)
    [rule] = read_rules(tmp_path / "mine.yaml")
    assert rule.effect == {"cdpo": 0.2, "ipo": 0.2}
    assert rule.source == ("our report",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  source: our report\n", "", "rule 1: source is missing"),
        ("source: our report", "sources: our report", "no key 'sources'; did you mean source"),
        ("agreement:", "agrement:", "no feature 'agrement'; did you mean agreement"),
        ('"< 0.8"', '"< high"', "'< high' is no condition"),
        ('agreement: "< 0.8"', "need: quick", "there is no 'quick'"),
        ("cdpo ipo", "cdpo ipoo", "no algorithm 'ipoo'; did you mean ipo"),
        ("0.2", "2", "the effect on cdpo ipo is 2; give -1 to 1"),
        ("part: data", "part: luck", "part is 'luck'"),
        (GOOD, "name: mine", "must be a list"),
        ("{agreement", "{{agreement", "line 5: not valid YAML"),
        (GOOD, GOOD + GOOD, "two rules named mine"),
    ],
)
def test_a_wrong_table_is_refused_in_one_sentence(tmp_path: Path, old: str, new: str, message: str):
    (tmp_path / "mine.yaml").write_text(GOOD.replace(old, new))
    with pytest.raises(UserError, match=re.escape(message)):
        read_rules(tmp_path / "mine.yaml")


def test_a_table_that_is_not_there():
    with pytest.raises(UserError, match="rules: there is no file nothing"):
        read_rules("nothing.yaml")
