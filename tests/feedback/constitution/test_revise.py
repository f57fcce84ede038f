"""The supervised half."""

from __future__ import annotations

from typing import Any

import pytest

from hf_align.data.parts import Parts
from hf_align.feedback import ConstitutionConfig
from hf_align.feedback.collection.writers import Text, open_model
from hf_align.feedback.constitution.made import read_halves
from hf_align.feedback.constitution.revise import Revised, Step, judge_revision, refuses, revise_all
from hf_align.feedback.constitution.work import Work
from hf_align.progress import Silent
from tests.feedback.constitution.samples import CONSTITUTION, KIND, PROMPTS, talk
from tests.tiny import tiny_model, tiny_tokenizer

REFUSALS = ["i can't help"]


@pytest.mark.parametrize(
    ("revision", "outcome", "shorter", "refuses"),
    [
        ("A better answer of some more words.", "revised", False, False),
        ("Shorter.", "revised", True, False),
        ("An  answer of\nfive words.", "unchanged", False, False),
        (" \n", "empty revision", False, False),
        ("I can’t help with questions of that kind.", "refusal dropped", False, True),
    ],
)
def test_a_revision_is_judged_by_its_words(revision: str, outcome: str, shorter: bool, refuses: bool) -> None:
    step = Step(KIND, "An answer of five words.")
    judge_revision(step, Text(revision, {}), REFUSALS, drop_refusals=True)
    assert (step.outcome, step.shorter, step.refuses) == (outcome, shorter, refuses)
    assert step.after == (revision if outcome == "revised" else step.before)


def test_a_refusal_is_kept_if_wanted_and_new_only_after_an_answer() -> None:
    step = Step(KIND, "An answer of five words.")
    judge_revision(step, Text("I can't help.", {}), REFUSALS, drop_refusals=False)
    assert (step.outcome, step.refuses, step.after) == ("revised", True, "I can't help.")
    step = Step(KIND, "I can't help you there.")
    judge_revision(step, Text("I can't help.", {}), REFUSALS, drop_refusals=True)
    assert (step.outcome, step.refuses) == ("revised", False)
    assert not refuses("Of course. I can't help smiling.", REFUSALS)


def run(writer: Any, rows: list[dict[str, Any]] = PROMPTS, **options: Any) -> list[Revised]:
    config = ConstitutionConfig(**{"sft_share": 1, "revisions": 2, "batch_size": 5, **options})
    work = Work(CONSTITUTION, config, open_model(writer, "writer"), Parts())
    return revise_all(work, read_halves(rows, config).sft, Silent())


def test_each_step_goes_on_from_the_last_and_is_skipped_where_the_critique_finds_nothing() -> None:
    asked: list[list[dict[str, str]]] = []

    def listening(conversations: list[Any]) -> list[str]:
        asked.extend(conversations)
        return talk(conversations)

    revised = run(listening)
    steps = [step for each in revised for step in each.steps]
    assert len(revised) == 12 and len(steps) == 24
    for each in revised:
        texts = [each.initial.text, *(step.after for step in each.steps)]
        assert [step.before for step in each.steps] == texts[:-1] and each.final == texts[-1]
        assert len({step.principle.id for step in each.steps}) == 2
    nothing = [step for step in steps if step.outcome == "nothing found"]
    assert nothing and all(step.critique and step.critique.text == "No change needed." for step in nothing)
    assert all(step.revision is None for step in nothing)
    revisions = [each for each in asked if each[-1]["content"].startswith("Revise")]
    assert len(revisions) == sum(step.revision is not None for step in steps) == 24 - len(nothing)
    assert {step.outcome for step in steps} >= {"unchanged", "empty revision", "revised", "nothing found"}


def test_a_response_is_criticised_from_the_threshold_on() -> None:
    writer = (tiny_model(), tiny_tokenizer())
    options: dict[str, Any] = {"max_new_tokens": 4, "max_critique_tokens": 4, "examples": 0, "batch_size": 12}

    def steps(threshold: float) -> list[tuple[float, Step]]:
        made = [step for each in run(writer, threshold=threshold, **options) for step in each.steps]
        return [(step.broken, step) for step in made if step.broken is not None]

    at_half = steps(0.5)
    assert {broken < 0.5 for broken, _ in at_half} == {True, False}
    assert all(
        (step.critique is None) == (broken < 0.5) == (step.outcome == "check passed") for broken, step in at_half
    )
    everything = steps(0)
    assert len(everything) == 24 and all(step.critique is not None for _, step in everything)


def test_an_empty_response_is_not_criticised() -> None:
    revised = run(lambda conversations: [" "] * len(conversations))
    assert all(each.steps == [] and each.final == " " for each in revised)


def test_batches_and_other_prompts_change_nothing_about_a_functions_texts() -> None:
    def texts(rows: list[dict[str, Any]], size: int) -> dict[str, str]:
        return {each.prompt.id: each.final for each in run(talk, rows, batch_size=size)}

    whole = texts(PROMPTS, 5)
    assert texts(PROMPTS[::-1], 3) == whole
    part = texts(PROMPTS[:4], 5)
    assert len(part) == 4 and part == {id: whole[id] for id in part}
