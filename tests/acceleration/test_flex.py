"""FlexAttention on branches: the block mask equals the dense mask, and log-probs are those of SDPA.

Transformers compiles FlexAttention and its masks, which takes half a minute on a CPU: the tests run them uncompiled.
Torch has no backward pass for it on CPUs.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention
from transformers import masking_utils
from transformers.integrations.flex_attention import WrappedFlexAttention

from hf_align.acceleration.flex import block_mask
from hf_align.acceleration.recompute import enable_selective_recompute
from hf_align.errors import UserError
from hf_align.layout.branches import Branches, build_branches
from hf_align.models.policy import PolicyModel
from hf_align.models.reward import RewardModel
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer
from tests.trainers.pairs import options, pairs

TABLES = ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks")


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WrappedFlexAttention, "__call__", lambda self: flex_attention)
    monkeypatch.setattr(WrappedFlexAttention, "__init__", lambda self, training: None)
    monkeypatch.setattr(
        masking_utils, "create_block_mask", lambda *args, _compile, **kw: create_block_mask(*args, **kw)
    )


def documents(seed: int, longest: int = 300) -> list[Any]:
    """Some of them longer than a block of 128 tokens."""
    rng = random.Random(seed)

    def ids(most: int) -> list[int]:
        return [rng.randrange(1, 250) for _ in range(rng.randint(1, most))]

    return [
        (ids(longest), [ids(longest // 2) for _ in range(rng.choice((1, 2, 3, 7)))]) for _ in range(rng.randint(1, 5))
    ]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("row_tokens", [None, 700, 2000])
def test_the_block_mask_is_the_dense_mask(seed: int, row_tokens: int | None):
    branches = build_branches(documents(seed), pad_token_id=0, row_tokens=row_tokens)
    rows, width = branches.input_ids.shape
    blocks = block_mask(branches)
    assert blocks.shape == (rows, 1, width, width)
    assert torch.equal(create_mask(blocks.mask_mod, rows, None, width, width, "cpu"), branches.attention_mask())
    from_dense = create_block_mask(blocks.mask_mod, rows, None, width, width, "cpu")
    assert torch.equal(blocks.to_dense(), from_dense.to_dense())
    for table in TABLES:
        assert torch.equal(getattr(blocks, table), getattr(from_dense, table)), table


class NoDenseMask(Branches):
    """Branches whose `[T, T]` mask must not be built."""

    def attention_mask(self) -> torch.Tensor:
        raise AssertionError("a [T, T] mask was made")


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("row_tokens", [None, 900])
def test_log_probs_are_those_of_sdpa(row_tokens: int | None):
    branches = build_branches(documents(1), pad_token_id=0, row_tokens=row_tokens)
    expected = PolicyModel(tiny_model(max_position_embeddings=1024))
    model = PolicyModel(tiny_model(max_position_embeddings=1024, attn_implementation="flex_attention"))
    assert model.honours_branch_mask(branches)
    with torch.no_grad():
        actual = model(NoDenseMask(**vars(branches)))
        torch.testing.assert_close(actual, expected(branches), atol=1e-4, rtol=0)
        plain = branches.as_separate()
        separate = model(plain)
    torch.testing.assert_close(actual, separate, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("uncompiled")
def test_rewards_are_those_of_sdpa(tmp_path: Path):
    folder = save_tiny(tmp_path)
    prompts, responses = ["one prompt " * 15] * 4, ["a", "bb " * 40, "ccc", "dd"]
    torch.manual_seed(0)
    sdpa = RewardModel.from_backbone(folder)
    torch.manual_seed(0)
    flex = RewardModel.from_backbone(folder)
    cast(Any, flex.model).set_attn_implementation("flex_attention")
    assert flex.score(prompts, responses) == pytest.approx(sdpa.score(prompts, responses), abs=1e-4)
    assert flex.shares_prompts


@pytest.mark.usefixtures("uncompiled")
def test_a_trainer_evaluates_with_it_and_says_that_a_cpu_cannot_train_with_it(tmp_path: Path):
    def trainer(implementation: str) -> DPOTrainer:
        model = tiny_model(attn_implementation=implementation, max_position_embeddings=1024)
        config = DPOConfig(**options(tmp_path, bf16=False))
        own = {"processing_class": tiny_tokenizer(), "train_dataset": pairs(4), "eval_dataset": pairs(4)}
        return DPOTrainer(model, args=config, **own)

    flex, sdpa = trainer("flex_attention"), trainer("sdpa")
    actual, expected = flex.evaluate(), sdpa.evaluate()
    for name in ("eval_logps/chosen", "eval_logps/rejected"):
        assert actual[name] == pytest.approx(expected[name], abs=1e-4)
    assert not flex.runner.separate
    with pytest.raises(UserError, match=r"flex_attention.*no backward pass on a CPU.*sdpa"):
        flex.train()


def test_selective_recompute_refuses_it():
    model = PolicyModel(tiny_model(attn_implementation="flex_attention"))
    with pytest.raises(UserError, match=r"'selective' doesn't work with attn_implementation='flex_attention'"):
        enable_selective_recompute(model)
