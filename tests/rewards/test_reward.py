"""Arguments of `as_reward`, inputs of functions, and messages on failure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from hf_align.errors import UserError
from hf_align.models.reward import RewardModel
from hf_align.rewards import Reward, as_reward
from hf_align.rewards.reward import check_functions
from tests.tiny import save_tiny, tiny_tokenizer

PROMPTS = ["Write a tweet.", "Review this."]
RESPONSES = ["So happy!", "Dull."]


def length(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(len(response)) for response in responses]


class Judge:
    """An object that scores; it asks for nothing."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def score(self, prompts: list[Any], responses: list[str]) -> list[float]:
        self.seen = prompts
        return [1.0, -1.0]


def test_a_function_scores_texts():
    reward = as_reward(length)
    scores = reward(PROMPTS, RESPONSES)
    assert scores.dtype == torch.float32 and scores.tolist() == [9.0, 5.0]
    assert list(reward.parts) == ["length"]
    assert as_reward(reward) is reward


def test_a_list_is_a_weighted_sum_with_its_parts():
    reward = as_reward([(2.0, length), (Judge(), 0.5), length, lambda p, r: np.array([1, 2])])
    assert reward(PROMPTS, RESPONSES).tolist() == [2 * 9 + 0.5 + 9 + 1, 2 * 5 - 0.5 + 5 + 2]
    parts = {name: scores.tolist() for name, scores in reward.parts.items()}
    assert parts == {"length": [9, 5], "Judge": [1, -1], "length#2": [9, 5], "<lambda>": [1, 2]}


def test_reward_models_compute_in_autocast_and_functions_do_not(tmp_path):
    seen: dict[str, bool] = {}
    model = RewardModel.from_backbone(save_tiny(tmp_path))
    model.register_forward_pre_hook(lambda *_: seen.update(model=torch.is_autocast_enabled("cpu")))

    def function(prompts: list[str], responses: list[str]) -> list[float]:
        seen["function"] = torch.is_autocast_enabled("cpu")
        return [0.0] * len(responses)

    as_reward([model, function], autocast=lambda: torch.autocast("cpu", torch.bfloat16))(PROMPTS, RESPONSES)
    assert seen == {"model": True, "function": False}


def test_a_function_gets_the_columns_and_ids_that_it_names():
    seen: dict[str, Any] = {}
    columns = {"label": [0, 1], "topic": ["a", "b"]}
    ids: dict[str, Any] = {"prompt_ids": [[1], [2]], "response_ids": [[3], [4, 5]]}

    def all_columns(prompts, responses, **columns):
        seen["all"] = columns
        return [0.0, 0.0]

    def some(prompts, responses, response_ids, label, other=7):
        seen["some"] = (response_ids, label, other)
        return [0.0, 0.0]

    def both(texts, answers, *, prompt_ids, **columns):
        seen["both"] = (prompt_ids, columns)
        return [0.0, 0.0]

    as_reward([all_columns, some, both])(PROMPTS, RESPONSES, columns, **ids)
    assert seen["all"] == columns
    assert seen["some"] == ([[3], [4, 5]], [0, 1], 7)
    assert seen["both"] == ([[1], [2]], columns)
    with pytest.raises(UserError, match="'some' asks for 'label'"):
        as_reward(some)(PROMPTS, RESPONSES, {"topic": ["a", "b"]}, **ids)


def test_a_reward_gets_copies_which_it_may_change():
    columns = {"label": [{"is": ["good"]}, {"is": ["bad"]}]}
    ids: dict[str, Any] = {"prompt_ids": [[1], [2]], "response_ids": [[3], [4, 5]]}
    prompts: list[Any] = [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]]
    responses = list(RESPONSES)

    def clear(texts, answers, prompt_ids, response_ids, label):
        scores = [float(len(answer)) for answer in answers]
        label[0]["is"].clear()
        response_ids[1].clear()
        for values in (texts, answers, prompt_ids, label):
            values.clear()
        return scores

    class Clears:
        def score(self, prompts: list[Any], responses: list[str]) -> list[float]:
            prompts[0].clear()
            return [float(len(responses.pop())) for _ in range(2)]

    reward = as_reward([clear, Clears(), length])
    assert reward(prompts, responses, columns, **ids).tolist() == [9.0 + 5.0 + 9.0, 5.0 + 9.0 + 5.0]
    assert prompts == [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]]
    assert (responses, columns) == (RESPONSES, {"label": [{"is": ["good"]}, {"is": ["bad"]}]})
    assert ids == {"prompt_ids": [[1], [2]], "response_ids": [[3], [4, 5]]}


class Ends:
    """An object that scores whether a response has ended, and counts its tokens."""

    def score(
        self, prompts: list[Any], responses: list[str], finished: list[bool], response_ids: Any = None, **more: Any
    ) -> list[float]:
        assert not more, "objects get no columns"
        return [float(end) + (len(response_ids[0]) if response_ids else 0) for end in finished]


def test_whether_responses_have_ended_is_told_on_request():
    def share(prompts: list[str], responses: list[str], *, finished: list[bool]) -> list[float]:
        return [10.0 * end for end in finished]

    def count(prompts: list[str], responses: list[str], **columns: Any) -> list[float]:
        return [float(len(columns))] * len(prompts)

    reward = as_reward([share, Ends(), count, Judge()])
    check_functions(reward, [])
    reward(PROMPTS, RESPONSES, finished=[True, False])
    parts = {name: scores.tolist() for name, scores in reward.parts.items()}
    assert parts == {"share": [10, 0], "Ends": [1, 0], "count": [0, 0], "Judge": [1, -1]}
    ids, columns = [[1, 2], [3, 4]], {"finished": [7, 7], "topic": ["a", "b"]}
    scores = as_reward(Ends())(PROMPTS, RESPONSES, columns, response_ids=ids, finished=[True, False])
    assert scores.tolist() == [3, 2], "a column of the same name is not passed"


def test_arguments_that_a_reward_can_not_get_are_refused_before_anything_is_loaded():
    class Topic:
        def score(self, prompts: list[Any], responses: list[str], topic: list[str]) -> list[float]:
            return []

    class Swapped:
        def score(self, responses: list[str], prompts: list[Any]) -> list[float]:
            return []

    def no_responses(prompts: list[str], finished: list[bool]) -> list[float]:
        return []

    for reward, columns, on_request, problem in (
        (
            Topic(),
            ["topic"],
            ("finished",),
            r"score method of the reward 'Topic' asks for 'topic'; .* only get finished",
        ),
        (Swapped(), [], (), r"'Swapped' takes \(responses, prompts\); .*: score\(prompts, responses\)"),
        (no_responses, ["finished"], ("finished",), r"takes \(prompts, finished\); its first two .* \*\*columns\)"),
    ):
        with pytest.raises(UserError, match=problem):
            check_functions([(0.5, reward)], columns, on_request)


def test_a_classifier_is_no_object_with_a_score_method():
    sizes: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    classifier = LlamaForSequenceClassification(LlamaConfig(vocab_size=9, **sizes))
    with pytest.raises(UserError, match="A reward can't be a LlamaForSequenceClassification; give a reward model"):
        as_reward(classifier)


def test_a_reward_model_scores_a_cut_response_without_an_end(tmp_path):
    model = RewardModel.from_backbone(save_tiny(tmp_path))
    reward = as_reward(model)
    whole, cut = (reward(PROMPTS, RESPONSES, finished=[end] * 2).tolist() for end in (True, False))
    assert whole == pytest.approx(model.score(PROMPTS, RESPONSES), abs=1e-6)
    assert cut == pytest.approx(model.score(PROMPTS, RESPONSES, finished=[False] * 2), abs=1e-6)
    assert min(abs(a - b) for a, b in zip(whole, cut, strict=True)) > 1e-4


def test_prompts_are_texts_for_functions_and_as_they_are_for_models():
    tokenizer, judge, seen = tiny_tokenizer(), Judge(), []
    chats = [[{"role": "user", "content": text}] for text in PROMPTS]
    texts = [str(tokenizer.apply_chat_template(c, add_generation_prompt=True, tokenize=False)) for c in chats]
    ids = tokenizer(texts).input_ids

    def look(prompts, responses):
        seen.append(prompts)
        return [0.0, 0.0]

    as_reward([look, judge], tokenizer=tokenizer)(chats, RESPONSES, prompt_ids=ids)
    assert seen[0][0] == "user\nWrite a tweet.\nassistant\n", "without special tokens"
    assert judge.seen == chats
    as_reward(look)(chats, RESPONSES)
    assert seen[1] == PROMPTS
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    as_reward(look)([[*chat, call] for chat in chats], RESPONSES)
    assert seen[2] == [f"{text}\n" for text in PROMPTS]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0], r"'broken' returned 1 scores for 2 responses"),
        (
            [1.0, float("nan")],
            r"'broken' gave nan to sample 1 \(prompt 'Review this.', response 'Dull.'\); make it return a finite",
        ),
        ([float("-inf"), 1.0], r"'broken' gave -inf to sample 0"),
        ([1.0, 1e39], r"gave 1e\+39 to sample 1"),
        ([1.0, -1e38], r"gave -1e\+38 to sample 1 .*; make it return a finite number up to 1e\+18"),
        ([10**400, 1.0], r"gave an integer too large for any float to sample 0"),
        ([1.0, None], r"gave None instead of a number to sample 1 .*; give every response a number"),
        (["good", "bad"], r"gave 'good' instead of a number to sample 0"),
        (None, r"'broken' returned a NoneType"),
        ("ab", r"'broken' returned a str"),
        (torch.tensor([[1.0, 2.0], [1.0, 2.0]]), r"gave \[1.0, 2.0\] instead of a number to sample 0"),
    ],
)
def test_wrong_scores_are_named(scores: Any, message: str):
    def broken(prompts, responses):
        return scores

    with pytest.raises(UserError, match=message) as raised:
        as_reward([length, broken])(PROMPTS, RESPONSES)
    assert "\n" not in str(raised.value)


def test_weighted_rewards_beyond_float32_are_named():
    def large(prompts, responses):
        return [1.0, 1e17]

    assert as_reward([(10, large), length])(PROMPTS, RESPONSES)[1] == pytest.approx(1e18)
    with pytest.raises(UserError, match=r"weighted rewards of sample 1 .* make 1e\+19, which is too large for float32"):
        as_reward([(100, large), length])(PROMPTS, RESPONSES)


def test_an_exception_names_the_sample_and_is_chained():
    def divides(prompts, responses):
        return [1 / (len(response) - 5) for response in responses]

    with pytest.raises(UserError, match=r"'divides' failed on sample 1 .*'Dull.'.*ZeroDivisionError: ") as raised:
        as_reward(divides)(PROMPTS, RESPONSES)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)

    def in_company(prompts, responses):
        if len(prompts) > 1:
            raise RuntimeError("too many")
        return [0.0]

    with pytest.raises(UserError, match="failed on a batch of 2 samples: RuntimeError: too many"):
        as_reward(in_company)(PROMPTS, RESPONSES)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (3.0, "can't be a float"),
        ([], "empty list"),
        ([(length, length)], "a finite number and a reward"),
        ([(float("nan"), length)], "a finite number and a reward"),
        ([(1e39, length)], r"a finite number and a reward; a weight is beyond 1e\+18, .*: 1e\+39"),
        ([(length, 10**400)], r"a weight is beyond 1e\+18, .*: an integer too large for any float"),
        ([(1.0, length, 2.0)], "a finite number and a reward"),
        (torch.nn.Linear(1, 1), "can't be a Linear"),
        (
            lambda responses, prompts: [0.0],
            r"takes \(responses, prompts\); its first two arguments must be the prompts",
        ),
        (lambda: [0.0], r"takes \(\); its first two"),
    ],
)
def test_what_is_no_reward_is_refused(reward: Any, message: str):
    with pytest.raises(UserError, match=message):
        as_reward(reward)


def test_a_reward_model_scores_as_it_does_alone(tmp_path):
    folder = save_tiny(tmp_path / "base")
    with pytest.raises(UserError, match="base has no reward head and would score at random"):
        as_reward(folder)
    model = RewardModel.from_backbone(folder)
    chats = [[{"role": "user", "content": text}] for text in PROMPTS]
    expected = model.score(chats, RESPONSES)
    assert as_reward(model)(chats, RESPONSES).tolist() == pytest.approx(expected, abs=1e-6)
    model.save_pretrained(tmp_path / "reward")
    reward = as_reward(str(tmp_path / "reward"))
    assert isinstance(reward, Reward) and reward(chats, RESPONSES).tolist() == pytest.approx(expected, abs=1e-5)
    assert list(reward.parts) == ["reward"]
