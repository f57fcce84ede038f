"""Layouts of conversations: messages with roles or speakers, as lists, dicts or a dict with a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hf_align.collators.rows import join_sides
from hf_align.data.layouts.grouping import Answer, both, grouped, of_prompts
from hf_align.data.layouts.layout import (
    Layout,
    Made,
    Row,
    Tally,
    Unusable,
    assistant,
    is_messages,
    is_number,
    is_records,
    is_text,
    kept,
    pair,
)

_ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
}
"""Roles by the names that layouts have for them."""


def message_of(turn: Any) -> dict[str, Any]:
    """A message with role and content from any layout's turn; content in parts becomes text.

    Raises:
        Unusable: It has no role or text, or a speaker that isn't known.
    """
    if not isinstance(turn, dict):
        raise Unusable("a message that is no dict")
    speaker = next((turn[name] for name in ("role", "from") if turn.get(name)), None)
    content = next((turn[name] for name in ("content", "value") if turn.get(name) is not None), None)
    if str(speaker).lower() not in _ROLES:
        raise Unusable("a message without role" if speaker is None else f"a message from an unknown speaker {speaker}")
    used = ("role", "from", "content", "value")
    others = {name: value for name, value in turn.items() if name not in used and value is not None}
    if content is None and not others.get("tool_calls"):
        raise Unusable("a message without content")
    return {"role": _ROLES[str(speaker).lower()], "content": None if content is None else _text(content), **others}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
        raise Unusable("a message whose content is not text")
    return "".join(part["text"] for part in parts)


def side_of(value: Any, name: str) -> Any:
    """A prompt or response as text or messages, from a text, a message, a list of them or a dict with one.

    Raises:
        Unusable: It is none of these, or empty.
    """
    if value is None or value == [] or value == "":
        raise Unusable(f"no {name}" if value is None else f"an empty {name}")
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        value = value["messages"] if isinstance(value.get("messages"), list) else [value]
    if not isinstance(value, list):
        raise Unusable(f"a {name} that is neither text nor messages")
    return [message_of(turn) for turn in value]


def is_turn(value: Any) -> bool:
    """Whether it is one message of any layout."""
    return isinstance(value, dict) and ({"role", "content"} <= set(value) or {"from", "value"} <= set(value))


def is_turns(value: Any) -> bool:
    """Whether it is a list of messages of any layout."""
    return isinstance(value, list) and bool(value) and all(map(is_turn, value))


def _joined(row: Row, prompt: Any, chosen: str, rejected: str, *used: str) -> list[Made]:
    """A pair of sides in any form; the prompt is without what `chosen` and `rejected` repeat of it."""
    sides: list[Any] = [side_of(row[name], name) for name in (chosen, rejected)]
    if (is_text(prompt) and not all(map(is_text, sides))) or isinstance(prompt, list):
        sides = [assistant(side) if isinstance(side, str) else side for side in sides]
    joined, (better, worse) = join_sides(prompt, sides, ("chosen", "rejected"))
    others = kept(row, *used, chosen, rejected, "tools")
    if row.get("tools"):
        others["tools"] = row["tools"]
    if isinstance(prompt, str) and isinstance(joined, list) and all(turn["content"] != prompt for turn in joined):
        others["source_prompt"] = prompt
    return pair(joined, better, worse, others)


def _with_prompt(row: Row, tally: Tally) -> list[Made]:
    prompt = None if row.get("prompt") is None else side_of(row["prompt"], "prompt")
    return _joined(row, prompt, "chosen", "rejected", "prompt")


_TURNS = "conversations|messages|conversation|trajectory"


def _sharegpt(row: Row, tally: Tally) -> list[Made]:
    name = next(name for name in _TURNS.split("|") if name in row)
    prompt = side_of(row[name], name)
    if row.get("system"):
        prompt = [{"role": "system", "content": row["system"]}, *prompt]
    return _joined(row, prompt, "chosen", "rejected", name, "system")


def _openai(row: Row, tally: Tally) -> list[Made]:
    given = row["input"]
    prompt = side_of(given["messages"] if isinstance(given, dict) else given, "input")
    outer = {**row, "tools": given.get("tools")} if isinstance(given, dict) else row
    made = _joined(outer, prompt, "preferred_output", "non_preferred_output", "input")
    if isinstance(given, dict):
        rest = {name: value for name, value in given.items() if name not in ("messages", "tools")}
        made = [each | rest for each in made]
    return made


def _unified(row: Row, tally: Tally) -> list[Made]:
    sides: list[Any] = [side_of(row[name], name) for name in ("conv_A", "conv_B")]
    gap = float(row["conv_A_rating"]) - float(row["conv_B_rating"])
    others = kept(row, "conv_A", "conv_B", "conv_A_rating", "conv_B_rating")
    if sides[0] == sides[1]:
        tally.drop("pairs of identical responses")
        return []
    prompt, (a, b) = join_sides(None, sides, ("conv_A", "conv_B"))
    each = {"rating": (row["conv_A_rating"], row["conv_B_rating"])}
    preference = 0.5 * (1 + (gap > 0) - (gap < 0))
    return tally.compare(prompt, a, b, preference, others, margin=abs(gap), each=each)


def _kto(rows: Iterable[tuple[int, Row]], tally: Tally) -> Iterator[Made]:
    """Every good completion of a prompt with every bad one."""
    groups = grouped(rows, tally, _labelled)
    shared = of_prompts(groups)
    for group in groups:
        good, bad = ([each for each in group if each.values == [label]] for label in (True, False))
        if not good or not bad:
            tally.drop("prompts whose completions have one label")
        for a in good:
            for b in bad:
                common = {name: value for name, value in a.others.items() if name in shared}
                yield from tally.compare(a.prompt, a.response, b.response, 1, common, each=both(a, b, shared))


def _labelled(row: Row) -> Answer:
    if row["label"] not in (True, False):
        raise Unusable("no label" if row["label"] is None else "a label that is neither true nor false")
    prompt, response = side_of(row["prompt"], "prompt"), side_of(row["completion"], "completion")
    return Answer(prompt, response, [bool(row["label"])], kept(row, "prompt", "completion", "label"))


def _pair(prompt: Callable[[Any], bool], side: Callable[[Any], bool]) -> Callable[[Row], bool]:
    return lambda row: prompt(row["prompt"]) and side(row["chosen"]) and side(row["rejected"])


def _is_dict(side: Any) -> bool:
    return isinstance(side, dict) and is_turns(side.get("messages"))


def _is_rated(row: Row) -> bool:
    rated = is_number(row["conv_A_rating"], row["conv_B_rating"])
    return rated and is_turns(row["conv_A"]) and is_turns(row["conv_B"])


def _in_parts(row: Row) -> bool:
    sides = [row["chosen"], row["rejected"], *([row["prompt"]] if isinstance(row.get("prompt"), list) else [])]
    return all(map(is_messages, sides)) and any(isinstance(turn["content"], list) for side in sides for turn in side)


def _has_turns(row: Row) -> bool:
    turns = next(row[name] for name in _TURNS.split("|") if name in row)
    sides = (row["chosen"], row["rejected"])
    return is_turns(turns) and (is_text(*sides) or all(map(is_turn, sides)) or all(map(is_turns, sides)))


_PAIR = ("prompt", "chosen", "rejected")
LAYOUTS = (
    Layout("content_parts", "messages with content in parts", ("chosen", "rejected"), _in_parts, convert=_with_prompt),
    Layout(
        "sharegpt_pairs",
        "LLaMA-Factory, sharegpt and openai formats; UltraInteract",
        (_TURNS, "chosen", "rejected"),
        _has_turns,
        convert=_sharegpt,
        without=("prompt",),
    ),
    Layout(
        "openai_preferences",
        "OpenAI preference fine-tuning",
        ("input", "preferred_output", "non_preferred_output"),
        lambda row: is_turns(row["preferred_output"]) and is_turns(row["non_preferred_output"]),
        convert=_openai,
    ),
    Layout(
        "ultrafeedback_binarized",
        "UltraFeedback binarised, Tulu 3 preferences, Capybara DPO",
        _PAIR,
        _pair(is_text, is_turns),
        convert=_with_prompt,
    ),
    Layout(
        "message_pairs",
        "one message as response",
        _PAIR,
        _pair(lambda prompt: is_text(prompt) or is_turns(prompt), is_turn),
        convert=_with_prompt,
    ),
    Layout(
        "texts_after_messages",
        "texts after a prompt in messages",
        _PAIR,
        _pair(is_turns, is_text),
        convert=_with_prompt,
    ),
    Layout(
        "speaker_pairs",
        "prompt and responses as from/value lists",
        _PAIR,
        _pair(is_turns, lambda side: is_records(side, "from", "value")),
        convert=_with_prompt,
    ),
    Layout(
        "dicts_of_messages",
        "axolotl; chosen and rejected as {messages: [...]}",
        ("chosen", "rejected"),
        lambda row: _is_dict(row["chosen"]) and _is_dict(row["rejected"]),
        convert=_with_prompt,
    ),
    Layout(
        "speaker_conversations",
        "chosen and rejected are whole conversations as from/value lists",
        ("chosen", "rejected"),
        lambda row: all(is_records(row[name], "from", "value") for name in ("chosen", "rejected")),
        convert=_with_prompt,
        without=("prompt",),
    ),
    Layout(
        "unified_feedback",
        "Unified-Feedback",
        ("conv_A", "conv_B", "conv_A_rating", "conv_B_rating"),
        _is_rated,
        convert=_unified,
    ),
    Layout(
        "kto",
        "TRL, KTO's unpaired completions",
        ("prompt", "completion", "label"),
        lambda row: row["label"] in (True, False),  # or 1 and 0
        whole=_kto,
        share=0.75,  # a rating may be 0 or 1, too
    ),
)
