"""Those who write responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_align import RewardModel
from hf_align.collators.rows import Side
from hf_align.data.parts import Parts
from hf_align.errors import UserError
from hf_align.feedback import Prompt
from hf_align.feedback.collection.writers import Request, Writer, open_models
from hf_align.feedback.judges.endpoint import EndpointClient
from hf_align.models.sources import load_tokenizer
from hf_align.rollouts import sample_responses
from tests.feedback.judges.endpoint.stand_in import StandIn
from tests.tiny import tiny_model, tiny_tokenizer

PROMPTS = [Prompt(text) for text in ("Well?", "And a longer one:", "a", "Once more, with feeling")]
REQUEST = Request(count=2, temperature=0.9, max_new_tokens=4, batch_size=4, seed="0/0/0")


def written(
    writer: Writer, parts: Parts, prompts: Sequence[Prompt] = PROMPTS, request: Request = REQUEST
) -> dict[str, Any]:
    return dict(writer.write(prompts, request, parts))


def upper(prompts: list[Side]) -> list[str]:
    return [str(prompt).upper() for prompt in prompts]


def test_models_are_named_by_folder_function_or_mapping(tiny_model_dir: str) -> None:
    assert [each.name for each in open_models([tiny_model_dir, upper])] == [tiny_model_dir, "upper"]
    loaded = (tiny_model(), tiny_tokenizer())
    named = open_models({"base": Path(tiny_model_dir), "mine": loaded, "loud": lambda prompts: upper(prompts)})
    assert [each.name for each in named] == ["base", "mine", "loud"]
    assert [each.name for each in open_models(upper)] == ["upper"]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "models is empty; name at least one model"),
        ([upper, upper], "models has 'upper' twice"),
        ([lambda prompts: prompts], "models has a function without a name; give a mapping"),
        ([3], "models has 3; give Hub ids, folders, loaded models, endpoints or functions"),
        ([tiny_model()], "models has a LlamaForCausalLM that doesn't say where it is from"),
        (["no/such/folder"], "no/such/folder"),
    ],
)
def test_what_cannot_write_is_refused(models: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_models(models)


def test_a_reward_model_is_refused(tiny_model_dir: str, tmp_path: Path) -> None:
    RewardModel.from_backbone(tiny_model_dir).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"is a reward model .* which can't write text"):
        open_models([str(tmp_path)])


def test_a_policy_samples_from_its_distribution_and_says_how(tiny_model_dir: str) -> None:
    (writer,) = open_models(tiny_model_dir)
    likely = replace(REQUEST, count=1, temperature=1e-4, batch_size=1)
    texts = written(writer, Parts(), request=likely)
    model, tokenizer = tiny_model(), load_tokenizer(tiny_model_dir)
    ids = [tokenizer(str(prompt.content))["input_ids"] for prompt in PROMPTS]
    expected = sample_responses(model, tokenizer, ids, max_new_tokens=4, temperature=0.0)
    for prompt, response in zip(PROMPTS, expected, strict=True):
        (each,) = texts[prompt.id]
        assert each.text == response.text.rstrip("\N{REPLACEMENT CHARACTER}")
        assert each.settings["finished"] is response.finished
        assert each.settings["temperature"] == 1e-4 and each.settings["max_new_tokens"] == 4
    (loaded,) = open_models({"another name": (tiny_model(), tokenizer)})
    assert written(loaded, Parts(), request=likely) == texts


def test_nothing_is_sampled_twice(tiny_model_dir: str, tmp_path: Path) -> None:
    (writer,) = open_models(tiny_model_dir)
    first = written(writer, Parts(tmp_path), PROMPTS[:3])
    assert all(len(each) == 2 for each in first.values())
    again = Parts(tmp_path)
    both = written(writer, again, PROMPTS[::-1])
    assert again.found == 3 and len(list(tmp_path.iterdir())) == 4
    assert {id: both[id] for id in first} == first
    # Another seed, temperature, length, count or model is another thing.
    changes = ({"seed": "1/0/0"}, {"temperature": 0.8}, {"max_new_tokens": 3}, {"count": 1})
    for change in changes:
        parts = Parts(tmp_path)
        written(writer, parts, request=replace(REQUEST, **change))
        assert parts.found == 0, change
    (other,) = open_models({tiny_model_dir: (tiny_model(1), tiny_tokenizer())})
    written(other, parts := Parts(tmp_path))
    assert parts.found == 0
    with torch.no_grad():  # a model in training is another one after each step
        other.sampler.model.model.norm.weight += 0.1  # type: ignore[attr-defined]
    written(other, parts)
    assert parts.found == 0
    # The size of the batches isn't part of what was asked.
    written(writer, parts := Parts(tmp_path), request=replace(REQUEST, batch_size=64))
    assert parts.found == 4


def test_samples_follow_the_seed(tiny_model_dir: str) -> None:
    (writer,) = open_models(tiny_model_dir)
    first = written(writer, Parts())
    assert written(writer, Parts()) == first
    assert written(writer, Parts(), request=replace(REQUEST, seed="1/0/0")) != first


def test_a_function_gets_each_prompt_as_often_as_it_shall_answer(tmp_path: Path) -> None:
    calls: list[list[Side]] = []

    def numbered(prompts: list[Side]) -> list[str]:
        calls.append(prompts)
        return [f"{prompt} {number}" for number, prompt in enumerate(prompts)]

    (writer,) = open_models(numbered)
    texts = written(writer, Parts(tmp_path), PROMPTS[:3])
    assert calls == [["Well?", "Well?", "And a longer one:", "And a longer one:"], ["a", "a"]]
    assert [each.text for each in texts[PROMPTS[1].id]] == ["And a longer one: 2", "And a longer one: 3"]
    assert written(writer, Parts(tmp_path), PROMPTS[:3]) == texts and len(calls) == 2


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (["one"], "models: f must return a text for each prompt; it got 4 prompts and returned 1 text."),
        (None, "models: f must return a list of texts; it returned None."),
        ("four", "models: f must return a list of texts; it returned 'four'."),
        (["a", "b", None, "c"], "models: f must return texts; it returned None."),
    ],
)
def test_a_function_that_returns_something_else_is_refused(returned: list[Any], message: str) -> None:
    (writer,) = open_models({"f": lambda prompts: returned})
    with pytest.raises(UserError, match=f"^{message}$"):
        written(writer, Parts())


def test_a_function_that_fails_is_named_with_its_error() -> None:
    (writer,) = open_models({"f": lambda prompts: prompts[99]})
    with pytest.raises(UserError, match=r"^models: f failed: IndexError: list index out of range$"):
        written(writer, Parts())


def test_a_prompt_without_room_for_a_response_is_refused_before_anything_is_loaded(tiny_model_dir: str) -> None:
    (writer,) = open_models(tiny_model_dir)
    long = Prompt("x" * 2040)
    with pytest.raises(UserError, match=r"max_new_tokens is 9; .* has 2048 positions and .* takes 2040"):
        writer.check([*PROMPTS, long], 9)
    writer.check([*PROMPTS, long], 8)
    assert "sampler" not in vars(writer)


def test_a_model_behind_an_endpoint_is_asked_for_each_response_once(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> dict[str, Any]:
        text = f"{body['messages'][-1]['content']} {body['seed']}"
        return {"message": {"content": text}, "finish_reason": "length" if "And" in text else "stop"}

    with StandIn(answer).running() as stand_in:
        client = EndpointClient("writer-1", url=stand_in.url, cache=tmp_path / "a")
        [writer] = open_models([client])
        assert writer.identity()["endpoint"]["model"] == "writer-1"
        made = written(writer, Parts())
        assert made == written(writer, Parts()) and stand_in.asked.total() == 2 * len(PROMPTS)
        for prompt in PROMPTS:
            first, second = made[prompt.id]
            assert first.text != second.text and first.text.startswith(str(prompt.content))
            assert first.settings["finished"] == (not str(prompt.content).startswith("And"))
        assert all('"max_tokens":4' in body and '"temperature":0.9' in body for body in stand_in.asked)
        written(writer, Parts(), [Prompt([{"role": "user", "content": "Well?"}])])
        assert stand_in.asked.total() == 2 * len(PROMPTS)  # the same requests
        with pytest.raises(
            UserError, match=r"models: writer-1 is behind an endpoint, which gets messages only; .* tools"
        ):
            writer.check([Prompt("p", columns={"tools": [{"name": "search"}]})], 4)
