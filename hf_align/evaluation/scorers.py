"""Judges of texts: VADER, a reward model, or any other scorer of responses."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from hf_align.collators.rows import Side
from hf_align.errors import UserError
from hf_align.models.quantized import Quantization
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.progress import Progress
from hf_align.rewards import as_reward

CHUNK = 128
"""Responses scored per update of the progress bar."""


def vader_scores(texts: Sequence[str]) -> list[float]:
    """VADER's compound score of every text, -1 (most negative) to 1.

    VADER is a lexicon with rules (Hutto and Gilbert, 2014). Nothing in this library trains on it, so a policy can't
    have learned to exploit it.

    Raises:
        UserError: vaderSentiment is not installed.
    """
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise UserError('the judge needs vaderSentiment: pip install "hf-align[quickstart]"') from None
    analyzer = SentimentIntensityAnalyzer()
    return [float(analyzer.polarity_scores(text)["compound"]) for text in texts]


def score_responses(
    model: RewardModel,
    prompts: Sequence[Side],
    responses: Sequence[Side],
    progress: Progress,
    label: str = "scoring",
) -> list[float]:
    """A reward model's score of every response, with a progress bar."""
    return _in_chunks(model.score, prompts, responses, progress, label)


def score_encoded(
    model: RewardModel,
    prompt_ids: Sequence[Sequence[int]],
    response_ids: Sequence[Sequence[int]],
    progress: Progress,
) -> list[float]:
    """The same for token ids."""
    return _in_chunks(model.score_ids, prompt_ids, response_ids, progress, "scoring")


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
        judge: None for VADER, or a result of `hf_align.rewards.named.read_reward`: a reward model's folder or Hub id, a
            function, or a weighted list of these.
        prompts: `[N]` prompts.
        texts: `[N]` responses by policy name.
        finished: `[N]` bools by policy name: whether it ended the response itself.
        columns: Further columns of the prompts' rows, for functions.
        quantization: Quantisation of a reward model.

    Raises:
        UserError: The judge has no trained head, or can't be loaded.
    """
    if judge is None:
        return {name: vader_scores(written) for name, written in texts.items()}
    if isinstance(judge, str):
        model = load_reward_model(judge, quantization=quantization)
        if model.head_is_new:
            raise UserError(
                f"judge: {judge} has no reward head and would score at random; train it with `hf-align reward`"
            )
        judge = to_gpu(model, quantization)
    reward = as_reward(judge)
    return {
        name: reward(list(prompts), list(written), dict(columns), finished=finished[name]).tolist()
        for name, written in texts.items()
    }


def to_gpu(model: Any, quantization: Quantization) -> Any:
    """Move a model to the GPU if there is one; quantised weights are already there."""
    return model.to("cuda") if torch.cuda.is_available() and quantization is None else model
