"""Evaluation of policies: responses to the same prompts, sampled from each, scored by a judge."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_align.collators.rows import Side
from hf_align.errors import UserError
from hf_align.evaluation.continuations import Continuation
from hf_align.evaluation.diversity import distinct_n
from hf_align.statistics import bootstrap_interval, groups


def beside_each_other(
    prompts: Sequence[Side], texts: Mapping[str, Sequence[str]], scores: Mapping[str, Sequence[float]]
) -> list[dict[str, Any]]:
    """Each prompt with every policy's text and score."""
    return [
        {"prompt": prompt, **{name: {"text": texts[name][row], "score": scores[name][row]} for name in texts}}
        for row, prompt in enumerate(prompts)
    ]


def compare_policies(
    samples: Mapping[str, Sequence[Continuation]],
    scores: Mapping[str, Sequence[float]],
    domains: Sequence[str],
    *,
    rewards: Mapping[str, Sequence[float]] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Summarise the policies' responses to the same prompts, per domain and overall.

    Args:
        samples: `[N]` responses by policy name. The other policies are compared with the first.
        scores: The judge's `[N]` scores of these responses by policy name.
        domains: `[N]` domain of every prompt.
        rewards: A reward model's `[N]` scores by policy name, if there is one besides the judge.
        resamples: Bootstrap resamples of the intervals.
        seed: Seed of the bootstrap.

    Returns:
        `{"all" | domain: {"prompts", "policies": {name: {"score", "score_interval", "distinct_2", "mean_tokens",
        "ended", and, after the first, "gain" with "gain_interval"}}}}`. `gain` is the mean difference to the first
        policy on the same prompt. With `rewards` also "reward", "reward_sd" and, after the first, "reward_gain" with
        "reward_gain_interval" and "reward_gain_sds": the gain in standard deviations of the first policy's rewards.

    Raises:
        UserError: The policies have different numbers of rows.
    """
    for name in samples:
        if not len(samples[name]) == len(scores[name]) == len(domains):
            raise UserError(f"policy {name!r} does not have one response and one score per prompt ({len(domains)})")
    first = np.asarray(next(iter(scores.values())), dtype=float)
    report: dict[str, Any] = {}
    for label, rows in {"all": np.arange(len(domains)), **groups(domains)}.items():
        policies: dict[str, dict[str, Any]] = {}
        for position, name in enumerate(samples):
            policy_scores = np.asarray(scores[name], dtype=float)[rows]
            written = [samples[name][row] for row in rows]
            entry: dict[str, Any] = {
                "score": float(policy_scores.mean()),
                "score_interval": bootstrap_interval(np.mean, policy_scores, resamples=resamples, seed=seed),
                "distinct_2": distinct_n([sample.text for sample in written]),
                "mean_tokens": float(np.mean([sample.tokens for sample in written])),
                "ended": float(np.mean([sample.ended for sample in written])),
            }
            if position:
                entry |= _gain("gain", policy_scores - first[rows], resamples, seed)
            if rewards is not None:
                base, got = (np.asarray(rewards[key], dtype=float)[rows] for key in (next(iter(samples)), name))
                entry |= {"reward": float(got.mean()), "reward_sd": float(got.std())}
                if position:
                    entry |= _gain("reward_gain", got - base, resamples, seed)
                    entry["reward_gain_sds"] = entry["reward_gain"] / (float(base.std()) or float("nan"))
            policies[name] = entry
        report[label] = {"prompts": len(rows), "policies": policies}
    return report


def _gain(name: str, differences: np.ndarray, resamples: int, seed: int) -> dict[str, Any]:
    """The mean of paired differences and its interval."""
    return {
        name: float(differences.mean()),
        f"{name}_interval": bootstrap_interval(np.mean, differences, resamples=resamples, seed=seed),
    }
