"""Trainers take data sets of any layout: the same rows and weights as from converted ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from hf_align.cli.main import main
from hf_align.data import to_preferences
from hf_align.trainers import DPOConfig, RewardConfig
from hf_align.trainers.pairs import tokenized_pairs
from tests.tiny import tiny_tokenizer

RESPONSES = ("A warm, funny film.", "Dull.", "Fine, I guess.")
SAID = {"from": "human", "value": "Review a movie."}
ATTRIBUTES = {"correctness": 2, "coherence": 4, "complexity": 1, "verbosity": 1}
LAYOUTS: dict[str, list[dict[str, Any]]] = {
    "sharegpt": [
        {
            "conversations": [SAID],
            "chosen": {"from": "gpt", "value": RESPONSES[0]},
            "rejected": {"from": "gpt", "value": RESPONSES[1]},
        }
    ],
    "one message": [
        {
            "prompt": [{"role": "user", "content": "Review a movie."}],
            "chosen": {"role": "assistant", "content": RESPONSES[0]},
            "rejected": {"role": "assistant", "content": RESPONSES[1]},
        }
    ],
    "rated": [
        {"prompt": "Review a movie.", "response": text, "helpfulness": rating, **ATTRIBUTES}
        for text, rating in zip(RESPONSES, (4, 1, 2), strict=True)
    ],
    "rankings": [{"prompt": "Review a movie.", "responses": list(RESPONSES), "scores": [3.0, 1.0, 2.0]}],
}


@pytest.mark.parametrize("config", [DPOConfig, RewardConfig])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tokenised_rows_are_those_of_the_converted_data_set(config: Any, layout: str, tmp_path: Path) -> None:
    args, tokenizer = config(tmp_path, use_cpu=True, report_to="none"), tiny_tokenizer()
    rows = LAYOUTS[layout]
    before = to_preferences(rows, as_pairs=config is DPOConfig)
    expected = tokenized_pairs(before, tokenizer, args, "train_dataset")
    assert tokenized_pairs(rows, tokenizer, args, "train_dataset").to_list() == expected.to_list()
    assert tokenized_pairs({"a": rows}, tokenizer, args, "eval_dataset")["a"].to_list() == expected.to_list()


def test_a_command_trains_the_same_weights_on_a_file_as_on_the_converted_one(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rated.jsonl").write_text("\n".join(map(json.dumps, LAYOUTS["rated"] * 2)))
    assert main(["convert", "rated.jsonl", "pairs.jsonl"]) == 0
    for name in ("rated", "pairs"):
        flags = ["--max_steps", "1", "--learning_rate", "0.01", "--bf16", "false", "--use_cpu", "--report_to", "none"]
        names = ["--model", tiny_model_dir, "--train_dataset", f"{name}.jsonl", "--output_dir", name]
        assert main(["reward", *names, *flags, "--lora", "true"]) == 0
        said = capsys.readouterr()
        assert ("train_dataset: recognised" in said.out + said.err) == (name == "rated")
    weights = [load_file(f"{name}/adapter_model.safetensors") for name in ("rated", "pairs")]
    assert all((weights[0][key] == value).all() for key, value in weights[1].items())
