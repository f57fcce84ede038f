"""Argilla's records, of versions 1 and 2, as its Python client and the Hub have them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hf_align.data.layouts.layout import (
    UNREADABLE,
    Layout,
    Made,
    Row,
    Tally,
    Unusable,
    is_messages,
    is_number,
    is_text,
    kept,
    plain,
    problem_of,
)
from hf_align.data.layouts.rankings import borda
from hf_align.data.layouts.sheets import PROMPTS, STEMS
from hf_align.data.layouts.votes import SKIPPED, TIE, Vote, gather, read_verdict, verdict_of

Kind = Literal["choice", "ranking", "rating"]
_RESPONSES, _USERS, _STATUS = ".responses", ".responses.users", ".responses.status"
_FROM_SUGGESTIONS = (".suggestion", ".suggestion.score", ".suggestion.agent", "-suggestion", "-suggestion-metadata")
_OWN = ("id", "status", "_server_id", "external_id", "metadata", "vectors", "suggestions", "inserted_at", "updated_at")


@dataclass(frozen=True)
class Reply:
    """One user's answer to a question.

    Attributes:
        user: The user's id.
        value: As the question's type has it.
        submitted: Whether it is neither a draft nor discarded.
    """

    user: str | None
    value: Any
    submitted: bool


@dataclass(frozen=True)
class ArgillaRecord:
    """A record.

    Attributes:
        fields: What was shown, by the fields' names.
        replies: Answers by question.
        others: Its id and metadata.
    """

    fields: Mapping[str, Any]
    replies: Mapping[str, Sequence[Reply]]
    others: Made

    def submitted(self, question: str) -> list[Reply]:
        """The answers to a question that count."""
        return [reply for reply in self.replies[question] if reply.submitted and reply.value is not None]


def _reply(user: Any, value: Any, status: Any) -> Reply:
    return Reply(None if user is None else str(user), value, status in (None, "submitted"))


def read_record(row: Row) -> ArgillaRecord:
    """A record from any of Argilla's formats."""
    if isinstance(row.get("fields"), dict):
        return ArgillaRecord(row["fields"], _nested(row.get("responses")), _others(row, "fields", "responses"))
    questions = [name.removesuffix(_RESPONSES) for name in row if name.endswith(_RESPONSES)]
    if questions:
        replies = {name: _columns(row, name) for name in questions}
    else:
        replies = {name: _records(value) for name, value in row.items() if _is_replies(value)}
    of_questions = tuple(name for name in row if name.endswith((_RESPONSES, _USERS, _STATUS)) or name in replies)
    shown = {
        name: value
        for name, value in row.items()
        if name not in (*_OWN, *of_questions)
        and not name.endswith(_FROM_SUGGESTIONS)
        and (is_text(value) or is_messages(value))
    }
    return ArgillaRecord(shown, replies, _others(row, *of_questions, *shown))


def _others(row: Row, *used: str) -> Made:
    """Id and metadata; metadata that is JSON is taken apart only by who reads it."""
    dropped = {name for name in row if name.endswith(_FROM_SUGGESTIONS) or name in ("suggestions", "vectors")}
    return kept(row, *used, *dropped)


def _nested(responses: Any) -> dict[str, list[Reply]]:
    """Version 2: answers by question; version 1: values by question, for each user."""
    replies: dict[str, list[Reply]] = {}
    if isinstance(responses, dict):
        for question, answers in responses.items():
            replies[question] = [_reply(a.get("user_id"), a.get("value"), a.get("status")) for a in answers or []]
    for answer in responses if isinstance(responses, list) else []:
        for question, value in (answer.get("values") or {}).items():
            if value is not None:
                reply = _reply(answer.get("user_id"), value.get("value"), answer.get("status"))
                replies.setdefault(question, []).append(reply)
    return replies


def _columns(row: Row, question: str) -> list[Reply]:
    values = row[question + _RESPONSES] or []
    users = row.get(question + _USERS) or [None] * len(values)
    status = row.get(question + _STATUS) or [None] * len(values)
    return [_reply(*each) for each in zip(users, values, status, strict=True)]


def _is_replies(value: Any) -> bool:
    keys = {"user_id", "value", "status"}
    if isinstance(value, dict):
        return keys <= set(value)
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) and keys <= set(v) for v in value)


def _records(value: Any) -> list[Reply]:
    if isinstance(value, dict):
        value = [dict(zip(value, each, strict=True)) for each in zip(*value.values(), strict=True)]
    return [_reply(each["user_id"], each["value"], each["status"]) for each in value]


def ranks_in(value: Any) -> dict[str, float] | None:
    """Rank by name of a ranking: names from the best, or names with their ranks; None if it is none."""
    if isinstance(value, dict) and {"rank", "value"} <= set(value):
        value = [{"rank": rank, "value": name} for rank, name in zip(value["rank"], value["value"], strict=True)]
    if not isinstance(value, list) or not value:
        return None
    if is_text(*value):
        return {name: float(rank) for rank, name in enumerate(value)}
    if all(isinstance(each, dict) and is_text(each.get("value")) and is_number(each.get("rank")) for each in value):
        return {each["value"]: float(each["rank"]) for each in value}
    return None


def kind_of(record: ArgillaRecord, question: str) -> Kind | None:
    """What a question asks for, by its answers: which of two responses, a ranking of more, or a rating."""
    values = [reply.value for reply in record.submitted(question)]
    if not values:
        return None
    if all(ranks := [ranks_in(value) for value in values]):
        return "choice" if all(each is not None and len(each) == 2 for each in ranks) else "ranking"
    if is_number(*values):
        return "rating"
    if is_text(*values):
        known = {plain(name) for name in record.fields}
        chosen = [verdict_of(value) not in (None, SKIPPED) or plain(value) in known for value in values]
        return "choice" if all(chosen) else None
    return None


def field_of(name: str, record: ArgillaRecord) -> str:
    """The field that an option is called after.

    Raises:
        Unusable: There is none.
    """
    names = {plain(each): each for each in record.fields}
    if plain(name) not in names:
        raise Unusable("an option that isn't called after a field")
    return names[plain(name)]


def _text(record: ArgillaRecord, name: str) -> Any:
    value = record.fields[name]
    if not (is_text(value) and value.strip()) and not is_messages(value):
        raise Unusable("a field without text")
    return value


def _asked(record: ArgillaRecord, responses: Sequence[str]) -> tuple[Any, Made]:
    """The prompt, and the fields that are neither it nor a response.

    Raises:
        Unusable: No field is the prompt.
    """
    rest = [name for name in record.fields if name not in responses]
    names = {plain(name): name for name in rest}
    prompt = next((names[each] for each in PROMPTS.split("|") if each in names), rest[0] if len(rest) == 1 else None)
    if prompt is None:
        raise Unusable("no field that is the prompt")
    return _text(record, prompt), {name: record.fields[name] for name in rest if name != prompt}


def _question(record: ArgillaRecord, kind: Kind) -> str | None:
    """The one question of a kind; None if none has an answer that counts.

    Raises:
        Unusable: There are several.
    """
    names = [name for name in record.replies if kind_of(record, name) == kind]
    if len(names) > 1:
        raise Unusable(f"several questions that compare the responses: {', '.join(names)}")
    return names[0] if names else None


def _leave_out(record: ArgillaRecord, tally: Tally) -> None:
    replies = [reply for answers in record.replies.values() for reply in answers]
    tally.drop("answers that weren't submitted", sum(not reply.submitted for reply in replies))


def _pairs(rows: Iterable[tuple[int, Row]], tally: Tally) -> Iterator[Made]:
    """Votes of all users on each pair."""
    votes: list[Vote] = []
    for number, row in rows:
        try:
            record = read_record(row)
            _leave_out(record, tally)
            question = _question(record, "choice")
            if question is None:
                tally.drop("records without an answer")
                continue
            votes += _votes(record, question)
        except UNREADABLE as error:
            tally.refuse(number, problem_of(error))
    yield from gather(votes, tally)


def _votes(record: ArgillaRecord, question: str) -> list[Vote]:
    replies = record.submitted(question)
    ranks = [ranks_in(reply.value) for reply in replies]
    if ranks[0] is not None:
        sides = sorted(field_of(name, record) for name in ranks[0])
    else:
        named = [name for name in record.fields if any(plain(name).startswith(stem) for stem in STEMS.split("|"))]
        if len(named) != 2:
            raise Unusable("another number of responses than two")
        sides = named
    prompt, besides = _asked(record, sides)
    first, second = (_text(record, name) for name in sides)
    others = {**besides, **record.others}
    return [
        Vote(prompt, first, second, _verdict(reply.value, each, sides, record), reply.user, others)
        for reply, each in zip(replies, ranks, strict=True)
    ]


def _verdict(value: Any, ranks: Mapping[str, float] | None, sides: Sequence[str], record: ArgillaRecord) -> float | str:
    if ranks is not None:
        a, b = ({field_of(name, record): rank for name, rank in ranks.items()}[side] for side in sides)
        return TIE if a == b else float(a < b)
    if plain(value) in map(plain, sides):
        return float(plain(value) == plain(sides[0]))
    return read_verdict(value, "choice")


def _rankings(row: Row, tally: Tally) -> list[Made]:
    """Each user's ranking as Borda points, so that all users' stand in one row."""
    record = read_record(row)
    _leave_out(record, tally)
    question = _question(record, "ranking")
    if question is None:
        tally.drop("records without an answer")
        return []
    replies = record.submitted(question)
    ranks = [
        {field_of(name, record): rank for name, rank in (ranks_in(reply.value) or {}).items()} for reply in replies
    ]
    sides = sorted(ranks[0])
    if any(sorted(each) != sides for each in ranks):
        raise Unusable("rankings of different responses")
    prompt, besides = _asked(record, sides)
    points = [borda([each[side] for side in sides]) for each in ranks]
    made = {
        "prompt": prompt,
        "responses": [_text(record, side) for side in sides],
        "ratings": [list(each) for each in zip(*points, strict=True)],
        "annotators": [reply.user for reply in replies],
    }
    return [{**made, **besides, **record.others}]


def _ratings(rows: Iterable[tuple[int, Row]], tally: Tally) -> Iterator[Made]:
    """Ratings of each response: questions called after a field, or one question on the record's one response."""
    prompts: dict[str, tuple[Any, dict[str, tuple[Any, list[float]]]]] = {}
    for number, row in rows:
        try:
            record = read_record(row)
            _leave_out(record, tally)
            rated = _rated(record)
            prompt, _ = _asked(record, [*rated])
            texts = {name: _text(record, name) for name in rated}
        except UNREADABLE as error:
            tally.refuse(number, problem_of(error))
            continue
        responses = prompts.setdefault(json.dumps(prompt, sort_keys=True), (prompt, {}))[1]
        for name, values in rated.items():
            responses.setdefault(json.dumps(texts[name], sort_keys=True), (texts[name], []))[1].extend(values)
    for prompt, responses in prompts.values():
        with_ratings = [(text, values) for text, values in responses.values() if values]
        tally.drop("responses without a rating", len(responses) - len(with_ratings))
        if len(with_ratings) < 2:
            tally.drop("prompts with fewer than two rated responses")
            continue
        yield {
            "prompt": prompt,
            "responses": [text for text, _ in with_ratings],
            "ratings": [values for _, values in with_ratings],
        }


def _rated(record: ArgillaRecord) -> dict[str, list[float]]:
    questions = {name: [float(r.value) for r in record.submitted(name)] for name in _of_ratings(record)}
    rated: dict[str, list[float]] = {}
    for question, values in questions.items():
        named = [field for field in record.fields if plain(field) in plain(question)]
        if len(named) == 1 and named[0] not in rated:
            rated[named[0]] = values
    if rated and len(rated) == len(questions):
        return rated
    responses = [field for field in record.fields if plain(field) in STEMS.split("|")]
    if len(responses) != 1 or len(questions) != 1:
        raise Unusable("ratings that can't be assigned to the responses")
    return {responses[0]: next(iter(questions.values()))}


def _of_ratings(record: ArgillaRecord) -> list[str]:
    """Questions that ask for ratings, and those that nobody answered."""
    return [name for name in record.replies if kind_of(record, name) in ("rating", None)]


def _is(kind: Kind) -> Callable[[Row], bool]:
    def fits(row: Row) -> bool:
        record = read_record(row)
        return any(kind_of(record, name) == kind for name in record.replies)

    return fits


_COLUMNS = ("fields|serverid|externalid", "responses|status|metadata")

LAYOUTS = (
    Layout(
        "argilla_pairs",
        "Argilla 1 and 2: which of two responses",
        _COLUMNS,
        _is("choice"),
        whole=_pairs,
        loose=True,
        share=0,
    ),
    Layout(
        "argilla_rankings",
        "Argilla 1 and 2: rankings of several responses",
        _COLUMNS,
        _is("ranking"),
        makes="rankings",
        convert=_rankings,
        loose=True,
        share=0,
    ),
    Layout(
        "argilla_ratings",
        "Argilla 1 and 2: ratings of responses",
        _COLUMNS,
        _is("rating"),
        makes="rankings",
        whole=_ratings,
        loose=True,
        share=0,
    ),
)
