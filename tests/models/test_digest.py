"""Digests of models."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from hf_align import RewardModel
from hf_align.models.digest import weights_digest
from hf_align.models.normalization import Normalization
from tests.tiny import tiny_model


def test_a_digest_tells_models_apart(tiny_model_dir: str) -> None:
    first, second = tiny_model(), tiny_model()
    assert weights_digest(first) == weights_digest(second)
    with torch.no_grad():
        second.model.norm.weight[3] += 1e-6
    assert weights_digest(first) != weights_digest(second)
    other: Any = tiny_model()
    assert weights_digest(first) != weights_digest(other.to(torch.bfloat16))
    reward = RewardModel.from_backbone(tiny_model_dir)
    plain = weights_digest(reward)
    reward.set_normalization(Normalization("a set", rows=2, mean=0.5, std=1.0))
    assert weights_digest(reward) != plain, "only the offset differs"


def test_a_digest_tells_adapters_apart_by_their_scale_and_whether_they_are_on() -> None:
    adapted: list[Any] = []
    for alpha in (4, 4, 8):
        torch.manual_seed(0)
        adapted.append(get_peft_model(tiny_model(), LoraConfig(r=2, lora_alpha=alpha)))
    digests = [weights_digest(each) for each in adapted]
    with adapted[0].disable_adapter():
        digests.append(weights_digest(adapted[0]))
    torch.testing.assert_close(adapted[0].state_dict(), adapted[2].state_dict(), atol=0, rtol=0)
    assert digests[0] == digests[1] and len({*digests}) == 3
