"""Judges of texts: VADER, a reward model, or any other scorer of responses."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_align.collators.rows import Side, text_of
from hf_align.data.comparisons import Response
from hf_align.errors import UserError
from hf_align.models.ensemble import RewardEnsemble
from hf_align.models.placement import to_gpu
from hf_align.models.quantized import Quantization
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.models.scorer import Scorer
from hf_align.models.sources import is_ensemble
from hf_align.progress import Progress
from hf_align.rewards import Reward, as_reward
from hf_align.rewards.named import read_reward
from hf_align.rewards.vader import VADER, vader_judge, vader_scores

CHUNK = 128
"""Responses scored per update of the progress bar."""


def read_judge(judge: Any, place: str = "judge") -> Any:
    """A judge named in a recipe or command line, or given as an object: "vader" is VADER, as a function.

    Args:
        judge: "vader", or a reward as for `read_reward`; other objects are returned unchanged.
        place: Its place in the recipe or command line, for messages.

    Raises:
        UserError: VADER isn't installed, or as in `read_reward`.
    """
    if judge == VADER:
        vader_scores([])  # is it installed?
        return vader_judge
    return read_reward(judge, place) if isinstance(judge, str) or _is_named_list(judge) else judge


def _is_named_list(judge: Any) -> bool:
    return isinstance(judge, list) and all(isinstance(entry, str | dict) for entry in judge)


def score_responses(
    model: RewardModel,
    prompts: Sequence[Side],
    responses: Sequence[Side],
    progress: Progress,
    label: str = "scoring",
) -> list[float]:
    """A reward model's score of every response, with a progress bar."""
    return _in_chunks(model.score, prompts, responses, progress, label)


def _in_chunks(
    score: Callable[[Any, Any], list[float]],
    prompts: Sequence[Any],
    responses: Sequence[Any],
    progress: Progress,
    label: str,
) -> list[float]:
    scores: list[float] = []
    with progress.task(label, len(prompts)) as advance:
        for start in range(0, len(prompts), CHUNK):
            scores += score(prompts[start : start + CHUNK], responses[start : start + CHUNK])
            advance(len(scores), "")
    return scores


def judge_scores(
    judge: Any,
    prompts: Sequence[Side],
    texts: Mapping[str, Sequence[str]],
    finished: Mapping[str, Sequence[bool]],
    columns: Mapping[str, Sequence[Any]],
    quantization: Quantization = None,
) -> dict[str, list[float]]:
    """Score several policies' responses to the same prompts.

    Args:
        judge: None for VADER, a result of `open_judge`, or a result of `hf_align.rewards.named.read_reward`: a reward
            model's folder or Hub id, a function, or a weighted list of these.
        prompts: `[N]` prompts.
        texts: `[N]` responses by policy name.
        finished: `[N]` bools by policy name: whether it ended the response itself.
        columns: Further columns of the prompts' rows, for functions.
        quantization: Quantisation of a reward model.

    Raises:
        UserError: The judge has no trained head, or can't be loaded.
    """
    reward = open_judge(judge, quantization)
    if reward is None:
        return {name: vader_scores(written) for name, written in texts.items()}
    return {
        name: reward(list(prompts), list(written), dict(columns), finished=finished[name]).tolist()
        for name, written in texts.items()
    }


def open_judge(judge: Any, quantization: Quantization = None) -> Reward | None:
    """A judge of `judge_scores`, loaded; None for VADER.

    Raises:
        UserError: It has no trained head, or can't be loaded.
    """
    if isinstance(judge, str) and is_ensemble(judge):
        judge = to_gpu(RewardEnsemble.from_pretrained(judge, quantization=quantization), quantization)
    elif isinstance(judge, str):
        model = load_reward_model(judge, quantization=quantization)
        if model.head_is_new:
            raise UserError(
                f"judge: {judge} has no reward head and would score at random; train it with `hf-align reward`"
            )
        judge = to_gpu(model, quantization)
    return None if judge is None else as_reward(judge)


Score = Callable[[Sequence[Side], Sequence[Side], Sequence[Any]], Sequence[float]]
"""Scores of responses to prompts, with the rows' options for the chat template."""


def scorer_of(model: Any) -> Score:
    """One way to call every kind of reward model.

    Args:
        model: A `RewardModel`, `RewardEnsemble`, `Scorer` or object with `score(prompts, responses)`, or a function as
            in `as_reward`.
    """
    if isinstance(model, RewardModel | RewardEnsemble | Scorer):
        return lambda prompts, responses, options: model.score(prompts, responses, rows=options)
    if hasattr(model, "score"):
        return lambda prompts, responses, options: model.score(prompts, responses)
    reward = as_reward(model)
    return lambda prompts, responses, options: reward(prompts, [text_of(text) for text in responses]).tolist()


def score_all(
    score: Score, texts: Sequence[Response], progress: Progress, label: str, name: str = "model"
) -> NDArray[np.float64]:
    """`[N]` scores of responses, with a progress bar; `name` is what messages call the scorer.

    Raises:
        UserError: A score is missing, or no finite number.
    """
    scores: list[float] = []
    with progress.task(label, len(texts)) as advance:
        for start in range(0, len(texts), CHUNK):
            part = texts[start : start + CHUNK]
            scores += map(
                float, score([each.prompt for each in part], [each.text for each in part], [e.options for e in part])
            )
            advance(len(scores), "")
    values = np.asarray(scores, dtype=float)
    if len(values) != len(texts):
        raise UserError(f"{name} gave {len(values)} scores for {len(texts)} responses; return one for each.")
    if len(bad := np.flatnonzero(~np.isfinite(values))):
        raise UserError(f"{name} scores a response of row {texts[bad[0]].row} {values[bad[0]]}, not a finite number.")
    return values
