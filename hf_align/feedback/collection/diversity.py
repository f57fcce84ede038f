"""Near duplicates among a prompt's responses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hf_align.collators.rows import text_of
from hf_align.data.shingles import jaccard, shingles
from hf_align.feedback.records import Response


def drop_near(responses: Iterable[Response], near: float, *, among: Sequence[Response] = ()) -> list[Response]:
    """The responses that are no near duplicates of an earlier one.

    Two texts are compared by the pieces of 5 characters that they share (`hf_align.data.shingles`): without case,
    punctuation and spacing, short ones as a whole. A prompt has few responses, so all are compared exactly, and none is
    missed.

    Args:
        responses: Responses to one prompt, the ones to keep first.
        near: Jaccard similarity from which two are near duplicates, in (0, 1].
        among: Responses kept before, which these are compared with, too.

    Returns:
        Those that are kept, in their order.

    Example:
        >>> from hf_align.feedback import Response
        >>> from hf_align.feedback.collection.diversity import drop_near
        >>> texts = ["It rained all day in the north.", "It rained all day in the north!", "Yes.", "No."]
        >>> [each.content for each in drop_near([Response("p", text, "a") for text in texts], 0.8)]
        ['It rained all day in the north.', 'Yes.', 'No.']
    """
    seen = [shingles(text_of(each.content)) for each in among]
    kept: list[Response] = []
    for response in responses:
        pieces = shingles(text_of(response.content))
        if all(jaccard(pieces, other) < near for other in seen):
            seen.append(pieces)
            kept.append(response)
    return kept
