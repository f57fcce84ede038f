from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_align.evaluation.continuations import Continuation, sample_continuations
from hf_align.rollouts import SamplingRequest


@pytest.fixture(scope="module")
def tiny(tiny_model_dir: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir), AutoTokenizer.from_pretrained(tiny_model_dir)


def test_samples_keep_the_prompts_order_and_the_seed(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    prompts = ["a much longer prompt than the other ones", [{"role": "user", "content": "Hi"}], "b"]
    finished: list[int] = []
    first = sample_continuations(model, tokenizer, prompts, max_new_tokens=4, batch_size=2, progress=finished.append)
    assert finished == [2, 3]
    assert all(sample.tokens <= 4 for sample in first)
    assert first == sample_continuations(model, tokenizer, prompts, max_new_tokens=4, batch_size=2)
    assert first != sample_continuations(model, tokenizer, prompts, max_new_tokens=4, batch_size=2, seed=1)


def test_a_prefilled_answer_is_continued_not_followed_by_another_turn(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    seen: list[str] = []

    def engine(model: Any, request: SamplingRequest) -> list[list[int]]:
        seen.extend(tokenizer.decode(ids) for ids in request.prompt_ids)
        return [[tokenizer.eos_token_id]]

    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well,"}]
    sample_continuations(model, tokenizer, [turns], max_new_tokens=2, engine=engine)
    assert seen[0].endswith("assistant\nWell,")


def test_the_whole_distribution_is_sampled_and_the_end_is_no_token_of_the_text(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    space, letter = tokenizer(" a", add_special_tokens=False)["input_ids"]

    def engine(model: Any, request: SamplingRequest) -> list[list[int]]:
        assert (request.top_p, request.temperature, request.num_samples) == (1.0, 1.0, 1)
        return [[letter, tokenizer.eos_token_id], [space, letter]]

    samples = sample_continuations(model, tokenizer, ["b", "c"], max_new_tokens=2, engine=engine)
    assert samples == [Continuation("a", 1, True), Continuation("a", 2, False)]
    assert samples[0].token_ids == (letter, tokenizer.eos_token_id), "with the end"
