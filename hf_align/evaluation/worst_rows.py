"""The pairs that a reward model gets most wrong, to read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_align.collators.rows import Side, text_of
from hf_align.data.comparisons import Comparisons

COUNT = 20


def worst_rows(
    data: Comparisons, scores: NDArray[np.float64], lengths: NDArray[np.float64], count: int = COUNT
) -> list[dict[str, Any]]:
    """Pairs in which the model surely prefers what people surely don't.

    Sorted by the model's difference for the worse response times |2 P - 1|, people's agreement. No text is shown twice:
    one bad score would otherwise fill the list.

    Args:
        data: The pairs.
        scores: `[R]` the model's.
        lengths: `[R]` of the responses.
        count: Most pairs.

    Returns:
        The worst first: "rows" (numbers of the better's and the worse's row), "prompt" (that of the better one),
        "worse_prompt" where it is another, "better", "worse" (texts), "better_score", "worse_score", "label" (share of
        votes for the better one), "better_human" and "worse_human" (people's scores or None), "better_length",
        "worse_length" and "subset".
    """
    better = np.where(data.better > 0, data.first, data.second)
    worse = np.where(data.better > 0, data.second, data.first)
    label = np.where(data.better > 0, data.label, 1 - data.label)
    error = (scores[worse] - scores[better]) * np.abs(2 * label - 1)
    wrong = np.flatnonzero((data.better != 0) & (error > 0))
    shown: set[int] = set()
    result: list[dict[str, Any]] = []
    for pair in wrong[np.argsort(-error[wrong], kind="stable")]:
        good, bad = better[pair], worse[pair]
        texts = {int(data.text_of[good]), int(data.text_of[bad])}
        if texts & shown:
            continue
        shown |= texts
        result.append(
            {
                "rows": [int(data.row_of[good]), int(data.row_of[bad])],
                "prompt": _readable(data.prompts[data.prompt_of[good]]),
                **(
                    {"worse_prompt": _readable(data.prompts[data.prompt_of[bad]])}
                    if data.prompt_of[good] != data.prompt_of[bad]
                    else {}
                ),
                "better": text_of(data.texts[data.text_of[good]].text),
                "worse": text_of(data.texts[data.text_of[bad]].text),
                "better_score": float(scores[good]),
                "worse_score": float(scores[bad]),
                "label": float(label[pair]),
                "better_human": None if np.isnan(data.human[good]) else float(data.human[good]),
                "worse_human": None if np.isnan(data.human[bad]) else float(data.human[bad]),
                "better_length": float(lengths[good]),
                "worse_length": float(lengths[bad]),
                "subset": data.texts[data.text_of[good]].subset,
            }
        )
        if len(result) == count:
            break
    return result


def _readable(prompt: Side) -> str:
    """A prompt's text; of several messages each with its role."""
    if isinstance(prompt, str) or len(prompt) == 1:
        return text_of(prompt)
    return "\n".join(f"{message['role']}: {text_of([message])}" for message in prompt)
