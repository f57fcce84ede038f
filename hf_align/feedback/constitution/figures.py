"""What came of a constitution, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from hf_align.feedback.constitution.compare import Compared, Comparisons, Vote
from hf_align.feedback.constitution.principles import Constitution
from hf_align.feedback.constitution.revise import OUTCOMES, Revised, Step
from hf_align.feedback.constitution.rows import Rows
from hf_align.feedback.figures import Figures, share_of, side_of
from hf_align.numbers import plural

FINISHED = "finished"
"""Setting of a text that says whether its model ended it."""


def describe_revisions(revised: Sequence[Revised], constitution: Constitution) -> Figures:
    """Counts of the supervised half, over all steps and by principle.

    Args:
        revised: Its prompts with their responses.
        constitution: The constitution.
    """
    steps = [step for each in revised for step in each.steps]
    changed = [each for each in revised if any(step.outcome == "revised" for step in each.steps)]
    ratios = [len(each.final.split()) / len(each.initial.text.split()) for each in changed]
    return {
        "prompts": len(revised),
        **_counts(steps),
        "prompts_with_revision": share_of([any(step.outcome == "revised" for step in each.steps) for each in revised]),
        "length_ratio": fmean(ratios) if ratios else None,
        "cut_responses": sum(each.initial.settings.get(FINISHED) is False for each in revised),
        "by_principle": {
            principle.id: _counts([step for step in steps if step.principle.id == principle.id])
            for principle in constitution.principles
        },
    }


def _counts(steps: Sequence[Step]) -> Figures:
    """Counts of steps; `shorter` and `refuses` are of the revisions that were written, taken or not."""
    outcomes = Counter(step.outcome for step in steps)
    written = [step.revision for step in steps if step.revision is not None]
    asked = [step.broken for step in steps if step.broken is not None]
    return {
        "steps": len(steps),
        "outcomes": {name: outcomes[name] for name in OUTCOMES},
        "criticised": share_of([step.critique is not None for step in steps]),
        "revisions": len(written),
        "shorter": sum(step.shorter for step in steps),
        "refuses": sum(step.refuses for step in steps),
        "cut": sum(text.settings.get(FINISHED) is False for text in written),
        "mean_broken": fmean(asked) if asked else None,
    }


def describe_comparisons(compared: Comparisons, constitution: Constitution, biases: Mapping[str, float]) -> Figures:
    """Counts of the preference half, over all pairs and by principle.

    Args:
        compared: The pairs with their votes.
        constitution: The constitution.
        biases: Position bias that was taken out, in log-odds, by principle.
    """
    ids = [principle.id for principle in constitution.principles]
    votes = [(pair, vote) for pair in compared.pairs for vote in pair.votes]
    of = {id: [each for each in votes if each[1].principle is not None and each[1].principle.id == id] for id in ids}
    decided = [pair for pair in compared.pairs if (pair.preference or 0.5) != 0.5]
    strengths = [2 * abs(pair.preference - 0.5) for pair in compared.pairs if pair.preference is not None]
    return {
        "prompts": len(compared.responses),
        "responses": sum(map(len, compared.responses.values())),
        "pairs": len(compared.pairs),
        "mean_strength": fmean(strengths) if strengths else None,
        "longer_preferred": share_of([longer for pair in decided if (longer := _longer_wins(pair)) is not None]),
        "votes": _votes(votes),
        "position_bias": dict(biases),
        "by_principle": {id: _votes(each) for id, each in of.items()},
    }


def _votes(votes: Sequence[tuple[Compared, Vote]]) -> Figures:
    """Counts of votes; `position` is what their mean probability of the response shown first exceeds 1/2 by."""
    judgements = [vote.judgement for _, vote in votes]
    shown = [
        (forward - backward) / 2
        for forward, backward in (each.orders for each in judgements if each.orders is not None)
        if forward is not None and backward is not None
    ]
    sided = [
        side_of(vote.judgement.preference) == side_of(pair.preference)
        for pair, vote in votes
        if vote.judgement.preference not in (None, 0.5) and pair.preference is not None
    ]
    return {
        "votes": len(judgements),
        "ties": sum(each.preference == 0.5 for each in judgements),
        "flips": share_of([each.flipped for each in judgements if each.orders is not None]),
        "without_opinion": sum(each.preference is None for each in judgements),
        "position": fmean(shown) if shown else None,
        "as_the_label": share_of(sided),
    }


def _longer_wins(pair: Compared) -> bool | None:
    """Whether the response with more words is preferred; None if both have as many."""
    first, second = (len(text.text.split()) for text in (pair.first, pair.second))
    return None if first == second or pair.preference is None else (pair.preference > 0.5) == (first > second)


def figure_lines(figures: Mapping[str, Any], rows: Rows) -> list[str]:
    """The main figures in lines for the terminal."""
    sft, preferences = figures["sft"], figures["preferences"]
    outcomes, votes = sft["outcomes"], preferences["votes"]
    lines = [
        f"prompts: {figures['prompts']['sft']:,} to revise responses to, {figures['prompts']['preferences']:,} to "
        f"compare responses to, {figures['prompts']['repeated']:,} repeated rows left out"
    ]
    if sft["steps"]:
        lines += [
            f"steps: {sft['steps']:,}; {_listed(outcomes)}",
            f"revisions: {sft['revisions']:,} written, of which {sft['shorter']:,} shorter, {sft['refuses']:,} "
            f"refusing, {sft['cut']:,} cut at the length limit",
        ]
    if preferences["pairs"]:
        flips = votes["flips"]
        lines += [
            f"votes: {votes['votes']:,} on {preferences['pairs']:,} pairs; {votes['ties']:,} ties"
            + (f", {flips['count']:,} changed with the order" if flips["of"] else ""),
        ]
    lines += [f"left out: {count:,} {reason}" for reason, count in rows.left_out.items() if count]
    files = (("sft", rows.sft), ("preferences", rows.preferences), ("revision pairs", rows.revisions))
    lines += ["rows: " + ", ".join(f"{len(each):,} {name}" for name, each in files if each or name != "revision pairs")]
    return lines


def why_no_preferences(figures: Mapping[str, Any]) -> str | None:
    """Why prompts that were for comparisons gave no preferences, and what to do; None without such prompts."""
    prompts, pairs = figures["prompts"]["preferences"], figures["preferences"]["pairs"]
    if not prompts:
        return None
    if not pairs:
        return (
            "no preferences: no prompt got two different responses; raise temperature, max_new_tokens or "
            "responses_per_prompt"
        )
    without = figures["left_out"].get("pairs without an opinion", 0)
    if without == pairs:
        return f"no preferences: the judge has no opinion on any of the {plural(pairs, 'pair')}; see what it answers"
    tied = "every pair tied" if not without else "every pair tied or got no opinion"
    return (
        f"no preferences: {tied} ({plural(pairs, 'pair')}); measure the judge by `evaluate judge`, and take "
        "another one, other principles or more different responses"
    )


def _listed(counts: Mapping[str, int]) -> str:
    given: Iterable[str] = (f"{count:,} {name}" for name, count in counts.items() if count)
    return ", ".join(given) or "none"
