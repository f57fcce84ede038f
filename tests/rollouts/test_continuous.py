"""Continuous batching samples from the same distribution, and refuses unsupported requests."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import GenerationConfig, MambaConfig, MambaForCausalLM

from hf_align.errors import UserError
from hf_align.layout.branches import build_branches
from hf_align.models.loading import load_policy
from hf_align.models.value import PolicyWithValueHead
from hf_align.rollouts import sample_responses
from tests.rollouts.noting import note_continuous
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer

PROMPTS = [list(range(1, 40)), [70], [9, 8]]
LEAKS = {"top_k": 1, "top_p": 0.1, "temperature": 0.01, "repetition_penalty": 5.0, "do_sample": False}


def ids(samples: list[Any]) -> list[list[int]]:
    return [sample.token_ids for sample in samples]


def test_the_likeliest_tokens_are_those_of_the_static_engine(tmp_path: Any):
    folder = save_tiny(tmp_path)
    lora = LoraConfig(target_modules="all-linear", init_lora_weights=False)
    for model in (tiny_model(), PolicyWithValueHead(load_policy(folder, lora=lora))):
        draw = functools.partial(
            sample_responses, model, tiny_tokenizer(), PROMPTS, num_samples=2, max_new_tokens=12, temperature=0
        )
        assert ids(draw(engine="continuous")) == ids(draw()) == ids(draw(engine="continuous", batch_size=2))


def test_sampled_log_probs_are_those_of_the_training_forward(monkeypatch: pytest.MonkeyPatch):
    model, temperature = tiny_model(), 0.7
    model.generation_config = GenerationConfig(**LEAKS)
    logps: dict[tuple[int, ...], list[float]] = {}

    def note(result: Any) -> None:
        logps[(*result.prompt_ids, -1, *result.generated_tokens)] = list(result.logprobs)

    note_continuous(monkeypatch, note)
    samples = sample_responses(
        model,
        tiny_tokenizer(),
        PROMPTS,
        num_samples=3,
        max_new_tokens=6,
        temperature=temperature,
        generator_seed=0,
        engine="continuous",
    )
    documents = [(PROMPTS[sample.prompt_index], [sample.token_ids]) for sample in samples]
    with torch.no_grad():
        branches = build_branches(documents, pad_token_id=0)
        scored = PolicyWithValueHead(model)(branches, temperature=temperature)["logps"]
    own = [logp for prompt, (response,) in documents for logp in logps[(*prompt, -1, *response)]]
    torch.testing.assert_close(scored, torch.tensor(own), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_samples_of_a_prompt_are_independent_and_the_seed_decides():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    draw = functools.partial(
        sample_responses, model, tokenizer, [[1, 2]], num_samples=12, max_new_tokens=2, engine="continuous"
    )
    state = torch.get_rng_state()
    first = draw(generator_seed=1)
    assert draw(generator_seed=1) == first != draw(generator_seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert len({sample.token_ids[0] for sample in first}) > 3, "each has a first token of its own"
    torch.manual_seed(3)
    second, third = draw(), draw()
    assert second != third
    torch.manual_seed(3)
    assert draw() == second


def test_ends_and_stop_strings_end_a_response():
    letters = set("abcdefghijklmnopqrstuvwxyz")
    model, tokenizer = tiny_model(), tiny_tokenizer()
    model.generation_config.eos_token_id = list(range(130, 200))
    samples = sample_responses(
        model,
        tokenizer,
        PROMPTS,
        num_samples=8,
        max_new_tokens=4,
        stop_strings=list(letters),
        generator_seed=0,
        engine="continuous",
    )
    assert {sample.finished for sample in samples} == {True, False}
    by_string = [sample for sample in samples if sample.text[-1:] in letters and sample.text]
    # The texts of special tokens (256 and more) have letters, too.
    by_token = [sample for sample in samples if sample.token_ids[-1] in {*range(130, 200), 256, 257, 258, 259}]
    assert by_string and by_token
    for sample in samples:
        assert sample.finished == (sample in by_string or sample in by_token)
        assert not set(sample.text[:-1]) & letters and not set(sample.token_ids[:-1]) & set(range(130, 200))


def test_the_model_comes_out_as_it_went_in():
    model = tiny_model(attn_implementation="eager").train()
    config = model.generation_config
    sample_responses(model, tiny_tokenizer(), PROMPTS, max_new_tokens=2, engine="continuous")
    assert model.training and model.generation_config is config
    assert model.config._attn_implementation == "eager"
    assert "forward" not in vars(model)


def test_autocast_holds_in_the_thread_that_generates():
    model: Any = tiny_model().bfloat16()
    torch.manual_seed(0)
    kinds: set[torch.dtype] = set()
    model.model.layers[0].self_attn.q_proj.float().register_forward_hook(
        lambda module, args, output: kinds.add(output.dtype)
    )
    with torch.autocast("cpu", torch.bfloat16):
        sample_responses(model, tiny_tokenizer(), PROMPTS, max_new_tokens=2, engine="continuous")
    assert kinds == {torch.bfloat16}


def test_what_it_cannot_do_is_said():
    draw = functools.partial(
        sample_responses, tokenizer=tiny_tokenizer(), prompt_ids=PROMPTS, max_new_tokens=2, engine="continuous"
    )
    mamba = MambaForCausalLM(MambaConfig(vocab_size=260, hidden_size=16, num_hidden_layers=1, state_size=4))
    with pytest.raises(UserError, match=r"can't run MambaForCausalLM.*static"):
        draw(mamba)
    with pytest.raises(UserError, match="flex_attention is not supported"):
        draw(tiny_model(attn_implementation="flex_attention"))
    with pytest.raises(UserError, match=r"float32.*autocast.*bfloat16"), torch.autocast("cpu", torch.bfloat16):
        draw(tiny_model())


def test_a_failure_inside_is_raised(monkeypatch: pytest.MonkeyPatch):
    model = tiny_model()

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("no such kernel")

    monkeypatch.setattr(model.model.layers[0].mlp, "forward", broken)
    with pytest.raises(UserError, match=r"no such kernel.*static"):
        sample_responses(model, tiny_tokenizer(), PROMPTS, max_new_tokens=2, engine="continuous")
