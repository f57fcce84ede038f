"""A policy that answers prompts outside of training."""

from __future__ import annotations

from typing import Any

import pytest

from hf_align.errors import UserError
from hf_align.rollouts import sample_responses
from hf_align.rollouts.sampler import Sampler, check_positions
from tests.tiny import tiny_config, tiny_model, tiny_tokenizer

CHAT: Any = [{"role": "user", "content": "Say hi."}]


def test_samples_are_those_of_the_engine_by_prompt_without_halves_of_characters() -> None:
    sampler = Sampler(tiny_model(), tiny_tokenizer())
    ids = sampler.encode(["Well?", CHAT], [{}, {}])
    found = sampler.sample(ids, num_samples=16, max_new_tokens=5, temperature=0.9, seed=3)
    options: dict[str, Any] = {"num_samples": 16, "max_new_tokens": 5, "temperature": 0.9, "generator_seed": 3}
    expected = sample_responses(sampler.model, sampler.tokenizer, ids, **options)
    assert [len(each) for each in found] == [16, 16]
    for sample, response in zip([*found[0], *found[1]], expected, strict=True):
        assert sample.text == response.text.rstrip("\N{REPLACEMENT CHARACTER}")
        assert sample.finished is response.finished
    assert any(response.text.endswith("\N{REPLACEMENT CHARACTER}") for response in expected), "the case occurs"


def test_identity_tells_weights_and_end_tokens_apart() -> None:
    tokenizer = tiny_tokenizer()
    same, other = (Sampler(tiny_model(seed), tokenizer).identity() for seed in (0, 1))
    assert same == Sampler(tiny_model(), tokenizer).identity() != other
    model: Any = tiny_model()
    model.generation_config.eos_token_id = [258, 256]
    assert Sampler(model, tokenizer).identity() != same


@pytest.mark.parametrize(
    ("prompt", "template", "tokens", "message"),
    [
        (CHAT, None, 1, "data has messages as prompts, and the tokenizer of m has no chat template for them"),
        ("x" * 32, "", 1, "m has 32 positions and the longest prompt takes 32, which leaves no room for a response"),
        ("x" * 30, "", 3, "max_new_tokens is 3; m has 32 positions and the longest prompt takes 30, so give at most 2"),
    ],
)
def test_prompts_that_leave_no_room_are_refused(prompt: Any, template: str | None, tokens: int, message: str) -> None:
    tokenizer = tiny_tokenizer()
    if template is None:
        tokenizer.chat_template = None  # type: ignore[assignment]
    config = tiny_config(max_position_embeddings=32)
    with pytest.raises(UserError, match=message):
        check_positions("m", tokenizer, config, ["a", prompt], [{}, {}], tokens)
    check_positions("m", tokenizer, config, ["x" * 30], [{}], 2)
