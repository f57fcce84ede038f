"""Log-probs and gradients of the branch layout compared with separate sequences and the model's own logits."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GraniteConfig, PreTrainedConfig

from hf_align.layout.branches import Branches, build_branches
from hf_align.models.loading import load_policy
from hf_align.models.policy import PolicyModel
from hf_align.models.sources import load_tokenizer

TEXTS = [
    ("The movie was", [" great and I loved it, all of it.", " terrible."]),
    ("I bought this phone because it has a", [" good camera.", " bad battery, and I returned it the next day."]),
    ("So", [" tired today :(", " happy to see you all!", " what?"]),
    ("The soup", [" was cold."]),
    ("A tweet:", [" sun", " rain again", " no", " best day of my life, really", " hm", " why me?", " thanks a lot :)"]),
]
"""Prompts with 2, 2, 3, 1 and 7 responses."""
TINY: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def batch_of(base_dir: str, row_tokens: int | None = 64, prompts: int = len(TEXTS)) -> Branches:
    tokenizer = load_tokenizer(base_dir)
    ids = [
        (tokenizer(p)["input_ids"], [tokenizer(r)["input_ids"] + [tokenizer.eos_token_id] for r in rs])
        for p, rs in TEXTS[:prompts]
    ]
    return build_branches(ids, pad_token_id=cast(int, tokenizer.eos_token_id), row_tokens=row_tokens)


def call(model: PolicyModel, branches: Branches, **options: bool) -> torch.Tensor:
    return model(branches, **options)


@pytest.fixture(scope="module", params=["cut_base_dir", pytest.param("base_dir", marks=pytest.mark.slow)])
def policy(request: pytest.FixtureRequest) -> PolicyModel:
    return PolicyModel(load_policy(request.getfixturevalue(request.param), dtype=torch.float32))


@pytest.mark.parametrize(
    ("attention", "row_tokens"),
    [
        ("sdpa", 64),
        ("eager", None),
        pytest.param("sdpa", None, marks=pytest.mark.slow),
        pytest.param("eager", 64, marks=pytest.mark.slow),
    ],
)
def test_branches_equal_separate_sequences_on_the_real_model(
    policy: PolicyModel, base_dir: str, attention: str, row_tokens: int | None
):
    cast(Any, policy.model).set_attn_implementation(attention)
    branches = batch_of(base_dir, row_tokens)
    with torch.no_grad():
        together, apart = call(policy, branches), call(policy, branches.as_separate())
        own = call(policy, branches.as_separate(), full_logits=True)
    cast(Any, policy.model).set_attn_implementation("sdpa")
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=0)
    torch.testing.assert_close(together, own, atol=1e-4, rtol=0)


def test_gradients_of_both_layouts_agree_on_the_real_model(policy: PolicyModel, base_dir: str):
    branches, packed = batch_of(base_dir, None, 4), batch_of(base_dir, prompts=4)
    gradients = []
    for layout in (branches.as_separate(), branches, packed):
        policy.zero_grad()
        sums = layout.sum_by_branch(call(policy, layout))
        (sums * torch.linspace(-1, 1, len(sums))).sum().backward()
        gradients.append({n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None})
    policy.zero_grad()
    assert len(gradients[0]) == len(list(policy.parameters()))
    for name, gradient in gradients[0].items():
        for actual in gradients[1:]:
            assert (actual[name] - gradient).norm() <= 1e-3 * gradient.norm(), name


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(**TINY, final_logit_softcapping=5.0, sliding_window=64),
        CohereConfig(**TINY, logit_scale=0.25),
        GraniteConfig(**TINY, logits_scaling=4.0),
    ],
    ids=["softcap", "logit_scale", "logits_scaling"],
)
def test_heads_that_transform_logits_are_honoured(config: PreTrainedConfig):
    torch.manual_seed(0)
    model = PolicyModel(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))
    nn.init.normal_(cast(Any, model.model).get_output_embeddings().weight, std=1.0)
    branches = build_branches([([1, 2, 3], [[4, 5], [6, 7, 8]]), ([9, 9], [[10], [11, 12]])], pad_token_id=0)
    with torch.no_grad():
        ours, own = call(model, branches), call(model, branches.as_separate(), full_logits=True)
    torch.testing.assert_close(ours, own, atol=1e-5, rtol=1e-5)


def test_lora_on_the_head_is_honoured(tiny_model_dir: str):
    from peft import LoraConfig

    model = load_policy(tiny_model_dir, lora=LoraConfig(target_modules=["lm_head", "q_proj"], init_lora_weights=False))
    policy, branches = PolicyModel(model), batch_of(tiny_model_dir)
    torch.testing.assert_close(
        call(policy, branches), call(policy, branches.as_separate(), full_logits=True), atol=1e-4, rtol=1e-4
    )


def test_windows_shorter_than_a_sequence_need_plain_rows():
    config = Gemma2Config(**TINY, sliding_window=4)
    policy = PolicyModel(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))
    short = build_branches([([1, 2], [[4, 5], [6]])], pad_token_id=0)
    long = build_branches([([1, 2, 3], [[4, 5], [6]])], pad_token_id=0)
    assert policy.honours_branch_mask(short, compared_width=5)
    assert not policy.honours_branch_mask(short), "wider than the window, and nobody compared the layouts so wide"
    assert not policy.honours_branch_mask(long, compared_width=6)


def test_the_wrapper_looks_like_the_model(policy: PolicyModel):
    assert policy.config is policy.model.config
    assert policy.generate == policy.model.generate
    with pytest.raises(AttributeError):
        policy.nothing_of_the_kind  # noqa: B018
