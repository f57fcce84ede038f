"""A round's policy on held-out prompts: what it writes, how far it has moved, and what both judges prefer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_align.collators import encode_prompts
from hf_align.collators.rows import Side, as_response
from hf_align.evaluation.divergence import measure_kl
from hf_align.evaluation.diversity import measure_diversity
from hf_align.evaluation.writing import token_logps
from hf_align.experiments.improvement.job import Job
from hf_align.experiments.improvement.judging import StoredJudge, outcomes
from hf_align.experiments.improvement.rule import TIE, Verdict, apply_rule
from hf_align.experiments.improvement.sampling import Settings, Written, open_sampler, sample_blocks
from hf_align.rewards.judges import Judge
from hf_align.rollouts.sampler import seed_for
from hf_align.statistics import Resampling

HELD_OUT, VOTES, EVALUATION = "held_out", "votes", "evaluation"


def respond(job: Job, number: int) -> dict[str, Any]:
    """A policy's responses to the held-out prompts, with length, variety and KL from the start.

    Sampled at temperature 1, one to a prompt; all policies draw from the same random numbers.

    Returns:
        "texts", "kl" (empty for the start; see `measure_kl`), "diversity" (see `measure_diversity`), "length" (mean
        tokens) with "length_interval", and "ended" (share that the policy ended).
    """
    config, asked = job.config, job.held_out
    settings = Settings(
        1, config.max_new_tokens, config.sampling_batch_size, seed_for(job.seed, HELD_OUT), config.rollout_engine
    )
    sampler = open_sampler(job.policy(number), job.quantization)
    label = f"held-out prompts, round {number}"
    rows = sample_blocks(sampler, asked.contents, asked.options, settings, job.parts(number), job.progress, label)
    written = [row[0] for row in rows]
    resampling, units = job.resampling(asked.units), asked.units
    lengths = [len(each.token_ids) - each.finished for each in written]
    length, interval = resampling.ratio(lengths, np.ones(len(lengths)), units)
    texts = [each.text for each in written]
    return {
        "texts": texts,
        "kl": {} if number == 0 else _kl_from_start(job, sampler, written, resampling, units),
        "diversity": measure_diversity(texts, resampling, units),
        "length": length,
        "length_interval": interval,
        "ended": float(np.mean([each.finished for each in written])),
    }


def _kl_from_start(
    job: Job, sampler: Any, written: Sequence[Written], resampling: Resampling, units: NDArray[np.intp]
) -> dict[str, Any]:
    """KL from the start on the policy's own responses; the start is loaded after the policy's tokens are scored."""
    prompts = encode_prompts(sampler.tokenizer, job.held_out.contents, "eval_dataset", job.held_out.options)
    encoded = [(prompt, tuple(each.token_ids)) for prompt, each in zip(prompts, written, strict=True)]
    own = token_logps(sampler.model, encoded, sampler.tokenizer, job.progress, "policy")
    sampler.model = None
    start = open_sampler(job.model, job.quantization)
    reference = token_logps(start.model, encoded, start.tokenizer, job.progress, "start")
    return measure_kl(own, reference, resampling, units)


def agree(job: Job, number: int) -> dict[str, Any]:
    """Agreement of the training's judge with people's votes, with a round's policy as judge where the policy judges.

    Returns:
        "outcomes" (1: it prefers what people prefer; ties and pairs without opinion count half), "accuracy" with
        "accuracy_interval", "pairs", and the judge's counts.
    """
    assert job.votes is not None
    pairs, units = job.votes.pairs, job.votes.units
    judge = job.stored_judge(job.judge, number, number, "people's votes")
    prompts = [pair.prompt for pair in pairs if pair.prompt is not None]
    agreed = outcomes(judge.compare(prompts, [pair.chosen for pair in pairs], [pair.rejected for pair in pairs]))
    accuracy, interval = job.resampling(units).share(agreed, units)
    return {
        "outcomes": agreed,
        "accuracy": accuracy,
        "accuracy_interval": interval,
        "pairs": len(agreed),
        **judge.figures(),
    }


def votes_of(job: Job, number: int) -> dict[str, Any]:
    """The stored agreement of the judge that labels with this policy: a judge that stays the same is asked once."""
    number = number if job.judge.is_policy else 0
    return job.stored(number, VOTES, lambda: agree(job, number))


def responses_of(job: Job, number: int) -> dict[str, Any]:
    """The stored responses of a policy."""
    return job.stored(number, HELD_OUT, lambda: respond(job, number))


def evaluate_round(job: Job, number: int, best: int) -> dict[str, Any]:
    """Compare a round's policy with the best one before it and with the start, and apply the stop rule.

    Args:
        job: The run.
        number: The round.
        best: The round of the best policy before it; 0 is the start.

    Returns:
        "against" (`best`), "verdict" (`Verdict.figures`), and by judge ("held_out", "training") the comparisons with
        "best" and "start": "win_rate" with "win_rate_interval", "wins", "ties", "losses" and "no_opinion".
    """
    responses_of(job, number)
    judges: dict[str, StoredJudge] = {
        "training": job.stored_judge(job.judge, number - 1, number, "held-out responses, training judge")
    }
    if job.held_out_judge is not None:
        judges["held_out"] = job.stored_judge(job.held_out_judge, 0, number, "held-out responses, held-out judge")
    units = job.held_out.units
    resampling = job.resampling(units)
    compared = {
        name: {other: _compared(job, judge, number, other) for other in sorted({best, 0})}
        for name, judge in judges.items()
    }
    if "held_out" in judges:
        rule = (compared["held_out"][best][0], compared["training"][best][0], resampling, units)
    else:
        assert job.votes is not None
        changes = np.subtract(votes_of(job, number)["outcomes"], votes_of(job, best)["outcomes"])
        rule = (TIE + changes / 2, None, job.resampling(job.votes.units), job.votes.units)
    verdict: Verdict = apply_rule(*rule, error=job.config.error_of_a_test, gain_share=job.config.gain_share)
    figures = {
        name: {
            label: _win_rate(*comparisons[other], resampling, units) for label, other in (("best", best), ("start", 0))
        }
        for name, comparisons in compared.items()
    }
    return {"against": best, "verdict": verdict.figures(), **figures}


Compared = tuple[list[float], int]


def _compared(job: Job, judge: StoredJudge, number: int, other: int) -> Compared:
    new, old = (responses_of(job, each)["texts"] for each in (number, other))
    return compare_texts(judge, job.held_out.contents, new, old)


def compare_texts(judge: Judge, prompts: Sequence[Side], new: Sequence[str], old: Sequence[str]) -> Compared:
    """Outcomes of new responses against old ones, and the number of pairs without opinion, which count as ties.

    Equal responses are tied, and an empty one loses to one that isn't, without the judge.

    Example:
        >>> from hf_align.experiments.improvement.evaluate import compare_texts
        >>> from hf_align.feedback import FunctionJudge
        >>> longer = FunctionJudge(lambda prompt, first, second: float(len(first) > len(second)), "longer")
        >>> compare_texts(longer, ["?"] * 3, ["ab", "", "a"], ["a", "b", "a"])
        ([1.0, 0.0, 0.5], 0)
    """
    blank = [(not a.strip(), not b.strip()) for a, b in zip(new, old, strict=True)]
    asked = [row for row, sides in enumerate(blank) if not any(sides) and new[row] != old[row]]
    judgements = judge.compare(
        [prompts[row] for row in asked],
        [as_response(new[row], prompts[row]) for row in asked],
        [as_response(old[row], prompts[row]) for row in asked],
    )
    result = [TIE + (second - first) / 2 for first, second in blank]
    for row, outcome in zip(asked, outcomes(judgements), strict=True):
        result[row] = outcome
    return result, sum(each.preference is None for each in judgements)


def _win_rate(
    wins: Sequence[float], no_opinion: int, resampling: Resampling, units: NDArray[np.intp]
) -> dict[str, Any]:
    rate, interval = resampling.share(wins, units)
    counts = {name: list(wins).count(value) for name, value in (("wins", 1.0), ("ties", TIE), ("losses", 0.0))}
    return {"win_rate": rate, "win_rate_interval": interval, **counts, "no_opinion": no_opinion}
