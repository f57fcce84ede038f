"""Warnings about PPO runs: each from its own series, once, and none from a run that goes well."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hf_align.trainers.ppo.health import Figures, Health

COURSE = Path(__file__).parents[3] / "docs" / "results" / "quickstart-full.json"
SHRINKING = Path(__file__).with_name("shrinking_course.json")
SOUND = Figures(responses=32, kl=2.0, length=27.0, eos_share=0.5, entropy=2.0, explained_variance=0.3, clipped=0.2)


def healthy(seed: int, responses: int, rollouts: int = 40) -> list[Figures]:
    """A run that goes well: the KL overshoots its target of 6 twofold, entropy halves, values learn from below 0.

    Figures spread as means of that many responses do whose lengths spread by half their mean.
    """
    draw = random.Random(seed)
    series = []
    for number in range(rollouts):
        done = number / rollouts
        series.append(
            Figures(
                responses=responses,
                kl=12 * math.sin(min(done * 3, 2.2)) * draw.uniform(0.8, 1.2),
                length=max(1.0, draw.gauss(30 - 6 * done, 15 / math.sqrt(responses))),
                eos_share=min(1.0, max(0.0, draw.gauss(0.5 + 0.2 * done, 0.5 / math.sqrt(responses)))),
                entropy=2.0 - done,
                explained_variance=-0.5 + 1.5 * min(1.0, done * 5) + draw.uniform(-0.2, 0.2),
                clipped=draw.uniform(0.05, 0.4),
            )
        )
    return series


@pytest.mark.parametrize("responses", [8, 32, 512])
def test_a_run_that_goes_well_gives_no_warning(responses: int):
    for seed in range(20):
        health = Health(target_kl=6.0)
        for figures in healthy(seed, responses):
            assert not health.watch(figures), seed


@pytest.mark.parametrize(
    ("kind", "change", "word"),
    [
        ("kl", {"kl": 19.0}, "target_kl=6"),
        ("length", {"length": 16.0}, "shorter"),
        ("length", {"length": 45.0}, "longer"),
        ("eos_share", {"eos_share": 0.05}, "missing_eos_penalty"),
        ("clipped", {"clipped": 0.6}, "clip_range"),
        ("values", {"explained_variance": -0.1}, "value_learning_rate"),
        ("entropy", {"entropy": 0.3}, "entropy_coef"),
    ],
)
def test_each_kind_is_said_once_with_advice_also_across_a_resume(kind: str, change: dict[str, Any], word: str):
    health = Health(target_kl=6.0)
    said: list[tuple[str, str]] = []
    for number in range(24):
        if number % 5 == 4:  # killed and resumed
            health, state = Health(target_kl=6.0), json.loads(json.dumps(health.state_dict()))
            health.load_state_dict(state)
        said += health.watch(SOUND if number < 6 else replace(SOUND, **change)).items()
    assert [name for name, _ in said] == [kind] and word in said[0][1]
    assert health.said == dict(said)


def test_a_kl_without_a_target_runs_away_beyond_a_nat_a_token():
    health = Health(target_kl=None)
    for _ in range(6):
        assert not health.watch(replace(SOUND, kl=20.0))
    assert list({kind for _ in range(3) for kind in health.watch(replace(SOUND, kl=28.0))}) == ["kl"]


def test_one_odd_rollout_is_no_drift():
    health = Health(target_kl=6.0)
    odd = Figures(responses=32, kl=99.0, length=5.0, eos_share=1.0, entropy=0.1, explained_variance=-9.0, clipped=0.9)
    for number in range(30):
        assert not health.watch(odd if number % 6 == 5 else SOUND)


def remarked(rollouts: list[list[float]]) -> dict[str, int]:
    """What is remarked of KL, length and share of ended responses of a course, and at which rollout."""
    health, when = Health(target_kl=10.0), {}
    for number, (kl, length, ended) in enumerate(rollouts):
        when |= dict.fromkeys(health.watch(Figures(32, kl, length, ended)), number)
    return when


def test_shrinking_answers_are_remarked_and_a_course_that_keeps_to_its_target_is_not():
    """Two whole runs on real rewards: of an earlier reward model, and the quickstart's."""
    shrinking = json.loads(SHRINKING.read_text())
    when = remarked(shrinking)
    assert list(when) == ["eos_share", "length"], "and its KL, which keeps to the target, is not"
    assert when["length"] <= len(shrinking) * 3 / 4
    names = ("objective/kl", "response/length", "response/eos_share")
    assert not remarked(
        [[logs[name] for name in names] for logs in json.loads(COURSE.read_text())["ppo_course"]["rollouts"]]
    )
