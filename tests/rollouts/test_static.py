"""The static engine gives the results of transformers' `generate`, with less work."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    Gemma2Config,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen3Config,
)
from transformers.generation.logits_process import TopPLogitsWarper

from hf_align.acceleration.casts import cast_once
from hf_align.models.loading import load_policy
from hf_align.rollouts import SamplingRequest, sample_responses, static
from tests.tiny import tiny_config, tiny_model, tiny_tokenizer

PROMPTS = [[1, 2, 3, 4, 5], [70], [9, 8]]
SMALL = {"vocab_size": 260, "hidden_size": 32, "num_hidden_layers": 2, "tie_word_embeddings": False}
LLAMA_LIKE = {**SMALL, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}


def build(config: PreTrainedConfig) -> Any:
    torch.manual_seed(0)
    config.initializer_range = 0.3
    return AutoModelForCausalLM.from_config(config).eval()


def asked(**settings: Any) -> SamplingRequest:
    defaults: dict[str, Any] = {
        "prompt_ids": PROMPTS,
        "num_samples": 1,
        "max_new_tokens": 4,
        "temperature": 1.0,
        "top_p": 1.0,
        "end_ids": [258],
        "stop_strings": (),
        "pad_token_id": 259,
        "tokenizer": tiny_tokenizer(),
    }
    return SamplingRequest(**{**defaults, **settings})


def of_generate(model: Any, length: int) -> list[list[int]]:
    """Greedy responses by transformers, each prompt alone, without end tokens."""
    config = GenerationConfig(max_new_tokens=length, do_sample=False, pad_token_id=259)
    model.generation_config = GenerationConfig()
    rows = [model.generate(torch.tensor([prompt]), generation_config=config)[0].tolist() for prompt in PROMPTS]
    return [row[len(prompt) :] for row, prompt in zip(rows, PROMPTS, strict=True)]


@pytest.mark.parametrize(
    ("config", "stepwise"),
    [
        (tiny_config(), True),
        (Qwen3Config(**LLAMA_LIKE), True),
        (MistralConfig(**LLAMA_LIKE, sliding_window=4), True),
        (Gemma2Config(**LLAMA_LIKE, sliding_window=4, query_pre_attn_scalar=8), True),
        (GPT2Config(**SMALL, n_head=4, n_positions=128), True),
        (BloomConfig(**SMALL, n_head=4), False),
        (MambaConfig(**SMALL, state_size=4), False),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_the_likeliest_tokens_are_those_of_generate(config: PreTrainedConfig, stepwise: bool):
    model = build(config)
    assert static.decodes_stepwise(model) == stepwise
    length = static.ROOM + 8
    actual = static.static_engine(model, asked(max_new_tokens=length, temperature=0, num_samples=2, end_ids=[]))
    assert actual[::2] == actual[1::2] == of_generate(model, length)
    assert len({token for row in actual for token in row}) > 10


def test_a_prompt_is_encoded_once_and_ended_responses_leave():
    model = tiny_model()
    shapes: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    ends = list(range(130, 200))
    request = asked(num_samples=8, max_new_tokens=20, end_ids=ends)
    torch.manual_seed(0)
    shrinking = static.static_engine(model, request)
    rows = [rows for rows, _ in shapes[1:]]
    assert shapes[0] == (3, 5) and {columns for _, columns in shapes[1:]} == {1}
    assert rows == sorted(rows, reverse=True) and len(set(rows)) > 1 and rows[-1] <= 4
    lengths = torch.tensor([len(row) for row in shrinking])
    for step, batch in enumerate(rows, start=1):
        running = int((lengths > step).sum())
        assert running <= batch < running / static.SHRINK + 1
    torch.manual_seed(0)
    alone = static.static_engine(model, replace(request, batch_size=1))  # a batch of one never shrinks
    assert alone == shrinking


def test_responses_may_outgrow_the_caches_room_several_times():
    model, length = tiny_model(), 3 * static.ROOM + 1
    actual = static.static_engine(model, asked(max_new_tokens=length, temperature=0, end_ids=[]))
    assert actual == of_generate(model, length)


def test_a_sampled_response_depends_on_its_prompt_its_place_and_the_seed_alone():
    model = tiny_model()
    draw = functools.partial(
        sample_responses, model, tiny_tokenizer(), num_samples=2, max_new_tokens=9, generator_seed=5
    )
    together = [sample.token_ids for sample in draw(prompt_ids=PROMPTS)]
    for size in (1, 2, 5):
        assert [sample.token_ids for sample in draw(prompt_ids=PROMPTS, batch_size=size)] == together
    others = draw(prompt_ids=[[17] * 11, PROMPTS[1], [4]])
    assert [sample.token_ids for sample in others[2:4]] == together[2:4]
    assert together[0] != together[1]


def test_tokens_are_drawn_by_inversion():
    probs = torch.tensor([[0.0, 0.5, 0.0, 0.2, 0.3, 0.0]])
    logits, request = probs.log(), asked()
    below = 1 - 2**-53
    draws = torch.tensor([0.0, 0.4999, 0.5001, 0.6999, 0.7001, below], dtype=torch.float64)
    tokens = static.next_tokens(logits.expand(6, -1), request, draws)
    assert tokens.tolist() == [1, 1, 3, 3, 4, 4]
    hot = static.next_tokens(2 * logits.expand(6, -1), asked(temperature=2.0), draws)
    assert hot.tolist() == tokens.tolist()


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.8])
def test_top_p_keeps_the_tokens_that_transformers_keeps(top_p: float):
    torch.manual_seed(0)
    logits = 2 * torch.randn(1, 40)
    kept = TopPLogitsWarper(top_p)(cast(Any, torch.zeros(1, 1)), logits.clone())
    draws = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    tokens = static.next_tokens(logits.expand(len(draws), -1), asked(top_p=top_p), draws)
    shares = torch.bincount(tokens, minlength=40) / len(draws)
    torch.testing.assert_close(shares, kept.softmax(-1)[0], atol=2e-4, rtol=0)


def test_weights_are_cast_once_under_autocast_with_the_same_numbers(tmp_path: Any):
    model: Any = tiny_model()  # embeddings and head are one weight
    model.requires_grad_(False)
    head, layer, ids = model.lm_head.weight, model.model.layers[0].self_attn.q_proj, torch.tensor([[1, 2, 3]])
    trained = layer.weight.requires_grad_(True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(ids).logits
        undo, inner_undo = cast_once(model), cast_once(model)
        inner_undo()
        assert model.lm_head.weight.dtype == torch.bfloat16
        assert model.model.embed_tokens.weight is head and head.dtype == torch.float32
        assert layer.weight.dtype == torch.bfloat16
        assert torch.equal(model(ids).logits, expected)
        undo()
        assert model.lm_head.weight is head and layer.weight is trained
    cast_once(model)
    assert model.lm_head.weight is head, "no autocast, no cast"


def test_the_head_gets_contiguous_states():
    """For a strided view torch copies the head's weight once per row."""
    model, seen = build(LlamaConfig(**LLAMA_LIKE)), []
    model.lm_head.register_forward_hook(lambda _, args, out: seen.append(args[0].is_contiguous()))
    static.static_engine(model, asked())
    assert seen and all(seen)
    model(torch.tensor([[1, 2, 3], [4, 5, 6]]), logits_to_keep=1)
    assert not seen[-1]  # the model is unchanged


@pytest.mark.parametrize("vocabulary", [1, 255, 256, 257, 1000])
def test_inversion_by_blocks_finds_what_the_running_sum_says(vocabulary: int):
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(1, vocabulary, generator=generator)
    probs = probs.masked_fill(torch.rand(1, vocabulary, generator=generator) < 0.4, 0.0)
    probs[0, vocabulary // 2] = 0.3
    draws = torch.rand(2000, generator=generator, dtype=torch.float64)
    draws[0] = 1 - 2**-53
    expected = torch.searchsorted(probs[0].double().cumsum(0), draws * probs.double().sum(), right=True)
    tokens = static._invert(probs.expand(len(draws), -1), draws)
    assert (tokens == expected)[1:].double().mean() > 0.999  # but for a draw within rounding of a boundary
    assert (probs[0, tokens] > 0).all()


def test_a_draw_that_rounding_puts_behind_a_block_finds_its_last_token():
    """A block's sum and its running sum round differently: the largest draw may exceed the latter's maximum."""
    generator = torch.Generator().manual_seed(0)
    logits = 12 * torch.randn(2000, 1000, generator=generator)  # probabilities so different that their sums are rounded
    probs = logits.softmax(-1).masked_fill(torch.arange(1000) > 900, 0.0)
    tokens = static._invert(probs, torch.full((2000,), 1 - 2**-53, dtype=torch.float64))
    assert (probs.gather(1, tokens[:, None]) > 0).all()


@pytest.mark.slow
def test_the_real_model_says_what_generate_says(base_dir: str):
    tokenizer = AutoTokenizer.from_pretrained(base_dir)
    policy: Any = load_policy(base_dir, lora=LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data *= 0.1
    prompts = [tokenizer(text).input_ids for text in ("The capital of France is", "One, two, three,")]
    samples = sample_responses(policy, tokenizer, prompts, num_samples=2, max_new_tokens=12, temperature=0)
    config = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=tokenizer.eos_token_id)
    policy.generation_config = GenerationConfig()
    for prompt, sample in zip(prompts, samples[::2], strict=True):
        whole = policy.generate(input_ids=torch.tensor([prompt]), generation_config=config)[0].tolist()
        assert sample.token_ids == whole[len(prompt) :]
    assert samples[0].token_ids == samples[1].token_ids
