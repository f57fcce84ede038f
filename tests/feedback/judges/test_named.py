"""Judges as recipes name them."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from hf_align.errors import UserError
from hf_align.feedback import LanguageModelJudge
from hf_align.feedback.judges import check_judge, open_judge
from hf_align.feedback.judges.named import NamedJudge
from hf_align.models.reward import RewardModel

FUNCTIONS = """
def shorter(prompt, first, second):
    return float(len(first) < len(second))

def brevity(prompts, responses):
    return [-float(len(response)) for response in responses]
"""
PAIR = (["p"], ["a"], ["bbb"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model_dir) -> Path:
    folder = tmp_path_factory.mktemp("judges")
    (folder / "judges.py").write_text(FUNCTIONS)
    rows = [{"prompt": f"p{n}", "chosen": "yes" * n, "rejected": "no"} for n in range(1, 6)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "question.txt").write_text("{prompt} {first} {second}")
    RewardModel.from_backbone(tiny_model_dir).save_pretrained(folder / "reward")
    return folder


def opened(value: Any) -> LanguageModelJudge:
    judge = value.opened if isinstance(value, NamedJudge) else open_judge(value)
    assert isinstance(judge, LanguageModelJudge)
    return judge


@pytest.fixture(autouse=True)
def _inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.path", [*sys.path])  # to which the folder is added


def test_a_name_is_read_by_what_it_names(tiny_model_dir):
    kinds = {"vader": "reward", "judges.py:brevity": "reward", "./reward": "reward", tiny_model_dir: "model"}
    assert {name: check_judge(name).kind for name in kinds} == kinds
    [judgement] = open_judge("judges.py:brevity").compare(*PAIR)
    assert judgement.label == 1.0 and check_judge("judges.py:brevity").name == "judges.py:brevity"
    [judgement] = check_judge({"function": "judges.py:shorter", "name": "short"}).compare(*PAIR)
    assert judgement.preference == 1.0
    [judgement] = open_judge({"reward": "judges.py:brevity", "tie_band": 5}).compare(*PAIR)
    assert judgement.preference == 0.5


def test_a_language_model_is_loaded_when_it_is_asked(tiny_model_dir):
    named = check_judge({"model": tiny_model_dir, "name": "tiny", "calibrate": "pairs.jsonl", "calibration_pairs": 4})
    assert named.name == "tiny" and "opened" not in vars(named)
    [judgement] = named.compare(*PAIR)
    assert judgement.orders is not None and opened(named).bias != 0
    plain = opened({"model": tiny_model_dir, "prompt": "question.txt", "bias": 0.25})
    assert (plain.question.template, plain.bias) == ("{prompt} {first} {second}", 0.25)


def test_the_pairs_of_calibration_are_the_first_of_the_data(tiny_model_dir):
    judge = opened({"model": tiny_model_dir})
    judge.calibrate(["p1", "p2"], ["yes", "yesyes"], ["no", "no"])
    same = opened({"model": tiny_model_dir, "calibrate": "pairs.jsonl", "calibration_pairs": 2})
    assert same.bias == pytest.approx(judge.bias)
    assert check_judge({"model": tiny_model_dir, "calibrate": "embedded:ratings"}).kind == "model"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"function": "math:sqrt"}, "recipe: judge: 'sqrt' doesn't take three arguments"),
        (3, "recipe: judge expects a name or a mapping with one of reward, function, model"),
        ({"reward": "vader", "model": "x/y"}, "reward and model in one mapping"),
        ({"promt": "x"}, "got {'promt': 'x'}"),
        ({"model": "reward", "promt": "x"}, "promt is not a valid key; did you mean prompt?"),
        ({"model": 5}, "recipe: judge: model expects a folder or Hub id, got 5"),
        ({"endpoint": " "}, "recipe: judge: endpoint expects the name of a model at the endpoint, got ' '"),
        ({"reward": None}, "recipe: judge: reward expects a folder, a Hub id, a function or a list of them, got None"),
        ({"modell": "TINY"}, "recipe: judge: modell is not a valid key; did you mean model?"),
        ("", "recipe: judge is empty; give a name such as vader, or a mapping with one of reward"),
        ({"model": "./reward"}, "is a reward model"),
        ({"model": "TINY", "prompt": "{prompt} {first}"}, "no {second}"),
        ({"model": "TINY", "prompt": "missing.txt"}, "prompt is neither a file nor a template"),
        ({"model": "TINY", "bias": "much"}, "bias expects a number, got 'much'"),
        ({"model": "TINY", "bias": 1, "calibrate": "pairs.jsonl"}, "drop one"),
        ({"model": "TINY", "calibrate": "missing.jsonl"}, "recipe: judge: calibrate: there is no file missing.jsonl"),
        ({"model": "TINY", "bias": float("inf")}, "recipe: judge: bias is inf"),
        ({"model": "TINY", "principle": ""}, "recipe: judge: principle is ''"),
        ({"model": "TINY", "prompt": "{x} {prompt} {first} {second}"}, "recipe: judge: prompt: {x} is no field"),
        ({"reward": "TINY"}, "recipe: judge: .* has no reward head"),
        (
            {"endpoint": "m", "url": "http://localhost:1/v1", "temperature": -1},
            "recipe: judge: temperature is -1.0; give",
        ),
        ({"endpoint": "m", "url": "http://localhost:1/v1", "max_tokens": 0}, "recipe: judge: max_tokens is 0; give a"),
        ({"model": "TINY", "calibrate": "pairs.jsonl", "calibration_pairs": 0}, "give a number from 1"),
        ({"model": "TINY", "calibration_pairs": 5}, "goes with calibrate"),
        ({"reward": "vader", "tie_band": -1}, "recipe: judge: tie_band is -1"),
        ({"function": "judges.py:longer"}, "has no function longer"),
        (
            "./nothing",
            "'./nothing' doesn't exist.*; a judge is vader, .* a mapping with one of reward, function, model,",
        ),
        ("judges.py:shorter", "recipe: judge: .*asks for 'second'.*f(prompt, first, second), by {function:"),
        ([{"reward": "judges.py:shorter"}], "asks for 'second'"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(value, message, tiny_model_dir):
    if isinstance(value, dict):
        value = {key: tiny_model_dir if each == "TINY" else each for key, each in value.items()}
    with pytest.raises(UserError, match=re.sub(r"([{?()])", r"\\\1", message)):
        check_judge(value, "recipe: judge")


def test_a_folder_that_does_not_say_what_it_is_needs_a_key(folder):
    (folder / "unknown").mkdir(exist_ok=True)
    (folder / "unknown" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UserError, match=r"for a reward model, \{model: \./unknown\} for"):
        check_judge("./unknown")
    (folder / "packed").mkdir(exist_ok=True)
    (folder / "packed" / "model.gguf").touch()
    assert check_judge("./packed").kind == "model"
