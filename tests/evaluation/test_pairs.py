"""Evaluation of reward models on pairs, with scores set by hand."""

from typing import Any

import pytest
from datasets import Dataset
from tokenizers import processors
from transformers import AutoTokenizer

from hf_align.collators import encode_prompts, tokenize_preferences
from hf_align.errors import UserError
from hf_align.evaluation.pairs import measure_on_pairs
from hf_align.evaluation.ratings import measure_on_ratings
from tests.tiny import tiny_tokenizer


class Model:
    """A reward model whose scores are known."""

    def __init__(self, tokenizer: Any, scores: dict[str, float]) -> None:
        self.tokenizer, self.scores = tokenizer, scores
        self.asked: list[str] = []

    def score_ids(self, prompt_ids: list[list[int]], response_ids: list[list[int]]) -> list[float]:
        self.asked += self.tokenizer.batch_decode(prompt_ids)
        responses = self.tokenizer.batch_decode(response_ids)
        assert all(response.endswith("<|im_end|>") for response in responses)
        return [self.scores[response.removesuffix("<|im_end|>")] for response in responses]


def test_a_tie_counts_half(tiny_model_dir: str) -> None:
    rows = Dataset.from_list(
        [{"prompt": "p", "chosen": chosen, "rejected": rejected} for chosen, rejected in ("ab", "ac", "bd", "bc")]
    )
    model: Any = Model(AutoTokenizer.from_pretrained(tiny_model_dir), {"a": 1.0, "b": 0.0, "c": 3.0, "d": 0.0})
    actual = measure_on_pairs(model, rows, resamples=50)
    assert actual["pairs"] == 4
    assert actual["accuracy"] == pytest.approx((1 + 0 + 0.5 + 0) / 4)
    assert actual["margin"] == pytest.approx((1 - 2 + 0 - 3) / 4)
    assert actual["accuracy_interval"][0] <= actual["accuracy"] <= actual["accuracy_interval"][1]


def test_a_prompt_that_both_begin_with_is_told_apart(tiny_model_dir: str) -> None:
    rows = Dataset.from_list([{"chosen": "Say hi. Hi!", "rejected": "Say hi. No."}] * 2)
    model: Any = Model(AutoTokenizer.from_pretrained(tiny_model_dir), {" Hi!": 1.0, " No.": 0.5})
    assert measure_on_pairs(model, rows, resamples=50)["accuracy"] == 1
    assert set(model.asked) == {"Say hi."}


PREFILLED = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well,"}]


def appending_tokenizer() -> Any:
    """A tokenizer that appends EOS to each text, with a template that shows tools and an option."""
    tokenizer = tiny_tokenizer()
    post = processors.TemplateProcessing(single="$A <|im_end|>", special_tokens=[("<|im_end|>", 258)])
    tokenizer.backend_tokenizer.post_processor = post
    tokenizer.chat_template = "{{ tools[0].name }} {{ mood }} " + str(tokenizer.chat_template)
    assert tokenizer("a").input_ids[-1] == 258
    return tokenizer


def test_evaluation_gives_rows_the_ids_of_training() -> None:
    tokenizer, asked = appending_tokenizer(), []

    class Noting:
        def __init__(self) -> None:
            self.tokenizer = tokenizer

        def score_ids(self, prompt_ids: Any, response_ids: Any) -> list[float]:
            asked.extend(zip(map(list, prompt_ids), map(list, response_ids), strict=True))
            return [float(number) for number in range(len(prompt_ids))]

    options = {"tools": [{"name": "clock"}], "chat_template_kwargs": {"mood": "calm"}}
    answers = [[{"role": "assistant", "content": text}] for text in (" yes", " no")]
    rows = [{"prompt": PREFILLED, "chosen": answers[0], "rejected": answers[1], **options}]
    (trained,) = tokenize_preferences(rows, tokenizer).to_list()
    assert tokenizer.decode(trained["prompt_ids"]).startswith("clock calm")
    assert tokenizer.decode(trained["prompt_ids"]).endswith("assistant\nWell,")
    expected = [(trained["prompt_ids"], ids) for ids in trained["response_ids"]]
    model: Any = Noting()
    measure_on_pairs(model, Dataset.from_list(rows), resamples=50)
    assert asked == expected
    asked.clear()
    rated = [{"prompt": PREFILLED, "response": answer, "rating": n, **options} for n, answer in enumerate(answers)]
    assert measure_on_ratings(model, Dataset.from_list(rated), resamples=50)["across_prompts"] is False
    assert asked == expected
    asked.clear()
    texts = [{"prompt": "Hi", "chosen": " yes", "rejected": " no"}]
    measure_on_pairs(model, Dataset.from_list(texts), resamples=50)
    assert [tokenizer.decode(ids) for ids in asked[0]] == ["Hi", " yes<|im_end|>"]
    assert encode_prompts(tokenizer, [PREFILLED], rows=[options]) == [trained["prompt_ids"]]


def test_rows_that_cannot_be_used(tiny_model_dir: str) -> None:
    model: Any = Model(AutoTokenizer.from_pretrained(tiny_model_dir), {})
    with pytest.raises(UserError, match=r"^data: 1 row has an empty chosen \(row 0\)"):
        measure_on_pairs(model, Dataset.from_list([{"prompt": "p", "chosen": "", "rejected": "b"}]))
