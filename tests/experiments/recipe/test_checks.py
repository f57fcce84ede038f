from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from peft import LoraConfig

from hf_align.algorithms import ALGORITHMS
from hf_align.errors import UserError
from hf_align.experiments.recipe import check_recipe, read_recipe
from tests.experiments.recipe.files import BASE, write


@dataclass
class Config:
    output_dir: str | None = None
    learning_rate: float = 1e-5
    max_steps: int = -1
    bf16: bool | None = None
    eval_strategy: str = "no"
    mode: Literal["weight", "scale"] = "weight"


def test_file_and_flags_together(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "learning_rate: 1e-4\nlora:\n  r: 8\n  target_modules: all-linear\nmax_steps: 3\n")
    flags = ["--learning-rate", "2e-5", "--lora.r=32", "--bf16", "--max_steps", "-1", "--quantization", "4bit"]
    checked = check_recipe(read_recipe(path, flags), Config, LoraConfig)
    assert checked.config == {"learning_rate": 2e-5, "max_steps": -1, "bf16": True}
    assert checked.lora == {"r": 32, "target_modules": "all-linear"}
    assert checked.source == {
        "model": "m",
        "train_dataset": "d.jsonl",
        "eval_dataset": None,
        "quantization": "4bit",
    }


def test_keys_of_some_commands(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "reward:\n  - {reward: a/b, weight: 2}\n  - c.py:d\n")
    source = check_recipe(read_recipe(path, ["--ref_model", "r"]), Config, LoraConfig, ALGORITHMS["ppo"].needs).source
    assert source["reward"] == [{"reward": "a/b", "weight": 2}, "c.py:d"]
    assert source["ref_model"] == "r"
    with pytest.raises(UserError, match="reward is missing: write `reward: "):
        check_recipe(read_recipe(None, ["--model", "m", "--train_dataset", "d"]), Config, LoraConfig, ["reward"])
    with pytest.raises(UserError, match="line 3: reward is not a valid key"):
        check_recipe(read_recipe(path, []), Config, LoraConfig)
    with pytest.raises(UserError, match="--reward expects text or a list"):
        check_recipe(read_recipe(path, ["--reward", "{a: 1}"]), Config, LoraConfig, ["reward"])


@pytest.mark.parametrize(
    ("lora", "expected"), [("true", {}), ("false", None), ("null", None), ("{r: 4}", {"r": 4}), ("{}", {})]
)
def test_lora_forms(tmp_path: Path, lora: str, expected: dict | None) -> None:
    recipe = read_recipe(write(tmp_path, BASE + f"lora: {lora}\n"), [])
    assert check_recipe(recipe, Config, LoraConfig).lora == expected


def test_lora_field_over_lora_true(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, BASE + "lora: true\n"), ["--lora.r", "2"])
    assert check_recipe(recipe, Config, LoraConfig).lora == {"r": 2}


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("learning_rat: 1\n", [], "r.yaml, line 3: learning_rat is not a valid key; did you mean learning_rate?"),
        ("lora: {r: 1, lora_dropot: 0.1}\n", [], "r.yaml, line 3: lora.lora_dropot is not a valid key; did you mean"),
        ("learning_rate: fast\n", [], "r.yaml, line 3: learning_rate expects a number, got 'fast'"),
        ("", ["--mode", "shfit"], "--mode expects 'weight' or 'scale', got 'shfit'"),
        ("", ["--model_name_or_path", "m"], "--model_name_or_path is not a valid key; here it is model"),
        ("", ["--lora_r", "8"], "--lora_r is not a valid key; here it is lora.r"),
        ("load_in_4bit: true\n", [], "r.yaml, line 3: load_in_4bit is not a valid key; here it is quantization: 4bit"),
        ("", ["--max_step", "3"], "--max_step is not a valid key; did you mean max_steps?"),
        ("", ["--zzz", "3"], "--zzz is not a valid key; valid are"),
        ("", ["--lora.r", "x"], "--lora.r expects a whole number, got 'x'"),
        ("quantization: 2bit\n", [], "line 3: quantization is 8bit, 4bit or null, not '2bit'"),
        ("max_steps: 1\nmax_steps: 2\n", [], "r.yaml, line 4: max_steps is given twice"),
        ("lora:\n  r: 1\n  r: 2\n", [], "r.yaml, line 5: lora.r is given twice"),
        ("bad: [1, 2\nx: 3\n", [], "r.yaml, line 4: not valid YAML"),
        ("", ["oops"], "'oops' is not a flag"),
        ("", ["--learning_rate"], "--learning_rate has no value; it expects a number"),
        ("", ["--learning_rate", "--bf16"], "--learning_rate has no value; it expects a number"),
        ("", ["--lora.r"], "--lora.r has no value; it expects a whole number"),
        ("learning_rate:\n", [], "r.yaml, line 3: learning_rate has no value; it expects a number"),
        ("", ["--confg", "r.yaml"], "--confg is not a valid key; did you mean config?"),
        ("kl_horizon: 100\n", [], "r.yaml, line 3: kl_horizon is not a valid key; it belongs to ppo"),
        (
            "label_smoothing: 0.1\n",
            [],
            "line 3: label_smoothing is not a valid key; it belongs to reward, ensemble, dpo, ipo",
        ),
        ("ref_model: m\n", [], "line 3: ref_model is not a valid key; it belongs to dpo, ipo, ppo"),
        ("1: 2\n", [], "r.yaml, line 3: 1 is not a valid key; keys are words"),
    ],
)
def test_mistakes_name_their_place(tmp_path: Path, text: str, flags: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_recipe(read_recipe(write(tmp_path, BASE + text), flags), Config, LoraConfig)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_required_keys(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train_dataset is missing"):
        check_recipe(read_recipe(None, ["--model", "m"]), Config, LoraConfig)
    with pytest.raises(UserError, match="model is missing"):
        check_recipe(read_recipe(write(tmp_path, ""), []), Config, LoraConfig)
