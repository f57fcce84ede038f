"""Policies judged by what they write: the same prompts, sampled from each, scored by VADER.

VADER is a lexicon with rules (Hutto and Gilbert, 2014). Nothing in this library trains on it, so a policy cannot have
learned to please it in particular.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from hf_align.collators import encode_prompts
from hf_align.errors import UserError
from hf_align.rollouts import Response, sample_responses
from hf_align.statistics import bootstrap_interval, groups

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Continuation:
    """One sampled response.

    Attributes:
        text: The response without special tokens.
        tokens: Its length in tokens, EOS not counted.
        ended: Whether the policy ended it with EOS (else the length limit cut it).
    """

    text: str
    tokens: int
    ended: bool


def sample_continuations(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Messages],
    *,
    max_new_tokens: int = 32,
    batch_size: int = 32,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[Continuation]:
    """Samples one response per prompt at temperature 1 from the whole vocabulary (no top-k, no top-p).

    Batches hold prompts of similar length, and each batch has its own seed: two policies that get the same prompts
    draw every token from the same random number, which makes their paired difference less noisy.

    Args:
        model: A decoder language model or a PeftModel.
        tokenizer: Its tokenizer.
        prompts: `[N]` texts or chat messages.
        max_new_tokens: Limit of a response's length.
        batch_size: Prompts generated together.
        seed: Seed of the sampling.
        progress: Called with the number of prompts finished after every batch.

    Returns:
        `[N]` responses in the order of the prompts.
    """
    encoded = encode_prompts(tokenizer, prompts)
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
    results: dict[int, Continuation] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        responses = sample_responses(
            model,
            tokenizer,
            [encoded[row] for row in rows],
            max_new_tokens=max_new_tokens,
            generator_seed=seed + start,
        )
        results.update(zip(rows, map(_continuation, responses), strict=True))
        if progress is not None:
            progress(len(results))
    return [results[row] for row in range(len(prompts))]


def _continuation(response: Response) -> Continuation:
    # The length limit can cut a character that takes several tokens; its first bytes decode to U+FFFD.
    text = response.text.rstrip("\N{REPLACEMENT CHARACTER}").strip()
    return Continuation(text, len(response.token_ids) - response.finished, response.finished)


def vader_scores(texts: Sequence[str]) -> list[float]:
    """VADER's compound score of every text, -1 (most negative) to 1.

    Raises:
        UserError: vaderSentiment is not installed.
    """
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise UserError('the judge needs vaderSentiment: pip install "hf-align[quickstart]"') from None
    analyzer = SentimentIntensityAnalyzer()
    return [float(analyzer.polarity_scores(text)["compound"]) for text in texts]


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """Share of different n-grams among all n-grams of all texts (Li et al., 2016); lower case, split at spaces.

    Returns:
        1 when no n-gram repeats, near 0 when the texts are all alike, NaN when no text has n words.
    """
    grams = [
        tuple(words[start : start + n])
        for words in (text.lower().split() for text in texts)
        for start in range(len(words) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else float("nan")


def compare_policies(
    samples: Mapping[str, Sequence[Continuation]],
    scores: Mapping[str, Sequence[float]],
    domains: Sequence[str],
    *,
    rewards: Mapping[str, Sequence[float]] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Sums up what the policies wrote on the same prompts, per domain and overall.

    Args:
        samples: Policy's name to its `[N]` responses. The first policy is the one the others are compared with.
        scores: Policy's name to the judge's `[N]` scores of these responses.
        domains: `[N]` domain of every prompt.
        rewards: Policy's name to a reward model's `[N]` scores, if there is one to look at beside the judge.
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
            own = np.asarray(scores[name], dtype=float)[rows]
            written = [samples[name][row] for row in rows]
            entry: dict[str, Any] = {
                "score": float(own.mean()),
                "score_interval": bootstrap_interval(np.mean, own, resamples=resamples, seed=seed),
                "distinct_2": distinct_n([sample.text for sample in written]),
                "mean_tokens": float(np.mean([sample.tokens for sample in written])),
                "ended": float(np.mean([sample.ended for sample in written])),
            }
            if position:
                entry |= _gain("gain", own - first[rows], resamples, seed)
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
    interval = bootstrap_interval(np.mean, differences, resamples=resamples, seed=seed)
    return {name: float(differences.mean()), f"{name}_interval": interval}
