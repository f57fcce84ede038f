"""Constitutions in YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_align.errors import UserError
from hf_align.feedback import Constitution
from hf_align.feedback.collection.domains import DOMAINS
from hf_align.feedback.constitution.made import dump_constitution
from hf_align.feedback.constitution.principles import Principle
from hf_align.feedback.constitution.revise import says

TWO = "principles:\n  - id: calm\n    text: Stay calm.\n  - id: kind\n    text: Be kind.\n"


def read(folder: Path, text: str) -> Constitution:
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return Constitution.from_yaml(folder / "mine.yaml")


def test_the_default_has_requests_of_its_own_for_every_principle_and_known_domains() -> None:
    default = Constitution.default()
    assert 8 <= len(default.principles) <= 12
    plain = Principle("any", "Any.")
    for principle in default.principles:
        assert len({principle.critique, principle.revision, principle.question}) == 3
        assert principle.critique != plain.critique and principle.revision != plain.revision
        assert says(principle.critique, default.nothing_found), "the model isn't told the words that are looked for"
        assert set(principle.domains) <= set(DOMAINS)
    assert {bool(example.revision) for example in default.examples} == {True, False}
    for example in default.examples:
        assert bool(example.revision) != says(example.critique, default.nothing_found)


def test_id_and_text_suffice(tmp_path: Path) -> None:
    calm, kind = read(tmp_path, TWO).principles
    assert (calm.weight, calm.domains, kind.id) == (1.0, (), "kind")
    assert calm.question == "Which response follows this principle better? Stay calm."


def test_words_that_yaml_takes_for_truth_values_are_text(tmp_path: Path) -> None:
    constitution = read(tmp_path, TWO + "check:\n  question: Broken?\n  yes: yes\n  no: no\nrefusals: [no, 12]\n")
    assert (constitution.check.yes, constitution.check.no, constitution.refusals) == ("yes", "no", ("no", "12"))


def test_a_written_constitution_is_read_back(tmp_path: Path) -> None:
    default = Constitution.default()
    assert read(tmp_path, dump_constitution(default)).to_dict() == default.to_dict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.yaml is empty"),
        ("- a\n", "line 1: a constitution is made of `key: value` lines"),
        ("principles: [\n", "line 2: not valid YAML"),
        ("examples: []\n", "has no principles; write"),
        ("principles: []\n", "has no principles; give at least one"),
        ("principles: calm\n", "line 1: give a list"),
        (TWO + "rules: 3\n", "line 6: a constitution has no rules; valid are principles, examples"),
        (TWO + "    weigth: 3\n", "line 6: principle 2 has no weigth; valid are id, text"),
        (TWO + "    weight: much\n", "line 6: weight of principle 'kind' is much; give a number above 0"),
        (TWO + "    weight: 0\n", "line 6: weight of principle 'kind' is 0; give a number above 0"),
        (TWO + "    domains: law\n", "line 6: give a list"),
        (TWO + "    question: [a]\n", "line 6: question of principle 'kind' is no text"),
        (TWO + "  - id: calm\n    text: Again.\n", "line 6: principle 'calm' is there already, in line 2"),
        (TWO + "  - id: empty\n    text: ''\n", "line 7: text of principle 'empty' is no text"),
        (TWO + "  - text: Nameless.\n", "line 6: principle 3 has no id; write `id: ...`"),
        (TWO + "  - id: mute\n", "line 6: principle 'mute' has no text; write `text: ...`"),
        (TWO + "    text: Twice.\n", "line 6: principle 2 has text twice; keep one of them"),
        ("principles:\n  - {id: a, text: b, domains: [law]}\n", "every principle has domains"),
        (
            TWO + "examples:\n  - {principle: cruel, prompt: a, response: b, critique: c}\n",
            "line 7: example 1 has the principle 'cruel'; there is none",
        ),
        (TWO + "examples:\n  - {principle: calm, prompt: a, critique: c}\n", "line 7: example 1 has no response"),
        (TWO + "check: {yes: a, no: a}\n", "line 6: check has the same answer for yes and no"),
    ],
)
def test_what_is_wrong_is_named_with_line_and_id(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    assert message in str(error.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UserError, match=r"constitution: there is no file nowhere\.yaml"):
        Constitution.from_yaml("nowhere.yaml")
