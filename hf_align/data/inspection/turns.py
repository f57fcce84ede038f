"""Traces of other turns in a response, and roles that are out of order."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hf_align.collators.rows import Message, Side

ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function", "ipython", "environment"))
LEADING = frozenset(("system", "developer"))

_USER = r"(?:human|user)"
_TURN = re.compile(rf"\n[ \t*]*{_USER}[ \t*]*:|\n[ \t]*#{{2,3}} ?(?:instruction|human|user|input)\b", re.IGNORECASE)
_TEMPLATE = re.compile(
    rf"<\|(?:im_start|start_header_id|start)\|>\s*{_USER}|<\|{_USER}\|>|<start_of_turn>\s*{_USER}|\[INST\]",
    re.IGNORECASE,
)
_FIRST, _SECOND = (
    re.compile(rf"^\W*(?:answer|response|completion) ?#?(?:{mark})\b", re.IGNORECASE | re.MULTILINE)
    for mark in ("1|a", "2|b")
)
_ASKED = re.compile(
    r"\b(?:write|create|generate|compose|continue|simulate|imagine|make|give|draft|produce|list|answer|suggest)\b.{0,80}"
    r"\b(?:dialog(?:ue)?s?|conversations?|transcripts?|interviews?|screenplay|script|chat|answers|responses|questions)\b",
    re.IGNORECASE | re.DOTALL,
)
_MARKER = re.compile(
    r"\s*(?:[*]{0,2}(?:human|user|assistant|system|chatgpt|gpt)[*]{0,2}\s*:|#{2,3} ?(?:response|assistant|instruction)"
    r"\b|<\|(?:im_start|start_header_id|start)\|>|<\|(?:user|assistant|system)\|>|<start_of_turn>|\[/?INST\])",
    re.IGNORECASE,
)


def goes_on(response: Side, text: str, prompt: str) -> bool:
    """Whether a response goes on with the user's next turn, or gives several answers where nothing asks for them.

    Args:
        response: The response.
        text: Its text.
        prompt: The prompt's text: one that asks for a dialogue, or for several answers, may get them. A template's mark
            of a user's turn is never meant.
    """
    if isinstance(response, list) and any(turn["role"] == "user" for turn in response):
        return True
    if ("<" in text or "[" in text) and _stands_behind(_TEMPLATE, text):
        return True
    if "\n" not in text:
        return False
    several = _FIRST.search(text) is not None and _SECOND.search(text) is not None
    return (several or _stands_behind(_TURN, text)) and _ASKED.search(prompt) is None


def _stands_behind(pattern: re.Pattern[str], text: str) -> bool:
    """Whether it is found behind something."""
    return any(text[: match.start()].strip() for match in pattern.finditer(text))


def begins_with_role(text: str) -> bool:
    """Whether a response begins with the name of a role, or a template's mark for one."""
    return _MARKER.match(text) is not None


def out_of_order(prompt: Sequence[Message], response: Sequence[Message] = ()) -> str:
    """What is wrong with the order of a conversation's roles, worded to follow "a prompt with"; "" if nothing is.

    A user follows a system message, which only opens a conversation, or an assistant's; an assistant follows a user or
    a tool. A tool's messages may follow each other, and the answer to tool calls may come from anyone.
    """
    if len(prompt) == 1 and len(response) == 1 and prompt[0]["role"] == "user":
        return ""
    before = ""
    for number, message in enumerate([*prompt, *response]):
        role = message["role"]
        if role not in ROLES:
            return f"the role {role!r}"
        if role in LEADING and number and before not in LEADING:
            return f"a {role} message later on"
        if role == before == "user":
            return "two user messages in a row"
        starts = number == len(prompt)  # a response may continue the prompt's last message
        if role == before == "assistant" and not starts and not _calls(prompt, response, number - 1):
            return "two assistant messages in a row"
        before = role
    return ""


def _calls(prompt: Sequence[Message], response: Sequence[Message], number: int) -> bool:
    message = prompt[number] if number < len(prompt) else response[number - len(prompt)]
    return bool(message.get("tool_calls"))
