"""Judges of a policy report: what is given as one or several, by name, and what each says of all responses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_align.errors import UserError
from hf_align.evaluation.described import name_of
from hf_align.evaluation.pairwise import compare_with_reference
from hf_align.evaluation.policy_inputs import Asked
from hf_align.evaluation.scorers import judge_scores, open_judge
from hf_align.evaluation.writing import Written
from hf_align.model_cards.rewards import head_keys
from hf_align.models.quantized import Quantization
from hf_align.progress import Progress
from hf_align.rewards import Judge, Reward
from hf_align.rewards.vader import VADER, vader_judge


def judges_by_name(judge: Any) -> dict[str, Any]:
    """Judges by name, VADER as None.

    Args:
        judge: As for `policy_report`.

    Raises:
        UserError: There is none.
    """
    if isinstance(judge, Mapping):
        if not judge:
            raise UserError("judge is empty; name at least one.")
        return {str(label): _vader_as_none(each) for label, each in judge.items()}
    if judge is None:
        raise UserError('judge is missing; give "vader", a reward model, a function or a judge of pairs.')
    return {judge_name(judge): _vader_as_none(judge)}


def judge_name(judge: Any) -> str:
    """What a report calls a judge: of a folder the last part."""
    if _vader_as_none(judge) is None:
        return "VADER"
    if isinstance(judge, list):
        return "a weighted sum of rewards"
    if isinstance(judge, Judge):
        judge = judge.name
    return Path(judge).name if isinstance(judge, str) and Path(judge).is_dir() else str(name_of(judge))


def _vader_as_none(judge: Any) -> Any:
    return None if judge is vader_judge or (isinstance(judge, str) and judge.lower() == VADER) else judge


def judge_all(
    judges: Mapping[str, Any],
    asked: Asked,
    written: Mapping[str, Written],
    reference: str,
    quantization: Quantization,
    progress: Progress,
) -> tuple[dict[str, dict[str, list[float]]], dict[str, dict[str, list[str]]], dict[str, dict[str, int]]]:
    """Have judges judge all responses, one after another.

    Args:
        judges: Judges by name.
        asked: The prompts.
        written: Responses by policy.
        reference: The policy that judges of pairs compare the others with.
        quantization: Of reward models.
        progress: Receiver of progress.

    Returns:
        Scores by judge and policy; names of each judge's parts with keys of their heads; counts of judged pairs.
    """
    texts = {name: [sample.text for sample in its.samples] for name, its in written.items()}
    ended = {name: [sample.ended for sample in its.samples] for name, its in written.items()}
    scores: dict[str, dict[str, list[float]]] = {}
    parts: dict[str, dict[str, list[str]]] = {}
    pairs: dict[str, dict[str, int]] = {}
    for label, judge in judges.items():
        if isinstance(judge, Judge):
            scores[label], counts = compare_with_reference(
                judge, asked.prompts, texts, reference, progress, f"judging: {label}"
            )
            parts[label], pairs[label] = _parts_of(getattr(judge, "reward", None)), counts.to_json()
            continue
        with progress.task(f"judging: {label}", len(texts)):
            reward = open_judge(judge, quantization)
            scores[label] = judge_scores(reward, asked.prompts, texts, ended, asked.columns)
            parts[label] = _parts_of(reward)
    return scores, parts, pairs


def _parts_of(reward: Any) -> dict[str, list[str]]:
    """Names of a reward's parts, with the keys of their heads; none of anything else."""
    members = reward.members if isinstance(reward, Reward) else []
    return {part.name: head_keys(part.source) for part in members}
