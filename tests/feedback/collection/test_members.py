"""Scores of an ensemble's members, and pairs chosen by them."""

from __future__ import annotations

from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest

from hf_align import RewardEnsemble
from hf_align.errors import UserError
from hf_align.feedback import CollectionConfig, PreferenceStore, Prompt, Response, RewardAnnotator, collect
from hf_align.feedback.collection.members import read_members
from hf_align.feedback.collection.pairs import make_pairs


def log_odds(ensemble: RewardEnsemble, prompts: list[str], texts: list[str]) -> np.ndarray:
    """`[M, R]` of members, each asked alone: its scores times the deviation that normalising divided by."""
    scores = [np.array(member.score(prompts, texts)) * member.normalization.std for member in ensemble.members]
    return np.array(scores)


@pytest.mark.parametrize("given", ["ensemble", "folder", "list"])
def test_members_give_each_response_their_log_odds(rewards: tuple[RewardEnsemble, Path], given: str) -> None:
    ensemble, folder = rewards
    reward = {"ensemble": ensemble, "folder": folder / "both", "list": list(ensemble.members)}[given]
    prompts = [Prompt("Review a film."), Prompt("Say hello.")]
    responses = [Response(prompt.id, text, "me") for prompt in prompts for text in ("A joy.", "Dull, all of it.")]
    sides = [prompts[0], prompts[0], prompts[1], prompts[1]]
    found = read_members(reward)(sides, responses)
    expected = log_odds(ensemble, [str(p.content) for p in sides], [str(r.content) for r in responses])
    assert list(found) == [response.id for response in responses]
    np.testing.assert_allclose(np.array(list(found.values())).T, expected, atol=1e-3)


def test_one_reward_is_no_ensemble(rewards: tuple[RewardEnsemble, Path]) -> None:
    for reward in (rewards[0].members[0], [rewards[0].members[0]], str(rewards[1] / "0")):
        with pytest.raises(UserError, match="reward is no ensemble"):
            read_members(reward)


def test_a_collection_asks_about_the_pairs_on_which_the_ensembles_members_differ_most(
    rewards: tuple[RewardEnsemble, Path],
) -> None:
    ensemble, folder = rewards

    numbers = count(1)

    def writer(prompts: list[str]) -> list[str]:
        return [
            " ".join(f"word {7 * number % word}" for word in range(5, 9)) for number in islice(numbers, len(prompts))
        ]

    config = CollectionConfig(
        batch_size=4, gold_share=0, selection="disagreement", annotators_per_task=1, models_per_prompt=1, near=1.0
    )
    store, judge = PreferenceStore("sqlite://"), RewardAnnotator("judge", folder / "0")
    rows = [{"prompt": f"Question number {number}?"} for number in range(4)]
    assert collect(store, config, [writer], [judge], 3, prompts=rows, reward=str(folder / "both")).enough
    prompts, responses, tasks = store.prompts(), store.responses(), store.tasks()
    pairs = [
        pair
        for prompt in prompts.values()
        for pair in make_pairs(prompt, [each for each in responses.values() if each.prompt_id == prompt.id], config)
    ]
    assert len(pairs) > len(tasks) == 3 and {task.choice["model"] for task in tasks.values()} == {str(folder / "both")}
    texts = [[str(responses[id].content) for id in (pair.first_id, pair.second_id)] for pair in pairs]
    asked = [str(prompts[pair.prompt_id].content) for pair in pairs]
    first, second = (log_odds(ensemble, asked, [text[side] for text in texts]) for side in (0, 1))
    spread = dict(zip((pair.id for pair in pairs), (1 / (1 + np.exp(second - first))).var(0), strict=True))
    assert {id: task.choice["score"] for id, task in tasks.items()} == pytest.approx(
        {id: spread[id] for id in tasks}, abs=1e-4
    )
    assert min(spread[id] for id in tasks) >= max(spread[id] for id in spread.keys() - tasks.keys()) - 1e-4
    store.close()
