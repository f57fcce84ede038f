"""Both halves together: the folder, its rows and figures, and killed runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from hf_align.collators import check_preferences
from hf_align.collators.demonstrations import read_demonstrations
from hf_align.data.parts import Parts
from hf_align.errors import UserError
from hf_align.feedback import Constitution, ConstitutionConfig, FunctionJudge, apply_constitution
from hf_align.feedback.constitution.made import ConstitutionData, read_halves
from hf_align.feedback.constitution.principles import Principle
from tests.feedback.constitution.samples import CONSTITUTION, PROMPTS, PrincipledJudge, talk
from tests.tiny import tiny_model, tiny_tokenizer

SMALL = {"revisions": 2, "batch_size": 4}


class Killed(Exception):
    pass


class DyingParts(Parts):
    """Finished steps of a process that dies when it has stored a number of them."""

    def __init__(self, folder: Path, after: int) -> None:
        super().__init__(folder)
        self.after = after

    def put(self, key: Any, part: Any) -> None:
        super().put(key, part)
        self.after -= 1
        if not self.after:
            raise Killed


def apply(folder: Path | None, model: Any = talk, judge: Any = None, **options: Any) -> ConstitutionData:
    parts = options.pop("parts", None)
    config = ConstitutionConfig(**{**SMALL, **options})
    return apply_constitution(
        CONSTITUTION, PROMPTS, model, config, judge=judge or PrincipledJudge(), output_dir=folder, parts=parts
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_folder_has_rows_that_the_trainers_read(tmp_path: Path) -> None:
    data = apply(tmp_path, responses_per_prompt=3, revision_pairs=True, revisions=4)
    texts = {name: text for name, text in contents(tmp_path).items() if name.endswith("jsonl")}
    files = {name: [json.loads(line) for line in text.splitlines()] for name, text in texts.items()}
    assert files == {
        "sft.jsonl": data.rows.sft,
        "preferences.jsonl": data.rows.preferences,
        "revision_pairs.jsonl": data.rows.revisions,
        "steps.jsonl": data.rows.steps,
    }
    halves = [{row["prompt_id"] for row in files[name]} for name in ("sft.jsonl", "preferences.jsonl")]
    assert halves[0].isdisjoint(halves[1]) and len(halves[0] | halves[1]) == 12
    assert len(read_demonstrations(files["sft.jsonl"], "rows")) == len(files["sft.jsonl"])
    for name in ("preferences.jsonl", "revision_pairs.jsonl"):
        for plain in (False, True):
            assert len(check_preferences(files[name], name="rows", plain=plain)) == len(files[name])
    for row in files["sft.jsonl"]:
        assert row["prompt"][-1]["content"] in {each["prompt"] for each in PROMPTS}
    for row in files["preferences.jsonl"]:
        votes = row["by_principle"]
        mean = sum(vote["weight"] * vote["preference"] for vote in votes) / sum(vote["weight"] for vote in votes)
        assert row["preference"] == pytest.approx(mean) and row["preference"] > 0.5 and row["source"] == "votes"
    steps = [row for row in files["steps.jsonl"] if row["half"] == "sft"]
    by_prompt = {id: [row for row in steps if row["prompt_id"] == id] for id in halves[0]}
    for row in files["sft.jsonl"]:
        its = by_prompt[row["prompt_id"]]
        assert its[0]["kind"] == "initial" and {each["model"] for each in its if "text" in each} == {"talk"}
        assert sum(each["kind"] == "outcome" for each in its) == 3  # of four principles one is for code
    for rows in files["revision_pairs.jsonl"]:
        assert rows["source"] == "revision" and rows["prompt_id"] in halves[0]
    again = Constitution.from_yaml(tmp_path / "constitution.yaml")
    assert again.to_dict() == CONSTITUTION.to_dict()


def test_the_card_names_each_file_as_a_configuration(tmp_path: Path) -> None:
    apply(tmp_path)
    for name in ("sft", "preferences"):
        rows: Any = load_dataset(str(tmp_path), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(rows) == len((tmp_path / f"{name}.jsonl").read_text().splitlines())
    card = (tmp_path / "README.md").read_text()
    assert "| kind |" in card and "No person wrote or judged any of it" in card


def test_figures_count_what_the_steps_say(tmp_path: Path) -> None:
    data = apply(tmp_path, revisions=3)
    figures, steps = data.figures, data.rows.steps
    outcomes = [row["outcome"] for row in steps if row["kind"] == "outcome"]
    sft = figures["sft"]
    assert sft["steps"] == len(outcomes) == sum(part["steps"] for part in sft["by_principle"].values())
    assert sft["outcomes"] == {name: outcomes.count(name) for name in sft["outcomes"]}
    revisions = [row for row in steps if row["kind"] == "revision"]
    assert sft["revisions"] == len(revisions)
    for name in ("shorter", "refuses"):
        assert sft[name] == sum(row[name] for row in revisions) > 0
    votes = [row for row in steps if row["kind"] == "vote"]
    preferences = figures["preferences"]
    assert preferences["votes"]["votes"] == len(votes) == 3 * preferences["pairs"]
    assert preferences["votes"]["ties"] == sum(row["preference"] == 0.5 for row in votes)
    assert json.loads((tmp_path / "statistics.json").read_text()) == figures
    text = str(data)
    assert f"steps: {len(outcomes)}; " in text and f"votes: {len(votes)} on" in text


def test_ties_are_left_out_or_kept_and_margins_take_the_labels_place() -> None:
    even = FunctionJudge(lambda *pair: "tie", "even")
    dropped = apply(None, judge=even, responses_per_prompt=4)
    pairs = dropped.figures["preferences"]["pairs"]
    assert dropped.rows.preferences == [] and dropped.figures["left_out"]["tied pairs"] == pairs > 0
    kept = apply(None, judge=even, responses_per_prompt=4, ties="keep")
    assert [row["preference"] for row in kept.rows.preferences] == [0.5] * pairs
    mute = apply(None, judge=FunctionJudge(lambda *pair: None, "mute"))
    assert mute.figures["left_out"]["pairs without an opinion"] == mute.figures["preferences"]["pairs"]
    margins = apply(None, labels="margin").rows.preferences
    soft = apply(None).rows.preferences
    assert [row["margin"] for row in margins] == pytest.approx([2 * row["preference"] - 1 for row in soft])
    assert not any("preference" in row for row in margins)
    with pytest.raises(UserError, match="ties is 'keep', and a margin of 0 teaches nothing"):
        ConstitutionConfig(labels="margin", ties="keep")


def test_prompts_that_leave_nothing_to_respond_to_are_refused() -> None:
    rows = [{"prompt": [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": "Well: yes"}]}]
    with pytest.raises(UserError, match=r"one ends with a message of the assistant \('Well: yes'\)"):
        read_halves(rows, ConstitutionConfig())


def test_the_same_prompt_as_text_and_message_is_one() -> None:
    rows = [{"prompt": [{"role": "user", "content": "Well?"}]}] * 2
    assert read_halves(rows, ConstitutionConfig(sft_share=1)).repeated == 1


def test_comparisons_need_a_judge_and_revisions_do_not() -> None:
    with pytest.raises(UserError, match=r"judge is missing: \d prompts are for comparisons"):
        apply_constitution(CONSTITUTION, PROMPTS, talk, ConstitutionConfig())
    data = apply_constitution(CONSTITUTION, PROMPTS, talk, ConstitutionConfig(sft_share=1))
    assert len(data.rows.sft) == 12 and data.rows.preferences == []


def test_a_conversation_without_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    long = Constitution((Principle("long", "x" * 1900),))
    config = ConstitutionConfig(sft_share=1, max_new_tokens=40, max_critique_tokens=40)
    model = {"tiny": (tiny_model(), tiny_tokenizer())}
    with pytest.raises(
        UserError, match="a revision needs room for the examples, the response, its critique and itself"
    ):
        apply_constitution(long, PROMPTS, model, config, output_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    apply(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="holds data that was made of other prompts, models or options"):
        apply(tmp_path, seed=1)
    apply(tmp_path)
    assert contents(tmp_path) == before


def killed_everywhere(folder: Path, model: Callable[[], Any], points: int, **options: Any) -> None:
    """A whole run's files, and those of runs killed after each of so many steps, or at even distances."""
    apply(folder / "whole", model(), **options)
    whole = contents(folder / "whole")
    stored = len(list((folder / "whole" / "parts").iterdir()))
    assert stored >= points
    for point in range(points):
        place = folder / str(point)
        after = 1 + point * (stored - 1) // max(1, points - 1)
        with pytest.raises(Killed):
            apply(place, model(), parts=DyingParts(place / "parts", after), **options)
        assert not contents(place) or after == stored
        parts = Parts(place / "parts")
        apply(place, model(), parts=parts, **options)
        assert contents(place) == whole and parts.found == after
        assert len(list((place / "parts").iterdir())) == stored


def test_a_run_killed_at_any_of_twenty_points_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    killed_everywhere(tmp_path, lambda: talk, 20, batch_size=2)


def test_a_run_with_a_model_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    options = {"max_new_tokens": 4, "max_critique_tokens": 3, "examples": 0, "temperature": 1.0}
    pair = (tiny_model(), tiny_tokenizer())
    killed_everywhere(tmp_path, lambda: {"tiny": pair}, 3, batch_size=8, revisions=1, votes=1, **options)


@pytest.mark.slow
def test_a_run_with_a_model_killed_at_any_of_twenty_points_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    options = {"max_new_tokens": 12, "max_critique_tokens": 8, "critique_temperature": 0.7, "batch_size": 2}
    pair = (tiny_model(), tiny_tokenizer())
    killed_everywhere(tmp_path, lambda: {"tiny": pair}, 20, **options)


def test_a_run_whose_writer_or_judge_failed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    apply(tmp_path / "whole")
    for number in range(1, 12, 2):
        left = [number]

        def fail(left: list[int] = left) -> None:
            left[0] -= 1
            if not left[0]:
                raise Killed

        def failing(conversations: Any, fail: Callable[[], None] = fail) -> list[str]:
            fail()
            return talk(conversations)

        failing.__name__ = "talk"
        with pytest.raises((Killed, UserError)):  # a writing function's error is told as the user's
            apply(tmp_path / str(number), failing, PrincipledJudge(fail=fail))
        apply(tmp_path / str(number))
        assert contents(tmp_path / str(number)) == contents(tmp_path / "whole")
