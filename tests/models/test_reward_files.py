"""Files of a reward model: what is broken in them is named in one sentence, and nothing of an earlier model stays."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_align.errors import LoadError
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.models.reward_config import RewardModelConfig

BROKEN: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "Expecting property name"),
    "a list": ([], "it isn't a mapping"),
    "another key": ({"pooling": "last", "heads": "mlp"}, "it has heads, and the entries are pooling, head, tasks"),
    "another pooling": ({"pooling": "median"}, "pooling is 'median'; use one of last, mean, max, first"),
    "another type": ({"head": ["mlp"]}, r"head is \['mlp'\]"),
    "tasks of another type": ({"tasks": 3}, "tasks is a mapping"),
    "a normalisation without a deviation": (
        {"normalization": {"name": "a", "rows": 1, "mean": 0.0}},
        "normalization is .* it has name, rows, mean, std and offset",
    ),
    "a normalisation by 0": (
        {"normalization": {"name": "a", "rows": 1, "mean": 0.0, "std": 0.0, "offset": 0.0}},
        "std above 0",
    ),
    "a normalisation of texts": (
        {"normalization": {"name": "a", "rows": 1, "mean": "0", "std": 1.0, "offset": 0.0}},
        "the others are finite numbers",
    ),
}


def refusal(folder: Path) -> str:
    with pytest.raises(LoadError) as error:
        load_reward_model(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_broken_files_are_named_in_one_sentence(tiny_model_dir: str, tmp_path: Path):
    RewardModel.from_backbone(tiny_model_dir, RewardModelConfig(head="mlp")).save_pretrained(tmp_path)
    config, head = tmp_path / "reward_config.json", tmp_path / "reward_head.safetensors"
    sound = config.read_text(), head.read_bytes()
    for name, (content, reason) in BROKEN.items():
        config.write_text(content if isinstance(content, str) else json.dumps(content))
        said = refusal(tmp_path)
        assert re.search(rf"Can't read \S*reward_config\.json: .*{reason}.*; save the model again", said), (name, said)
    config.write_text(sound[0])
    head.write_bytes(sound[1][:-20])
    assert "reward_head.safetensors is broken or cut off" in refusal(tmp_path)
    save_file({"weight": torch.ones(1, 32)}, head)
    assert "is another than reward_config.json describes" in refusal(tmp_path)
    save_file({"weight": torch.full((1, 32), torch.nan)}, head)
    assert "The weight weight in" in refusal(tmp_path)
    head.unlink()
    assert "has a reward_config.json and no reward_head.safetensors" in refusal(tmp_path)


def test_nothing_of_an_earlier_model_stays_in_its_folder(tiny_model_dir: str, tmp_path: Path):
    RewardModel.from_backbone(tiny_model_dir, RewardModelConfig(head="mlp")).save_pretrained(tmp_path)
    plain = RewardModel.from_backbone(tiny_model_dir)
    plain.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    }
    assert load_reward_model(tmp_path).score(["a"], ["b"]) == plain.score(["a"], ["b"])


def test_saved_weights_load_into_the_model_that_saved_them(tiny_model_dir: str, tmp_path: Path):
    model = RewardModel.from_backbone(tiny_model_dir, RewardModelConfig(head="mlp"))
    model.save_pretrained(tmp_path)
    scores = model.score(["a"], ["b"])
    other = RewardModel.from_backbone(tiny_model_dir, RewardModelConfig(head="mlp"))
    found = other.model.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)  # type: ignore[operator]
    assert (found.missing_keys, found.unexpected_keys) == ([], [])
    assert other.score(["a"], ["b"]) == scores
