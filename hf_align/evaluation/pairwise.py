"""Policies' responses compared with the reference's by a judge of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from hf_align.collators.rows import Side
from hf_align.progress import Progress
from hf_align.rewards import Judge
from hf_align.rewards.judges import TIE

CHUNK = 32
"""Pairs judged per update of the progress bar."""


@dataclass
class PairCounts:
    """Pairs of a response and the reference's that a judge was asked about.

    Attributes:
        judged: Pairs of different texts.
        flipped: Those where its choice changed with the order; ties.
        no_opinion: Those on which it had none; ties, too.
    """

    judged: int = 0
    flipped: int = 0
    no_opinion: int = 0

    def to_json(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


def compare_with_reference(
    judge: Judge,
    prompts: Sequence[Side],
    texts: Mapping[str, Sequence[str]],
    reference: str,
    progress: Progress,
    label: str,
) -> tuple[dict[str, list[float]], PairCounts]:
    """Scores of responses by a judge of pairs: how probably each is better than the reference's to the same prompt.

    So a response scores higher than the reference's exactly where the judge prefers it. A text that equals the
    reference's is a tie unasked.

    Args:
        judge: The judge.
        prompts: `[N]` prompts.
        texts: `[N]` responses by policy, the reference among them.
        reference: Its name.
        progress: Receiver of progress.
        label: What it is shown.

    Returns:
        `[N]` scores by policy, from 0 to 1, those of the reference 1/2; and what was asked.
    """
    scores = {name: [TIE] * len(prompts) for name in texts}
    asked = [
        (name, row)
        for name, written in texts.items()
        for row, text in enumerate(written)
        if text != texts[reference][row]
    ]
    counts = PairCounts(len(asked))
    with progress.task(label, len(asked)) as advance:
        for start in range(0, len(asked), CHUNK):
            part = asked[start : start + CHUNK]
            judgements = judge.compare(
                [prompts[row] for _, row in part],
                [texts[name][row] for name, row in part],
                [texts[reference][row] for _, row in part],
            )
            for (name, row), judgement in zip(part, judgements, strict=True):
                counts.flipped += judgement.flipped
                if judgement.preference is None:
                    counts.no_opinion += 1
                else:
                    scores[name][row] = judgement.preference
            advance(start + len(part), "")
    return scores, counts
