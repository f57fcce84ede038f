"""The preference half."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from hf_align.data.parts import Parts
from hf_align.feedback import ConstitutionConfig, EndpointJudge, FunctionJudge, Prompt, RewardJudge
from hf_align.feedback.collection.writers import Text, open_model
from hf_align.feedback.constitution.compare import (
    Compared,
    PrincipleJudge,
    Vote,
    bias_of,
    by_principles,
    identity_of,
    sample_pairs,
    vote,
    without_bias,
)
from hf_align.feedback.constitution.made import read_halves
from hf_align.feedback.constitution.work import Work
from hf_align.progress import Silent
from hf_align.rewards.judges import Judge, Judgement
from tests.feedback.constitution.samples import CONSTITUTION, KIND, PROMPTS, TRUE, PrincipledJudge, talk


def compared(judge: Judge, **options: Any) -> tuple[list[Compared], dict[str, float]]:
    config = ConstitutionConfig(**{"sft_share": 0, "batch_size": 5, **options})
    work = Work(CONSTITUTION, config, open_model(talk), Parts())
    made = sample_pairs(work, read_halves(PROMPTS, config).preferences, Silent())
    return made.pairs, vote(work, made.pairs, judge, Silent())


def test_a_label_is_the_weighted_mean_of_the_votes_that_have_an_opinion() -> None:
    pair = Compared(Prompt("?"), Text("a", {}), Text("b", {}))
    assert pair.preference is None
    pair.votes = [Vote(KIND, Judgement(0.8)), Vote(TRUE, Judgement(0.5)), Vote(TRUE, Judgement(None))]
    assert pair.preference == pytest.approx((2 * 0.8 + 0.5) / 3)


def test_each_pair_gets_a_vote_by_each_principle_that_suits_its_prompt() -> None:
    judge = PrincipledJudge()
    assert isinstance(judge, PrincipleJudge)
    pairs, biases = compared(judge)
    assert len(pairs) == 12 and biases == {}  # it has no position bias
    for pair in pairs:
        assert [each.principle.id for each in pair.votes if each.principle] == ["kind", "true", "short"]
    assert set(judge.calls) == {"Which is kinder?", "Which is truer?", "Which is shorter?"}
    fewer, _ = compared(PrincipledJudge(), votes=2)
    assert all(len(pair.votes) == 2 for pair in fewer)
    drawn = {tuple(each.principle.id for each in pair.votes if each.principle) for pair in fewer}
    assert len(drawn) > 1, "every prompt has the same principles"


def test_a_judge_that_takes_no_principles_is_asked_once_a_pair() -> None:
    asked: list[tuple[Any, ...]] = []

    def first(*pair: Any) -> float:
        asked.append(pair)
        return 0.75

    pairs, biases = compared(FunctionJudge(first), responses_per_prompt=3, max_pairs=2)
    assert len(pairs) == 24 and len(asked) == 48 and all(len(pair.votes) == 1 for pair in pairs)
    # It always gives the response shown first .75: a bias of log 3, without which it has no opinion.
    assert biases == {"first": pytest.approx(np.log(3))}
    assert all(pair.preference == pytest.approx(0.5) for pair in pairs)
    assert isinstance(asked[0][0], list) and isinstance(asked[0][1], str)
    plain, none = compared(FunctionJudge(first), calibrate=False)
    assert none == {} and {pair.preference for pair in plain} == {0.5} and plain[0].votes[0].judgement.flipped


def test_votes_are_kept_apart_by_weights_of_rewards_and_band_of_ties() -> None:
    def length(prompts: list[Any], responses: list[Any]) -> list[float]:
        return [float(len(response)) for response in responses]

    judges = [
        RewardJudge(length, "judge"),
        RewardJudge(length, "judge", tie_band=3),
        RewardJudge([(2.0, length)], "judge"),
        RewardJudge([(1.0, length), (1.0, length)], "judge"),
    ]
    identities = [identity_of(judge) for judge in judges]
    assert all(one != other for n, one in enumerate(identities) for other in identities[:n])
    assert identity_of(RewardJudge(length, "judge")) == identities[0]


def test_votes_are_kept_apart_by_a_functions_code_and_an_endpoints_settings() -> None:
    def judges(code: str) -> list[Judge]:
        names: dict[str, Any] = {"__name__": "mine"}
        exec(code, names)
        return [
            FunctionJudge(names["prefer"], "judge"),
            RewardJudge(names["score"], "judge"),
            RewardJudge([(2.0, names["score"]), (1.0, names["score"])], "judge"),
            by_principles(FunctionJudge(names["by"], "judge")),
        ]

    code = """
def prefer(prompt, first, second): return {0}
def score(prompts, responses): return [{0} for _ in responses]
def by(prompt, first, second, principle): return {0}
"""
    first, same, other = ([identity_of(each) for each in judges(code.format(n))] for n in (0.25, 0.25, 1.0))
    assert first == same and all(one != two for one, two in zip(first, other, strict=True))
    plain: dict[str, Any] = {"url": "http://localhost:1/v1", "name": "judge", "cache": ":memory:"}
    others = [{"url": "http://localhost:2/v1"}, {"temperature": 1.0}, {"max_tokens": 8}, {"logprobs": False}]
    options = [{}, *others, {"more_asks": 0}, {"extra_body": {"top_k": 1}}]
    identities = [identity_of(EndpointJudge("m", **{**plain, **each})) for each in options]
    assert all(one != two for n, one in enumerate(identities) for two in identities[:n])
    assert identity_of(EndpointJudge("m", **plain)) == identities[0]


def test_position_bias_is_measured_and_taken_out_where_the_opinions_have_degrees() -> None:
    truth, bias = np.random.default_rng(0).normal(size=400), 1.3
    shown = [(float(expit(odds + bias)), float(1 - expit(-odds + bias))) for odds in truth]
    judgements = [Judgement(sum(each) / 2, each) for each in shown]
    assert bias_of(judgements) == pytest.approx(bias, abs=1e-9)
    repaired = [without_bias(each, bias) for each in judgements]
    assert [each.preference for each in repaired] == pytest.approx(expit(truth).tolist())
    assert not any(each.flipped for each in repaired) and sum(each.flipped for each in judgements) > 100
    assert bias_of([Judgement(0.5, (1.0, 0.0))] * 3) == 0.0  # a choice, without a degree
    assert bias_of([Judgement(0.7)]) == bias_of([]) == bias_of([Judgement(None, (None, 0.4))]) == 0.0


def test_a_function_that_takes_a_principle_gets_its_question() -> None:
    questions: list[str] = []

    def prefer(prompt: Any, first: str, second: str, principle: str) -> str:
        questions.append(principle)
        return "first" if (first < second) == (principle == KIND.question) else "second"

    judge = by_principles(FunctionJudge(prefer))
    assert judge.name == "prefer" and by_principles(plain := FunctionJudge(lambda *pair: 1.0, "plain")) is plain
    pairs, _ = compared(judge)
    for pair in pairs:
        earlier = pair.first.text < pair.second.text
        assert [each.judgement.preference for each in pair.votes] == [earlier, not earlier, not earlier]
    assert len(set(questions)) == 3
