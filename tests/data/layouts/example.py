"""An example of a layout: rows of our own in it, and what they become."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Example:
    """Rows of a layout, and the conversion that they must have.

    Attributes:
        layout: Name of the layout.
        rows: The rows.
        made: The pairs or rankings.
        dropped: Comparisons left out, by reason.
        unusable: Rows left out, by what they have.
    """

    layout: str
    rows: Rows
    made: Rows
    dropped: Mapping[str, int] = field(default_factory=dict)
    unusable: Mapping[str, Sequence[int]] = field(default_factory=dict)


def said(*texts: str) -> list[dict[str, str]]:
    """Messages of user and assistant in turn; a text alone is the assistant's."""
    roles = ("assistant",) if len(texts) == 1 else ("user", "assistant") * len(texts)
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


def asked(*texts: str) -> list[dict[str, str]]:
    """Messages of user and assistant in turn, as a prompt."""
    roles = ("user", "assistant") * len(texts)
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
