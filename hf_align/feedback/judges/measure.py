"""Measuring a judge on pairs that people compared: agreement by gap, position, length, ties, calibration."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from hf_align.data.comparison_rows import read_comparisons
from hf_align.data.comparisons import MAX_PAIRS as CANDIDATES, Comparisons
from hf_align.errors import UserError
from hf_align.feedback.judges.agreement import measure_agreement_with_people, measure_judge_calibration
from hf_align.feedback.judges.asked import Asked, ask_about
from hf_align.feedback.judges.effects import (
    measure_judge_length,
    measure_position,
    measure_self_preference,
    measure_verdicts,
)
from hf_align.feedback.judges.fitness import judge_fitness
from hf_align.feedback.judges.named import check_judge
from hf_align.feedback.judges.report import JudgeReport
from hf_align.numbers import number_problem
from hf_align.progress import Progress, Silent
from hf_align.report.remarks import FEW_UNITS, Remark, few_units
from hf_align.rewards.judges import Judge
from hf_align.statistics import Resampling
from hf_align.version import versions

MAX_PAIRS = 1000
AGAIN = 200
FEW_VOTES = 5
"""Mean number of votes a pair below which people's own agreement is plainly too high."""
NO_OPINION = 0.05
"""Share of pairs without an opinion that is worth a remark."""
AFTER = 0.01
"""Position effect after both orders became one that is worth a remark."""


def measure_judge(
    judge: Judge | str | dict[str, Any],
    rows: Any,
    *,
    own: Collection[str] | None = None,
    gaps: Sequence[float] | None = None,
    max_pairs: int = MAX_PAIRS,
    again: int = AGAIN,
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> JudgeReport:
    """Say whether a judge is fit to stand in for people, and what sways it besides quality.

    Args:
        judge: Any judge of `hf_align.feedback`, another object with `name` and `compare`, or what a recipe's `judge`
            may be (see `check_judge`).
        rows: What people preferred, as a `Dataset` or list of dicts: pairs (with `label`, `preference` or `votes`,
            `chosen_ratings` and `rejected_ratings`, or `margin`), rankings, rated responses, as for
            `hf_align.data.comparison_rows.read_comparisons`; or any layout of `to_preferences`.
        own: Sources of responses that are the judge itself, for self-preference. Default: its name.
        gaps: Ends of the buckets of how far people find two responses apart. Default: 0.5, 1 and 2 points of ratings,
            scores or margins; where only votes are known, 0.2, 0.5 and 0.8 of shares less each other.
        max_pairs: Most pairs asked about (1,000); with more, a sample, which has each text once where many texts are
            compared with each other (see `draw_pairs`).
        again: Most of them asked about again with the responses given in the other order (200), which measures the
            position effect that is left.
        resamples: Bootstrap resamples of intervals. Prompts are drawn, where they are few pairs with each text once, or
            texts.
        seed: Of the sample, of the order in which responses are given, and of resamples.
        progress: Receiver of progress. Default: none.

    Raises:
        UserError: The rows or an argument can't be used, or the judge fails.

    Example:
        >>> from hf_align.feedback import RewardJudge, measure_judge
        >>> rows = [{"prompt": f"Film {n}?", "chosen": "A joy to watch.", "rejected": "Dull."} for n in range(40)]
        >>> def length(prompts, responses):
        ...     return [float(len(response)) for response in responses]
        >>> report = measure_judge(RewardJudge(length), rows, resamples=100)
        >>> report.fit, report.metrics["agreement"]["judge"], report.metrics["length"]["judge"]
        (True, 1.0, 1.0)
    """
    check_settings(gaps, max_pairs=max_pairs, again=again, resamples=resamples, seed=seed)
    judge = judge if isinstance(judge, Judge) else check_judge(judge)
    data = read_people(rows, seed=seed)
    own = {judge.name} if own is None else set(own)
    asked = ask_about(judge, data, max_pairs=max_pairs, again=again, seed=seed, progress=progress or Silent())
    resampling = Resampling(asked.units, resamples=resamples, seed=seed)
    agreement = measure_agreement_with_people(data, asked, resampling, gaps)
    metrics: dict[str, Any] = {
        "agreement": agreement,
        "verdicts": measure_verdicts(asked, resampling),
        "position": measure_position(asked, resampling),
        "length": measure_judge_length(data, asked, resampling),
        "calibration": measure_judge_calibration(data, asked, seed=seed),
        "self_preference": measure_self_preference(data, asked, own, resampling),
        "fit": judge_fitness(agreement),
    }
    facts = {
        "judge": judge.name,
        "layout": data.layout,
        "rows": len(np.unique(data.row_of)),
        "prompts": len(data.prompts),
        "texts": len(data.texts),
        "pairs": len(asked.pairs),
        "candidates": data.candidates - sum(data.skipped.values()),
        "unit": asked.unit_name,
        "units": asked.units,
        "max_pairs": max_pairs,
        "again": again,
        "resamples": resamples,
        "seed": seed,
        "own": sorted(own),
        "skipped": data.skipped,
        "missing": _missing(data, own),
        "versions": versions(),
    }
    return JudgeReport(metrics, facts, [*_remarks(data, asked, metrics, facts)])


def check_settings(gaps: Sequence[float] | None = None, **counts: int) -> None:
    """Refuse numbers of pairs, questions and resamples and seeds that can't be, and gaps that don't rise.

    Raises:
        UserError: Names the argument.
    """
    for name, count in counts.items():
        least = 0 if name in ("again", "seed") else 1
        if count < least:
            raise UserError(f"{name} is {count}; give a whole number from {least}")
    if gaps is not None and (any(map(number_problem, gaps)) or [0.0, *gaps] != sorted({0.0, *gaps}) or not len(gaps)):
        raise UserError(f"gaps is {list(gaps)}; give ends of buckets above 0 that rise, such as 0.5, 1, 2")


def read_people(rows: Any, max_pairs: int = CANDIDATES, seed: int = 0) -> Comparisons:
    """Pairs with people's preferences from rows of any known layout.

    Args:
        rows: See `measure_judge`.
        max_pairs: Most pairs made of ratings or scores.
        seed: Of the sample.

    Raises:
        UserError: The layout isn't known, or a row can't be used.
    """
    rows = rows if isinstance(rows, Dataset) else list(rows)
    data = read_comparisons(rows, max_pairs=max_pairs, seed=seed, name="rows")
    if not len(data.first):
        raise UserError(
            "rows hold no two responses to one prompt; give pairs, rankings or several rated responses each"
        )
    return data


def _missing(data: Comparisons, own: Collection[str]) -> dict[str, str]:
    """Why a section is None, where it may be."""
    named = sorted({source for source in data.sources if source})
    wrote = f"they name {len(named)} others" if named else "they name no sources (chosen_source and rejected_source)"
    return {
        "length": "no pair has responses of different lengths on which people are decided and the judge has an opinion",
        "calibration": "the judge has no opinion on any pair",
        "self_preference": f"the rows hold no pair with one response by {' or '.join(sorted(own))}; {wrote}",
    }


def _remarks(data: Comparisons, asked: Asked, metrics: dict[str, Any], facts: dict[str, Any]) -> Iterator[Remark]:
    """What to know before believing a figure, what voids most first."""
    verdicts, agreement = metrics["verdicts"], metrics["agreement"]
    if verdicts["ties"] == 1:
        yield Remark("all_ties", "It calls every pair a tie, so it prefers nothing.")
    elif verdicts["flips"] and verdicts["flips"] > 0.5:
        yield Remark(
            "flips", f"Its choice changes with the order in {verdicts['flips']:.0%} of the pairs: those are ties."
        )
    after = metrics["position"]["effect_after"]
    if after is not None and abs(after) > AFTER:
        yield Remark(
            "order_left",
            f"Given the same pairs in the other order it judges otherwise: {after:+.3f} for the response given first. "
            "Ask in both orders (judge_orders).",
        )
    if (missing := 1 - verdicts["opinions"]) > NO_OPINION:
        yield Remark("no_opinion", f"It has no opinion on {missing:.0%} of the pairs, which count nowhere else.")
    votes = float(data.votes[asked.pairs].mean())
    if agreement["people"] is not None and votes < FEW_VOTES:
        yield Remark(
            "few_votes",
            f"With {votes:.1f} votes a pair people's own agreement is too high: each vote is part of what it is "
            "compared with.",
        )
    if facts["units"] < FEW_UNITS:
        yield few_units(facts["units"], facts["unit"])
    if data.unit == "texts":
        yield Remark(
            "few_prompts",
            f"{len(data.prompts)} prompts have {len(data.texts)} texts, so the bootstrap draws {facts['unit']}: "
            "intervals are those for these prompts.",
        )
    if facts["candidates"] > facts["pairs"]:
        more = "with each text once" if facts["unit"] == "pairs" else "raise max_pairs for more"
        yield Remark("sampled_pairs", f"{facts['pairs']:,} of {facts['candidates']:,} pairs were drawn; {more}.")
    for reason, count in data.skipped.items():
        yield Remark("skipped", f"Left out: {count} {reason}.")
