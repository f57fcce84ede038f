"""The same preferences in other words: pairs whose responses a function has rewritten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from textwrap import shorten
from typing import Any

from hf_align.collators.rows import Side
from hf_align.data.compared import SIDES
from hf_align.errors import UserError

Reword = Callable[[list[str]], list[str]]
"""Rewrites texts: gets a list and returns one text for each."""


def reword(
    rows: Sequence[Mapping[str, Any]], responses: Sequence[Sequence[Side]], function: Reword, name: str
) -> tuple[list[tuple[int, dict[str, Any]]], Counter[str]]:
    """Rewrite both responses of each row, so that no style of the function's tells the better one.

    Args:
        rows: Pairs.
        responses: The two responses of each as they are read.
        function: Gets every text once, without the spaces around it.
        name: The function's argument, for messages.

    Returns:
        Numbers of rows with what replaces their `chosen` and `rejected`; and counts of rows left out, by reason.

    Raises:
        UserError: The function returns no text for each, or one response of a row for the other.
    """
    texts = [[_plain_text(row[side], read) for side, read in zip(SIDES, sides, strict=True)]
             for row, sides in zip(rows, responses, strict=True)]  # fmt: skip
    asked = list(dict.fromkeys(text.strip() for each in texts if None not in each for text in each if text))
    new = dict(zip(asked, _call(function, asked, name), strict=True))
    made: list[tuple[int, dict[str, Any]]] = []
    left_out: Counter[str] = Counter()
    for number, (row, each) in enumerate(zip(rows, texts, strict=True)):
        chosen, rejected = each
        if chosen is None or rejected is None:
            left_out["of more than one plain text"] += 1
            continue
        old = chosen.strip(), rejected.strip()
        rewritten = new[old[0]], new[old[1]]
        if rewritten[0] == old[1] or rewritten[1] == old[0]:
            raise UserError(
                f"{name} gave one response of row {number} for the other ({old[0]!r}, {old[1]!r}), which turns the "
                "preference round; make it keep the meaning, or drop the row."
            )
        if problem := _problem(old, rewritten):
            left_out[problem] += 1
            continue
        sides = zip(SIDES, (chosen, rejected), rewritten, strict=True)
        made.append((number, {side: _replaced(row[side], before, after) for side, before, after in sides}))
    return made, left_out


def _plain_text(raw: Any, read: Side) -> str | None:
    """The text of a response that is text, or one message of nothing but text."""
    if isinstance(read, str):
        return read
    message = read[0]
    plain = len(read) == 1 and isinstance(raw, list) and set(message) == {"role", "content"}
    return message["content"] if plain and raw[-1]["content"] == message["content"] else None


def _call(function: Reword, texts: list[str], name: str) -> list[str]:
    if not callable(function):
        raise UserError(f"{name} is {function!r}; give a function that gets a list of texts and returns one for each.")
    result: Any = function(list(texts)) if texts else []
    if isinstance(result, str) or not isinstance(result, Iterable):
        raise UserError(f"{name} returned {shorten(repr(result), 80)} for a list of texts; return a list of texts.")
    result = list(result)
    if len(result) != len(texts):
        raise UserError(f"{name} got {len(texts)} texts and returned {len(result)}; return one text for each.")
    if wrong := [text for text in result if not isinstance(text, str)]:
        raise UserError(f"{name} returned {wrong[0]!r} for a text; return one text for each.")
    return [text.strip() for text in result]


def _problem(old: tuple[str, str], new: tuple[str, str]) -> str:
    if not all(new):
        return "empty"
    if new[0] == old[0] or new[1] == old[1]:
        return "unchanged"
    return "alike for both responses" if new[0] == new[1] else ""


def _replaced(raw: Any, before: str, after: str) -> Any:
    """The response as it was given, with other words between the same spaces."""
    start = len(before) - len(before.lstrip())
    text = before[:start] + after + before[start + len(before.strip()) :]
    return text if isinstance(raw, str) else [*raw[:-1], {**raw[-1], "content": text}]
