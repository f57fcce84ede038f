from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from hf_align.algorithms import ALGORITHMS
from hf_align.errors import UserError
from hf_align.planning.selection.candidates import Candidate, candidates
from hf_align.planning.selection.estimates import Estimate
from hf_align.planning.selection.features import Features
from hf_align.planning.selection.needs import NEEDS, checked_needs
from hf_align.planning.selection.rules import Rule, compatible_needs, read_rules
from hf_align.planning.selection.select import WEIGHTS, Recommendation, recommend

GIB = 2**30
CASE = Features(
    kind="pairs",
    rows=5000,
    pairs=5000,
    completeness=1.0,
    agreement=None,
    noise=None,
    margin_mean=None,
    margin_variance=None,
    clear_share=None,
    prompt_diversity=1.0,
    longer_better=0.5,
    prompt_tokens=100.0,
    response_tokens=100.0,
    longest_prompt=200,
    longest_response=200,
    chat=True,
    parameters=7_000_000_000,
    architecture="LlamaForCausalLM",
    footprint=14e9,
    speed=1000.0,
    memory=24.0 * GIB,
    gpus=1,
    hours=None,
    budget=None,
    reward="none",
    needs=(),
)
MEMORY = {"demonstrations": 6.0, "pairs": 8.0, "online-pairs": 10.0, "policy-gradient": 12.0, "sampling": 5.0}


def estimate(candidate: Candidate, features: Features) -> Estimate:
    size = MEMORY[candidate.work] * GIB
    return Estimate(size, size, {"lora": True} if size <= features.memory else None)


def choose(rules: Any = None, **changes: Any) -> Recommendation:
    return recommend(replace(CASE, **changes), read_rules() if rules is None else rules, WEIGHTS, estimate)


def ahead(choice: Recommendation, first: str, second: str) -> float:
    return choice.scores[first] - choice.scores[second]


def test_a_score_by_hand():
    """DPO of 8 GiB on 24, with a quarter of the labels wrong and a stated need."""
    choice = choose(noise=0.25, needs=("robust_to_noise",))
    resources = 1 - 8 / 24 / 2
    assert choice.scores["dpo"] == pytest.approx(0.3 * resources + 0.3 * 0.5 + 0.2 * 0.3 + 0.2 * 0.5)
    assert choice.scores["cdpo"] == pytest.approx(0.3 * resources + 0.3 * 0.5 + 0.2 * 0.8 + 0.2 * 0.5)
    assert (choice.algorithm, choice.hyperparameters["label_smoothing"]) == ("cdpo", 0.25)
    # known of the seven: noise, prompt diversity, length, completeness, chat
    lead = min(1.0, ahead(choice, "cdpo", choice.alternative or "") / 0.1)
    assert choice.confidence == pytest.approx(5 / 7 * (0.5 + 0.5 * lead))


def test_less_memory_never_favours_the_bigger():
    sizes = [48, 24, 16, 12, 11, 9, 7, 5.5]
    choices = [choose(memory=size * GIB, reward="given") for size in sizes]
    names = list(choices[0].scores)
    for more, less in itertools.pairwise(choices):
        for small in names:
            for big in names:
                if more.estimates[small].memory < more.estimates[big].memory and big in less.scores:
                    assert small in less.scores
                    assert ahead(less, small, big) >= ahead(more, small, big)


def test_less_time_never_favours_the_longer():
    """Hours are those of the estimate: operations over twice the weights and tokens a second."""
    of_dpo = 8 * GIB / (1000.0 * 2 * 7e9) / 3600
    long, short = (choose(hours=share * of_dpo, memory=1000 * GIB) for share in (4, 1.2))
    assert ahead(short, "sft", "dpo") > ahead(long, "sft", "dpo")
    assert "hours" in short.excluded["ppo"]
    assert "ppo" in long.scores


@pytest.mark.parametrize("small", ["dpo", "ipo", "cdpo"])
def test_more_noise_never_favours_a_reward_model_of_the_same_pairs(small: str):
    leads = [ahead(choose(noise=noise), small, "online-dpo") for noise in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)]
    assert leads == sorted(leads)
    assert leads[0] < leads[-1]
    given = [ahead(choose(noise=noise, reward="given"), small, "online-dpo") for noise in (0.0, 0.5)]
    assert given[0] == given[1]


@pytest.mark.parametrize("need", NEEDS)
def test_each_need_changes_a_ranking(need: str):
    without, with_ = choose(reward="given"), choose(reward="given", needs=(need,))
    assert list(without.scores) != list(with_.scores)


@pytest.mark.parametrize(
    ("need", "possible"),
    [("no_training", {"best-of-n"}), ("no_reward_model", {"sft", "dpo", "cdpo", "ipo"})],
)
def test_a_need_leaves_out_what_cannot_meet_it(need: str, possible: set[str]):
    assert set(choose(needs=(need,)).scores) == possible


def test_needs_that_exclude_each_other_are_refused_before_anything_is_planned():
    def never(candidate: Candidate, features: Features) -> Estimate:
        raise AssertionError(candidate.name)

    needs = ("no_reward_model", "no_training")
    with pytest.raises(UserError, match="no algorithm meets no_reward_model and no_training together"):
        compatible_needs(needs, read_rules())
    with pytest.raises(UserError, match="Nothing is possible"):
        recommend(replace(CASE, needs=needs), read_rules(), WEIGHTS, never)
    for need in NEEDS:
        assert compatible_needs((need, need), read_rules()) == (need,)


def test_what_a_need_leaves_out_is_not_planned():
    planned: list[str] = []

    def note(candidate: Candidate, features: Features) -> Estimate:
        planned.append(candidate.name)
        return estimate(candidate, features)

    choice = recommend(replace(CASE, needs=("no_training",)), read_rules(), WEIGHTS, note)
    assert planned == ["best-of-n"] == list(choice.estimates)


def test_an_unknown_need_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="did you mean robust_to_noise"):
        checked_needs(["robust-to-nois"])
    assert checked_needs(["fast", "low_memory", "fast"]) == ("low_memory", "fast")


def test_nothing_fits_is_one_sentence_with_the_sizes():
    with pytest.raises(UserError, match=r"best-of-n: it needs 5\.0 GiB at the least, and there are 1\.0 GiB"):
        choose(memory=1.0 * GIB)


def test_rows_decide_what_is_possible():
    assert set(choose(kind="prompts", pairs=0, reward="given").scores) == {
        *("online-dpo", "ppo", "rloo", "grpo", "best-of-n")
    }
    assert set(choose(kind="demonstrations", pairs=0).scores) == {"sft"}
    with pytest.raises(UserError, match="no pairs to train one on"):
        choose(kind="prompts", pairs=0)


def test_a_reward_that_must_be_trained_is_said_first():
    needed = choose(needs=("beyond_data",), noise=0.0)
    assert needed.algorithm == "online-dpo"
    assert needed.command.startswith("hf-align reward ")
    assert any("reward model has to be trained" in reason for reason in needed.reasons)
    assert "hf-align reward" not in choose(needs=("beyond_data",), reward="given").command


def test_the_same_twice():
    assert choose(noise=0.2, needs=("fast",)) == choose(noise=0.2, needs=("fast",))


def test_the_runner_up_and_when_to_take_it():
    choice = choose(noise=0.25)
    assert list(choice.scores)[:2] == [choice.algorithm, choice.alternative]
    assert choice.take_alternative.startswith("take it ")


def test_a_rule_decides_alone_with_all_weight_on_its_part():
    rule = Rule(
        "mine", "model", {"parameters": ">= 1e9"}, {"grpo": 0.4}, "it does", ("report",), "measured", "here", "?"
    )
    choice = recommend(CASE, [rule], {"resources": 0, "data": 0, "needs": 0, "model": 1.0}, estimate)
    assert (choice.algorithm, choice.scores["grpo"]) == ("grpo", 0.9)
    assert any("it does [report; measured; here]" in reason for reason in choice.reasons)


def test_a_learned_model_in_place_of_rules():
    seen: list[Features] = []

    def learned(features: Features) -> dict[str, float]:
        seen.append(features)
        return {"ppo": 0.9, "ipo": 0.8}

    choice = choose(learned)
    assert (choice.algorithm, choice.alternative, choice.scores["dpo"]) == ("ppo", "ipo", 0.0)
    assert seen == [CASE]
    assert choose(learned, memory=9.0 * GIB).algorithm == "ipo"
    with pytest.raises(UserError, match="give a number from 0 to 1"):
        choose(lambda features: {"ppo": 3.0})


def test_every_algorithm_that_trains_a_policy_is_compared():
    policies = {name for name, each in ALGORITHMS.items() if each.trains == "policy"}
    assert policies <= {each.algorithm for each in candidates()}
    scores = choose().scores
    assert policies - {"sft"} <= {each.algorithm for each in candidates() if each.name in scores}


def _names(rules: Sequence[Rule]) -> set[str]:
    return {rule.name for rule in rules}


def test_advice_has_no_effect_on_scores():
    plain, advised = choose(clear_share=0.9), choose(clear_share=0.2)
    assert plain.scores == advised.scores
    assert any("margins are small" in each for each in advised.advice)
    assert "unclear-margins" in _names(read_rules())
