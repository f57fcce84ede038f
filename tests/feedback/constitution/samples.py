"""A small constitution, prompts, and a writer and judge that say what they are asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from hf_align.feedback import Constitution, FunctionJudge
from hf_align.feedback.constitution.principles import Example, Principle

Conversation = list[dict[str, str]]
KIND = Principle("kind", "Be kind.", "Criticise: kind?", "Revise: kinder.", "Which is kinder?", weight=2.0)
TRUE = Principle("true", "Be truthful.", "Criticise: true?", "Revise: truer.", "Which is truer?")
CODE = Principle("code", "Code runs.", "Criticise: code?", "Revise: code.", "Which runs?", domains=("code",))
SHORT = Principle("short", "Be short.", "Criticise: short?", "Revise: shorter.", "Which is shorter?")
EXAMPLES = (
    Example("kind", "Am I dumb?", "Yes.", "That is unkind.", "No, you aren't."),
    Example("true", "What is 1 + 1?", "2.", "No change needed."),
)
CONSTITUTION = Constitution((KIND, TRUE, CODE, SHORT), EXAMPLES, refusals=("i can't help",))
PROMPTS: list[dict[str, Any]] = [{"prompt": f"Question: {n}?\n\nAnd: more.", "domain": "other"} for n in range(12)]


def number(*of: Any) -> int:
    return hashlib.sha256(repr(of).encode()).digest()[0]


def talk(conversations: Sequence[Conversation]) -> list[str]:
    """Critiques find nothing for a third; revisions are empty, unchanged, refusals, shorter or another text.

    A conversation that is there several times gets different texts.
    """
    return [_say(messages, conversations[:place].count(messages)) for place, messages in enumerate(conversations)]


def _say(messages: Conversation, earlier: int) -> str:
    asked, chance = messages[-1]["content"], number(messages, earlier)
    if "Criticise" in asked:
        return ["No change needed.", f"Wrong: {chance}.", "Quite wrong."][chance % 3]
    if asked.startswith("Revise"):
        before = messages[-4]["content"]
        longer = f"{before} In other words {chance}."
        return ["", before, "I can't help with that, really not at all.", "Short.", longer][chance % 5]
    return f"Answer {chance} to the question that was asked."


class PrincipledJudge:
    """A judge that prefers by a digest of question and response; its questions are listed.

    Args:
        question: What it is asked.
        calls: Gets the question of each call.
        fail: Called before each answer; may raise.
    """

    def __init__(self, question: str = "", calls: list[str] | None = None, fail: Callable[[], None] = lambda: None):
        self.name, self.question, self.fail = "principled", question, fail
        self.calls: list[str] = [] if calls is None else calls

    def with_principle(self, principle: str, name: str | None = None, *, prompt: str | None = None) -> PrincipledJudge:
        return PrincipledJudge(principle, self.calls, self.fail)

    def compare(self, prompts: Sequence[Any], firsts: Sequence[Any], seconds: Sequence[Any]) -> list[Any]:
        self.calls.append(self.question)
        self.fail()

        def prefers(prompt: Any, first: Any, second: Any) -> float:
            one, other = (1 + number(self.question, each) for each in (first, second))
            return one / (one + other)

        return FunctionJudge(prefers, self.name).compare(prompts, firsts, seconds)
