"""Whole runs that have to be stopped, and whole runs that must not be, by what real trainings do to real samples."""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from hf_align.experiments.improvement.rounds import Improvement
from hf_align.progress import Silent
from tests.experiments.improvement.runs import prepared
from tests.trainers.toy import toy_model

JUDGES = """
import random

def length(prompts, responses):
    return [float(len(text)) for text in responses]

def quality(text, reader):
    liked = (text.count("b") - text.count("c")) / max(1, len(text)) - 0.1 * max(0, len(text) - 4)
    return liked + random.Random(reader + text).gauss(0, 0.5)

def one_reader(prompts, responses):
    return [quality(text, "one") for text in responses]

def another_reader(prompts, responses):
    return [quality(text, "another") for text in responses]
"""
"""A reader likes a share of b, not of c, and no text that goes on; each with noise of his own as wide as that."""
PROMPTS, HELD_OUT = 128, 200
VALUES: dict[str, Any] = {
    **{"num_samples": 4, "max_new_tokens": 12, "sampling_batch_size": 200, "judge_batch_size": 512, "save_steps": 100},
    **{"rounds": 3, "lora": None, "learning_rate": 1e-3, "held_out_judge": "score.py:another_reader"},
}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A random model over four letters and an end, in a folder with prompts and judges.

    A token is a letter, so that a sampled text has the tokens that were sampled. (Random bytes mostly decode to U+FFFD,
    which is three others.)
    """
    monkeypatch.chdir(tmp_path)
    toy_model(initializer_range=0.1).save_pretrained("model")
    letters = Tokenizer(models.BPE({letter: number for number, letter in enumerate(("<eos>", *"abcd"))}, []))
    letters.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="<eos>", pad_token="<eos>").save_pretrained("model")
    texts = ["".join(each) for size in (4, 5) for each in product("abcd", repeat=size)]
    random.Random(0).shuffle(texts)
    for name, part in (("prompts", texts[:PROMPTS]), ("held_out", texts[PROMPTS : PROMPTS + HELD_OUT])):
        Path(f"{name}.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in part))
    Path("score.py").write_text(JUDGES)
    return "model"


def run(model: str, judge: str, seed: int) -> Improvement:
    values = {**VALUES, "judge": f"score.py:{judge}", "seed": seed, "output_dir": f"out-{seed}"}
    return prepared(model, **values).execute(Silent())


@pytest.mark.slow
def test_a_judge_of_length_is_stopped_in_the_first_round(model: str) -> None:
    for seed in range(10):
        content = run(model, "length", seed).content
        assert content["stopped"]["round"] == 1 and content["stopped"]["reason"] in ("falls", "outruns"), seed
        first = content["rounds"][0]
        assert first["policy"]["length"] > 2 * content["start"]["policy"]["length"], "it did learn"
        assert first["training"]["best"]["win_rate"] > 0.75 and content["best"] == 0


@pytest.mark.slow
def test_a_true_judge_is_not_stopped_in_nine_of_ten_runs_and_leaves_a_better_policy(model: str) -> None:
    results = [run(model, "one_reader", seed).content for seed in range(10)]
    reasons = [content["stopped"]["reason"] for content in results]
    assert reasons.count("rounds") >= 9, reasons
    assert sum(content["best"] > 0 for content in results) >= 9
