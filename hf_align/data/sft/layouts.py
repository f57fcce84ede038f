"""Demonstrations in the layouts that public data sets have, read as a prompt with its completion.

Known are rows of prompt and completion, conversations (OpenAI's and ShareGPT's), instructions (Alpaca's), questions
with answers, plain text, and preferences, of which the better response is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hf_align.collators.judged import read_judged
from hf_align.collators.rankings import JUDGEMENTS, Ranking
from hf_align.collators.rows import (
    NO_PROMPT,
    Message,
    RowProblem,
    Side,
    content_of,
    join_messages,
    read_side,
    text_of,
    without_nulls,
)

Form = Literal["text", "continued text", "conversation"]
"""Plain text; a prompt that a completion continues, both text; messages."""
CONVERSATIONS = ("messages", "conversations", "conversation")
QUESTIONS = ("instruction", "question", "query", "prompt", "problem", "input")
ANSWERS = ("output", "response", "answer", "completion", "solution")
SYSTEMS = ("system", "system_prompt")
ROLES = {
    **{name: name for name in ("system", "user", "assistant", "tool")},
    **{"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"},
    **{"bing": "assistant", "bard": "assistant", "chatbot": "assistant", "function_response": "tool"},
    **{"observation": "tool"},
}
"""Roles by the names that ShareGPT's kin give them."""
UNANSWERED = "a last message without answer cut off"
STARTED = "messages of the assistant before the first question cut off"


@dataclass
class Demonstration:
    """What a model is shown.

    Attributes:
        form: See `Form`.
        prompt: Text or messages; "" for plain text.
        completion: Of the same type.
        changes: What reading it changed, in words.
    """

    form: Form
    prompt: Side
    completion: Side
    changes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All of it, without roles."""
        return f"{text_of(self.prompt)}\n{text_of(self.completion)}"


Read = Callable[[Mapping[str, Any]], Demonstration]


@dataclass(frozen=True)
class Layout:
    """How rows of one data set are read.

    Attributes:
        name: In words, for reports.
        columns: Those that are read.
        read: Reads a row; raises `RowProblem`.
    """

    name: str
    columns: tuple[str, ...]
    read: Read


def find_layout(columns: Sequence[str]) -> Layout | None:
    """The layout of rows with these columns, if it is one of demonstrations, or of pairs or rankings."""
    present = set(columns)
    systems = tuple(each for each in SYSTEMS if each in present)[:1]
    if {"prompt", "completion"} <= present:
        return Layout("prompt and completion", ("prompt", "completion"), read_completion)
    for column in CONVERSATIONS:
        if column in present:
            return Layout(f"conversations in {column}", (column, *systems), _conversations(column, systems))
    if {"chosen", "rejected"} <= present:
        read = tuple(
            each for each in ("prompt", "chosen", "rejected", "label", "preference", "votes") if each in present
        )
        return Layout("pairs, of which the better response", read, _read_preferred)
    if "responses" in present and present & set(JUDGEMENTS):
        read = ("prompt", "responses", *(each for each in JUDGEMENTS if each in present))
        return Layout("rankings, of which the best response", read, _read_preferred)
    question = next((each for each in QUESTIONS if each in present), None)
    answer = next((each for each in ANSWERS if each in present), None)
    if question is not None and answer is not None:
        further = ("input",) if question == "instruction" and "input" in present else ()
        history = ("history",) if "history" in present else ()
        read = _answers(question, answer, further, systems)
        return Layout(f"{question} and {answer}", (question, *further, answer, *systems, *history), read)
    if "text" in present:
        return Layout("text", ("text",), _read_text)
    return None


def read_completion(row: Mapping[str, Any]) -> Demonstration:
    """Read `prompt` and `completion`, text or messages; of unpaired completions (KTO's) only the good ones."""
    if row.get("label") is False:
        raise RowProblem("a completion judged bad (label is false)")
    return _joined(read_side(dict(row), "prompt"), read_side(dict(row), "completion"))


def _joined(prompt: Side, completion: Side) -> Demonstration:
    """A prompt and what follows it, in one form."""
    if isinstance(prompt, str) and isinstance(completion, str):
        return Demonstration("continued text", prompt, completion)
    if isinstance(completion, str):
        completion = [Message(role="assistant", content=completion)]
    if isinstance(prompt, str):
        prompt = [Message(role="user", content=prompt)]
    if completion[-1]["role"] != "assistant":
        raise RowProblem("a completion that doesn't end with an assistant message")
    return Demonstration("conversation", prompt, completion)


def _read_text(row: Mapping[str, Any]) -> Demonstration:
    text = read_side(dict(row), "text")
    if not isinstance(text, str):
        raise RowProblem("a text that is a list of messages (call the column messages)")
    return Demonstration("text", "", text)


def _conversations(column: str, systems: Sequence[str]) -> Read:
    def read(row: Mapping[str, Any]) -> Demonstration:
        messages = read_side({column: _with_roles(row.get(column), column)}, column)
        if isinstance(messages, str):
            raise RowProblem(f"{column} that are text (call the column text)")
        changes = []
        end = max((n for n, message in enumerate(messages, 1) if message["role"] == "assistant"), default=0)
        if end < len(messages):
            messages = messages[:end]
            changes.append(UNANSWERED)
        start = next((n for n, message in enumerate(messages) if message["role"] == "user"), len(messages))
        if any(message["role"] == "assistant" for message in messages[:start]):
            messages = [each for each in messages[:start] if each["role"] != "assistant"] + messages[start:]
            changes.append(STARTED)
        if len(messages) < 2:
            raise RowProblem("no question with an answer of the assistant")
        prompt = _system(row, systems, messages[:-1])
        return Demonstration("conversation", prompt, messages[-1:], tuple(changes))

    return read


def _with_roles(messages: Any, column: str) -> Any:
    """Messages of `role` and `content`, where a row has ShareGPT's `from` and `value`."""
    if not isinstance(messages, list):
        return messages
    return [_with_role(message, column) if isinstance(message, Mapping) else message for message in messages]


def _with_role(given: Mapping[str, Any], column: str) -> Message:
    message: Message = without_nulls(dict(given))
    if "from" not in message and "value" not in message:
        role = message.get("role")
        return message if not isinstance(role, str) else {**message, "role": ROLES.get(role.strip().lower(), role)}
    speaker = str(message.pop("from", ""))
    role = ROLES.get(speaker.strip().lower())
    if role is None:
        raise RowProblem(f"a message from {speaker!r} in {column}, who is none of {', '.join(ROLES)}")
    return {"role": role, "content": message.pop("value", None), **message}


def _system(row: Mapping[str, Any], systems: Iterable[str], messages: list[Message]) -> list[Message]:
    """The messages after the system's that stands in a column of its own."""
    text = next((row[name] for name in systems if isinstance(row.get(name), str) and row[name].strip()), None)
    begins = bool(messages) and messages[0]["role"] == "system"
    return messages if text is None or begins else [Message(role="system", content=text), *messages]


def _answers(question: str, answer: str, further: Sequence[str], systems: Sequence[str]) -> Read:
    def read(row: Mapping[str, Any]) -> Demonstration:
        asked, answered = read_side(dict(row), question), read_side(dict(row), answer)
        if not isinstance(asked, str) or not isinstance(answered, str):
            return _joined(asked, answered)
        extra = [row[name] for name in further if isinstance(row.get(name), str) and row[name].strip()]
        turns = [*_history(row), Message(role="user", content="\n\n".join([asked, *extra]))]
        answer_turn = Message(role="assistant", content=answered)
        return Demonstration("conversation", _system(row, systems, turns), [answer_turn])

    return read


def _history(row: Mapping[str, Any]) -> list[Message]:
    """Earlier turns, which some instruction sets keep as pairs of question and answer."""
    turns = row.get("history") or []
    if not isinstance(turns, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in turns):
        raise RowProblem("a history that is no list of question and answer")
    roles = ("user", "assistant")
    return [Message(role=role, content=text) for turn in turns for role, text in zip(roles, turn, strict=True)]


def _read_preferred(row: Mapping[str, Any]) -> Demonstration:
    read, values = read_judged(row, {})
    if read.prompt is None:
        raise RowProblem(f"{NO_PROMPT}, and text can't be divided without a tokenizer")
    if isinstance(read, Ranking):
        best = read.ranks.index(0)
    else:
        best = int(values["label"] is not None and values["label"] < 0.5)
    return _joined(read.prompt, read.responses[best])


def columns_for(rows: Sequence[Demonstration]) -> list[dict[str, Any]]:
    """Rows as training reads them, in one form for all.

    Args:
        rows: Either all plain text, or none.

    Returns:
        Rows of `text`; or of `prompt` and `completion` in text; or, if any is a conversation, of `messages`; or of
        `prompt` and `completion` in messages, if a completion has several of them or continues the prompt's last one.
    """
    forms = {row.form for row in rows}
    if forms == {"text"}:
        return [{"text": row.completion} for row in rows]
    if forms == {"continued text"}:
        return [{"prompt": row.prompt, "completion": row.completion} for row in rows]
    turns = [_as_messages(row) for row in rows]
    if any(len(completion) > 1 or prompt[-1]["role"] == "assistant" for prompt, completion in turns):
        return [{"prompt": prompt, "completion": completion} for prompt, completion in turns]
    return [{"messages": join_messages(prompt, completion)} for prompt, completion in turns]


def _as_messages(row: Demonstration) -> tuple[list[Message], list[Message]]:
    if isinstance(row.prompt, str) or isinstance(row.completion, str):
        prompt, completion = text_of(row.prompt).strip(), text_of(row.completion).strip()
        return [Message(role="user", content=prompt)], [Message(role="assistant", content=completion)]
    return row.prompt, row.completion


def prompt_key(row: Demonstration) -> str:
    """The text of what is asked: of a conversation all messages but the system's; of plain text all of it."""
    if row.form == "text":
        return text_of(row.completion)
    if isinstance(row.prompt, str):
        return row.prompt
    return "\n".join(content_of(message) for message in row.prompt if message["role"] != "system")
