"""Layouts of texts: pairs under their usual and under other names, and HH's transcripts."""

from __future__ import annotations

import re
from typing import Any

from hf_align.collators.rows import join_sides
from hf_align.data.layouts.layout import (
    Layout,
    Made,
    Row,
    Tally,
    Unusable,
    is_messages,
    is_text,
    kept,
    need_text,
)

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def is_transcript(value: Any) -> bool:
    """Whether it is a text with the turns of HH: "\\n\\nHuman: ...\\n\\nAssistant: ..."."""
    return isinstance(value, str) and bool(re.match(r"\s*(Human|Assistant):", value)) and "\n\nAssistant:" in value


def transcript(text: str) -> list[dict[str, str]]:
    """Messages of a transcript; an empty last turn, which only asks for an answer, is left out.

    Raises:
        Unusable: It doesn't begin with a turn, or has an empty one.
    """
    start, *parts = _TURN.split("\n\n" + text.lstrip())
    if start.strip() or not parts:
        raise Unusable("a transcript that doesn't begin with Human: or Assistant:")
    said = zip(parts[::2], parts[1::2], strict=True)
    turns = [{"role": _ROLES[role], "content": text.strip()} for role, text in said]
    if not turns[-1]["content"] and turns[-1]["role"] == "assistant":
        turns.pop()
    if not all(turn["content"] for turn in turns):
        raise Unusable("a transcript with an empty turn")
    return turns


def _hh(row: Row, tally: Tally) -> list[Made]:
    """The prompt is all that both share, up to the last answer as a rule: some pairs part earlier."""
    sides = [transcript(text) for text in need_text(row, "chosen", "rejected")]
    if sides[0] == sides[1]:
        tally.drop("pairs of identical responses")
        return []
    prompt, (chosen, rejected) = join_sides(None, sides, ("chosen", "rejected"))
    return [{"prompt": prompt, "chosen": chosen, "rejected": rejected, **kept(row, "chosen", "rejected")}]


def _stack_exchange(row: Row, tally: Tally) -> list[Made]:
    question, better, worse = need_text(row, "question", "response_j", "response_k")
    return tally.compare(question, better, worse, 1, kept(row, "question", "response_j", "response_k"))


LAYOUTS = (
    Layout(
        "hh_transcripts",
        "Anthropic HH-RLHF",
        ("chosen", "rejected"),
        lambda row: is_transcript(row["chosen"]) and is_transcript(row["rejected"]),
        convert=_hh,
        without=("prompt",),
    ),
    Layout(
        "stack_exchange_paired",
        "Stack Exchange Paired",
        ("question", "response_j", "response_k"),
        lambda row: is_text(row["question"], row["response_j"], row["response_k"]),
        convert=_stack_exchange,
    ),
)


def _native(row: Row) -> bool:
    sides = (row["chosen"], row["rejected"], *([row["prompt"]] if row.get("prompt") is not None else []))
    return is_text(*sides) or all(map(is_messages, sides))


NATIVE = Layout("pairs", "hf_align, TRL", ("chosen", "rejected"), _native)
"""Returned unchanged."""
