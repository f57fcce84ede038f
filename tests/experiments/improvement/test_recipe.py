"""Recipes of self-improvement: what is refused before anything is loaded, and what a dry run says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from hf_align.algorithms import ALGORITHMS
from hf_align.errors import UserError
from hf_align.experiments.improvement.config import ImprovementConfig
from hf_align.experiments.improvement.job import read_prompts, read_votes, separate
from hf_align.experiments.improvement.recipe import KEYS
from hf_align.experiments.improvement.rule import detectable_fall
from hf_align.experiments.recipe import SOURCE_KEYS, field_hints
from tests.experiments.improvement.runs import prepared, write_inputs


@pytest.fixture(autouse=True)
def in_a_new_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    write_inputs()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"jugde": "vader"}, "jugde is not a valid key; did you mean judge?"),
        ({"judge": None}, "judge"),
        ({"judge": "score.py:nothing"}, "judge: score.py has no function nothing"),
        ({"judge": {"reward": "a", "model": "b"}}, "judge expects a name or a mapping with one of"),
        ({"held_out_judge": "score.py:letters"}, "held_out_judge has"),
        ({"held_out_judge": None}, "held_out_judge is missing: name a judge that the training never sees"),
        ({"held_out_judge": None, "votes": "votes.jsonl"}, "votes alone can't follow a judge that stays the same"),
        ({"eval_dataset": None}, "eval_dataset is missing"),
        ({"output_dir": "score.py/out"}, "output_dir: can't write to"),
        ({"num_samples": 1}, "num_samples is 1; it must be a whole number of at least 2"),
        ({"pairs": "worst"}, "pairs expects"),
        ({"prompts_per_round": 7}, "prompts_per_round is 7, and train_dataset has 6 different prompts"),
        ({"eval_strategy": "steps"}, "eval_strategy doesn't go with rounds"),
        ({"push_to_hub": True}, "push_to_hub doesn't go with rounds"),
        ({"loss_type": "hinges"}, "loss_type is 'hinges'"),
        ({"loss_type": "simpo", "reference": "start"}, "reference is given, and no reference is scored"),
        ({"lora": None, "quantization": "4bit"}, "quantised weights train only through an adapter; add lora: true"),
        ({"train_dataset": "held_out.jsonl"}, "train_dataset has no prompt that eval_dataset doesn't have, too"),
        ({"train_dataset": "missing.jsonl"}, "train_dataset: there is no file missing.jsonl"),
        ({"max_new_tokens": 100_000}, "max_new_tokens is 100000"),
        ({"max_length": 12}, "max_length is 12, and train_dataset's longest prompt takes"),
        ({"loss_type": "ipo", "label_smoothing": 0.1}, "label_smoothing is 0.1, which loss_type 'ipo' ignores"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(values: dict[str, Any], message: str, tiny_model_dir: str) -> None:
    with pytest.raises(UserError) as refused:
        prepared(tiny_model_dir, **values)
    assert message in str(refused.value)


def test_no_option_of_rounds_has_the_name_of_one_of_the_training() -> None:
    ours, training = {*field_hints(ImprovementConfig), *KEYS}, field_hints(ALGORITHMS["dpo"].load()[1])
    assert not ours & {*training, *SOURCE_KEYS}


def test_a_dry_run_says_what_is_made_and_what_the_rule_can_see(tiny_model_dir: str) -> None:
    run = prepared(tiny_model_dir, prompts_per_round=4, eval_limit=8, loss_type="ipo")
    plan = dict(run.plan())
    assert plan["samples of a round"] == "12 to 4 prompts" and plan["held-out prompts"] == "8"
    assert plan["loss"] == "ipo" and plan["judge"].endswith("score.py:letters")
    assert plan["fall that is noticed"].startswith("none") and not Path("out").exists()
    seen = dict(prepared(tiny_model_dir, rounds=1, false_stop=0.4).plan())["fall that is noticed"]
    assert seen.endswith(f"policy of {0.5 - detectable_fall(12, 0.2):.2f}")


def test_repeated_and_held_out_prompts_are_left_out(tiny_model_dir: str) -> None:
    rows = [{"prompt": text} for text in ("a", "held_out 3:", "b", "a", "c")]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = prepared(tiny_model_dir)
    assert (run.prompts.contents, run.left_out) == (["a", "b", "c"], 2)


def test_equal_prompts_are_one_unit_of_the_bootstrap_whatever_their_hash() -> None:
    prompts = read_prompts(Dataset.from_list([{"prompt": text} for text in ("b", "a", "b", "c")]), "eval_dataset")
    np.testing.assert_array_equal(prompts.units, [0, 1, 0, 2])
    assert separate(prompts, prompts.only([0])).contents == ["a", "c"]


def test_votes_need_a_prompt() -> None:
    rows = Dataset.from_list([{"chosen": "a b c", "rejected": "a b d"}])
    with pytest.raises(UserError, match="votes has no column prompt"):
        read_votes(rows)
