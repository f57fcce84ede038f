"""Log-probs of responses' tokens, and which adapters are on the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from hf_align import load_policy
from hf_align.evaluation.writing import is_adapter_on, token_logps
from hf_align.progress import Silent
from tests.tiny import tiny_model, tiny_tokenizer


def test_every_response_has_the_log_probs_that_it_has_alone() -> None:
    model = tiny_model()
    encoded = [([1, 2], [3, 4, 5, 6]), ([1], [7]), ([1, 2], [8, 9]), ([5, 6, 7, 8], [1, 2, 3])]
    logps = token_logps(model, encoded, tiny_tokenizer(), Silent(), "")
    for (prompt, response), each in zip(encoded, logps, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        alone = logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]
        assert each == pytest.approx(alone.tolist(), abs=1e-5)


def test_an_adapter_that_leaves_its_base_alone_shares_it_with_the_reference(
    tiny_model_dir: str, tmp_path: Path
) -> None:
    def saved(**settings: Any) -> str:
        folder = str(tmp_path / str(len(list(tmp_path.iterdir()))))
        load_policy(tiny_model_dir, lora=LoraConfig(r=2, target_modules=["q_proj"], **settings)).save_pretrained(folder)
        return folder

    plain = saved()
    link = tmp_path / "link"
    link.symlink_to(tiny_model_dir)
    assert is_adapter_on(plain, tiny_model_dir) and is_adapter_on(plain, str(link))
    assert not is_adapter_on(tiny_model_dir, tiny_model_dir) and not is_adapter_on(plain, str(tmp_path))
    assert not is_adapter_on(saved(bias="all"), tiny_model_dir), "biases stay when the adapter is off"
    config = json.loads((Path(plain) / "adapter_config.json").read_text())
    (Path(plain) / "adapter_config.json").write_text(json.dumps(config | {"init_lora_weights": "pissa"}))
    assert not is_adapter_on(plain, tiny_model_dir), "its base was changed"
