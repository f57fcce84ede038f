"""Endpoints as judges."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from hf_align.errors import UserError
from hf_align.feedback import EndpointJudge
from hf_align.feedback.judges.named import check_judge
from tests.feedback.judges.endpoint.stand_in import StandIn

PAIRS = ["p", "q", "r"], ["good", "bad", "good"], ["bad", "good", "bad"]


def judge_of(stand_in: StandIn, cache: str | Path = ":memory:", **options: Any) -> EndpointJudge:
    return EndpointJudge("judge-1", url=stand_in.url, cache=cache, **{"concurrency": 2, "timeout": 300.0, **options})


def true(body: dict[str, Any]) -> str:
    """Prefers "good"."""
    question = body["messages"][0]["content"]
    return "A" if question.index("good") < question.index("bad") else "B"


def choice(text: str, **probabilities: float) -> dict[str, Any]:
    top = [{"token": token, "logprob": math.log(p)} for token, p in probabilities.items()]
    logprobs = {"content": [{**top[0], "top_logprobs": top}]}
    return {"message": {"content": text}, "finish_reason": "stop", "logprobs": logprobs}


def test_a_judge_that_always_says_a_gives_ties_only(stand_in: StandIn):
    judgements = judge_of(stand_in).compare(*PAIRS)
    assert [judgement.preference for judgement in judgements] == [0.5] * 3
    assert all(judgement.orders == (1.0, 0.0) and judgement.flipped for judgement in judgements)


def test_verdicts_are_turned_back_to_the_first_response(stand_in: StandIn):
    stand_in.answer = true
    judge = judge_of(stand_in)
    assert [judgement.preference for judgement in judge.compare(*PAIRS)] == [1.0, 0.0, 1.0]
    assert stand_in.asked.total() == 6 and judge.name == "judge-1"
    messages = [{"role": "user", "content": "p"}], [{"role": "assistant", "content": "good"}]
    [judgement] = judge.compare([messages[0]], [messages[1]], [[{"role": "assistant", "content": "bad"}]])
    assert judgement.preference == 1.0 and stand_in.asked.total() == 6  # the same questions


def test_log_probs_of_the_letters_are_the_opinion_where_there_are_any(stand_in: StandIn):
    stand_in.answer = lambda body: choice("A", A=0.6, B=0.2) if true(body) == "A" else choice("B", B=0.7, A=0.3)
    judge = judge_of(stand_in)
    [judgement] = judge.compare(["p"], ["good"], ["bad"])
    assert judgement.orders == pytest.approx((0.75, 0.7)) and judgement.preference == pytest.approx(0.725)
    assert judge.report()["by_logprobs"] == 2
    assert all(json.loads(body)["logprobs"] and json.loads(body)["top_logprobs"] == 5 for body in stand_in.asked)


def test_an_endpoint_that_refuses_log_probs_is_asked_for_them_once(stand_in: StandIn, tmp_path: Path):
    stand_in.answer, stand_in.said = true, {"error": {"message": "You are not allowed to request logprobs."}}
    stand_in.script.append(403)
    assert [each.preference for each in judge_of(stand_in, tmp_path / "a").compare(*PAIRS)] == [1.0, 0.0, 1.0]
    assert [each.preference for each in judge_of(stand_in, tmp_path / "a").compare(*PAIRS)] == [1.0, 0.0, 1.0]
    assert stand_in.asked.total() == 7 and sum("logprobs" in body for body in stand_in.asked) == 1
    stand_in.script.append(403)
    with pytest.raises(UserError, match=r"refuses the request with 403 \(You are not allowed to request logprobs\)"):
        judge_of(stand_in, tmp_path / "a", logprobs=True).compare(*PAIRS)


def test_answers_without_a_verdict_are_asked_for_again_and_then_are_no_opinion(stand_in: StandIn, tmp_path: Path):
    def vague(body: dict[str, Any]) -> Any:
        question, asks = body["messages"][0]["content"], len(body["messages"]) // 2
        if "Prompt:\nq" in question:
            return "Hard to say."
        if "Prompt:\nr" in question:
            return None if "There was no verdict" not in question else true(body)
        return true(body) if asks == 2 else "Both are nice."

    stand_in.answer = vague
    judge = judge_of(stand_in, tmp_path / "a")
    judgements = judge.compare(*PAIRS)
    assert [judgement.preference for judgement in judgements] == [1.0, None, 1.0]
    counts = {"asked": 6, "by_logprobs": 0, "asked_again": 6, "no_opinion": 2}
    assert {name: value for name, value in judge.report().items() if name != "usage"} == counts
    assert stand_in.asked.total() == 2 * 3 + 2 * 3 + 2 * 2 and set(stand_in.asked.values()) == {1}
    again = judge_of(stand_in, tmp_path / "a")
    assert again.compare(*PAIRS) == judgements and again.report()["asked_again"] == 6
    assert set(stand_in.asked.values()) == {1} and again.client.usage.requests == 0
    [judgement] = judge_of(stand_in, more_asks=0).compare(["p"], ["good"], ["bad"])
    assert judgement.preference is None


def test_a_judge_by_a_principle_asks_another_question_through_the_same_client(stand_in: StandIn):
    stand_in.answer = lambda body: "B" if "Be brief." in body["messages"][0]["content"] else "A"
    judge = judge_of(stand_in)
    brief = judge.with_principle("Be brief.", "brevity")
    assert brief.client is judge.client and brief.name == "brevity"
    [judgement] = brief.compare(["p"], ["good"], ["bad"])
    assert judgement.orders == (0.0, 1.0) and brief.report()["asked"] == 2 and judge.report()["asked"] == 0


def test_a_recipes_mapping_becomes_a_judge_and_wrong_values_are_told_before_anything_is_sent(
    stand_in: StandIn, tmp_path: Path
):
    stand_in.answer = true
    entry = {"endpoint": "judge-1", "url": stand_in.url, "cache": str(tmp_path / "cache" / "a"), "attempts": 2}
    prompt, prices = "{prompt}? {first} or {second}: {principle}", {"prompt": 1, "completion": 2}
    named = check_judge({**entry, "prices": prices, "prompt": prompt, "principle": "Be kind.", "timeout": 5})
    assert named.name == "judge-1" and not list(tmp_path.iterdir())
    assert isinstance(named.opened, EndpointJudge) and named.opened.client.retries.attempts == 2
    assert [judgement.preference for judgement in named.compare(["p"], ["good"], ["bad"])] == [1.0]
    assert (tmp_path / "cache" / "a").exists()
    for wrong, message in (
        ({"ulr": "x"}, r"judge: ulr is not a valid key; did you mean url\?"),
        ({"concurrency": 0}, "judge: concurrency is 0"),
        ({"attempts": 0}, "judge: attempts is 0"),
        ({"prices": {"prompt": "free", "completion": 1}}, "judge: prices: prompt is 'free'"),
        ({"prompt": "nowhere.txt"}, "judge: prompt is neither a file nor a template"),
        ({"key_variable": "NO_SUCH_KEY"}, "judge: endpoint .* needs a key: set the environment variable NO_SUCH_KEY"),
    ):
        with pytest.raises(UserError, match=message):
            check_judge({**entry, **wrong})
    with pytest.raises(UserError, match="more_asks is -1"):
        judge_of(stand_in, more_asks=-1)
    with pytest.raises(UserError, match="url: the client that is given has its own"):
        EndpointJudge(named.opened.client, url=stand_in.url)
