"""Exports of annotation tools and crowds: an answer a row, and FastChat's log of votes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hf_align.data.layouts.battles import gathered, split
from hf_align.data.layouts.layout import (
    UNREADABLE,
    Layout,
    Made,
    Row,
    Tally,
    Unusable,
    is_text,
    is_texts,
    kept,
    need_text,
    problem_of,
)
from hf_align.data.layouts.sheets import PROMPTS, chosen_in, need_sheet, plain, read_choice, sheet_of, vote_of
from hf_align.data.layouts.votes import BOTH_BAD, SKIPPED, TIE, Vote, gather, read_verdict

_VOTES = {"leftvote": 1.0, "rightvote": 0.0, "tievote": TIE, "bothbad_vote": BOTH_BAD}


def _votes(rows: Iterable[tuple[int, Row]], tally: Tally) -> Iterator[Made]:
    """FastChat's log, in which votes stand between other events; people are numbered instead of naming their IP."""
    people: dict[str, str] = {}
    votes: list[Vote] = []
    for number, row in rows:
        if str(row["type"]) not in _VOTES:
            tally.drop("events that are no votes on two responses")
            continue
        try:
            states = row["states"] or []
            if len(states) != 2:
                raise Unusable("another number of states than two")
            prompt, first, second = split(_said(states[0]), _said(states[1]), ("first state", "second state"))
            named = row.get("models") or [None, None]
            models = tuple(state.get("model_name") or name for state, name in zip(states, named, strict=True))
        except UNREADABLE as error:
            tally.refuse(number, problem_of(error))
            continue
        address = row.get("ip")
        person = None if address is None else people.setdefault(str(address), f"user_{len(people) + 1}")
        others = kept(row, "type", "models", "states", "ip")
        votes.append(
            Vote(prompt, first, second, _VOTES[row["type"]], person, others, {"model": (models[0], models[1])})
        )
    yield from gather(votes, tally)


def _said(state: Mapping[str, Any]) -> list[dict[str, str]]:
    turns = (state.get("messages") or [])[int(state.get("offset") or 0) :]
    if not turns:
        raise Unusable("a state without messages")
    if any(len(turn) != 2 or not is_text(turn[1]) or not turn[1].strip() for turn in turns):
        raise Unusable("a message without text")
    roles = ("user", "assistant")
    return [{"role": roles[number % 2], "content": turn[1]} for number, turn in enumerate(turns)]


def _mturk(rows: Iterable[tuple[int, Row]], tally: Tally) -> Iterator[Made]:
    """Mechanical Turk's results: inputs and answers with their prefixes; rejected assignments don't count."""

    def accepted() -> Iterator[tuple[int, Row]]:
        for number, row in rows:
            if row["AssignmentStatus"] == "Rejected":
                tally.drop("rejected assignments")
            else:
                yield number, row

    return gathered(_assignment)(accepted(), tally)


def _inputs(row: Row) -> Made:
    return {name.removeprefix("Input."): value for name, value in row.items() if name.startswith("Input.")}


def _answers(row: Row) -> list[Any]:
    """What a worker said: Answer.* columns, or the names that are true in the JSON of Answer.taskAnswers."""
    said: list[Any] = []
    for name, value in row.items():
        if name == "Answer.taskAnswers" and is_text(value):
            for form in json.loads(value):
                said += [_ticked(group) if isinstance(group, dict) else group for group in form.values()]
        elif name.startswith("Answer."):
            said.append(value)
    return said


def _ticked(group: Mapping[str, Any]) -> Any:
    names = [name for name, on in group.items() if on is True]
    return names[0] if len(names) == 1 else None


def _assignment(row: Row) -> Vote:
    inputs = _inputs(row)
    sheet = need_sheet(inputs)
    try:
        answers = _answers(row)
    except json.JSONDecodeError:
        raise Unusable("an Answer.taskAnswers that isn't JSON") from None
    said = {verdict for answer in answers if (verdict := chosen_in(inputs, sheet, answer)) is not None}
    verdicts = said - {SKIPPED}
    if not said or len(verdicts) > 1:
        raise Unusable("several answers that name a response" if said else "no answer that names a response")
    times = {"seconds": row["WorkTimeInSeconds"]} if "WorkTimeInSeconds" in row else {}
    return vote_of({**inputs, **times}, sheet, next(iter(verdicts), SKIPPED), row["WorkerId"])


def _figure_eight(rows: Iterable[tuple[int, Row]], tally: Tally) -> Iterator[Made]:
    """Figure Eight's full report: judgements of workers who failed the test questions are marked as tainted."""

    def trusted() -> Iterator[tuple[int, Row]]:
        for number, row in rows:
            if str(row.get("_tainted")).lower() == "true":
                tally.drop("tainted judgements")
            else:
                yield number, row

    return gathered(_judgement)(trusted(), tally)


def _judgement(row: Row) -> Vote:
    shown = {name: value for name, value in row.items() if not name.startswith("_")}
    sheet = need_sheet(shown)
    verdict, used = read_choice(shown, sheet)
    trust = {"trust": row["_trust"]} if "_trust" in row else {}
    return vote_of({**shown, **trust}, sheet, verdict, row["_worker_id"], *(used or sheet.choices[:1]))


def _potato(row: Row) -> Vote:
    """Potato's answers, a choice or a slider below 0 for the first, beside the item's texts."""
    verdict = _potato_verdict(row)
    names = {plain(name): name for name in row}
    prompt = next((names[each] for each in PROMPTS.split("|") if each in names), None)
    if prompt is None:
        raise Unusable("no prompt")
    sides = row["responses"] if row.get("responses") is not None else [row.get("left"), row.get("right")]
    if len(sides) != 2:
        raise Unusable("another number of responses than two")
    (text,) = need_text(row, prompt)
    first, second = need_text(
        {"first response": sides[0], "second response": sides[1]}, "first response", "second response"
    )
    person = next((row[name] for name in ("user_id", "user", "username") if name in row), None)
    used = (prompt, "responses", "left", "right", "label_annotations", "user_id", "user", "username")
    others = {name: value for name, value in kept(row, *used).items() if name != "span_annotations"}
    return Vote(text, first, second, verdict, None if person is None else str(person), others)


def _potato_verdict(row: Row) -> float | str:
    annotations = row["label_annotations"]
    if is_text(annotations):
        try:
            annotations = json.loads(annotations)
        except json.JSONDecodeError:
            raise Unusable("label_annotations that are no JSON") from None
    answers = {name: each for name, each in (annotations or {}).items() if _is_potato(each)}
    if len(answers) > 1:
        raise Unusable(f"several comparisons: {', '.join(answers)}")
    if not answers:
        return SKIPPED
    (answer,) = answers.values()
    if answer.get("selection") is not None:
        return read_verdict(answer["selection"], "selection")
    try:
        scale = float(answer["scale_value"])
    except ValueError:
        raise Unusable("a scale_value that is no number") from None
    return TIE if scale == 0 else float(scale < 0)


def _is_potato(value: Any) -> bool:
    return isinstance(value, dict) and any(value.get(name) is not None for name in ("selection", "scale_value"))


def _is_event(row: Row) -> bool:
    return row["type"] in _VOTES and isinstance(row["states"], list)


LAYOUTS = (
    Layout(
        "fastchat_votes",
        "FastChat's log of votes",
        ("type", "models", "states"),
        _is_event,
        whole=_votes,
        share=0,
    ),
    Layout(
        "mturk",
        "Amazon Mechanical Turk: results of a batch",
        ("HITId", "WorkerId", "AssignmentStatus"),
        lambda row: sheet_of(tuple(_inputs(row))) is not None,
        whole=_mturk,
    ),
    Layout(
        "figure_eight",
        "Figure Eight, CrowdTruth: full report",
        ("_unit_id", "_worker_id"),
        lambda row: sheet_of(tuple(name for name in row if not name.startswith("_"))) is not None,
        whole=_figure_eight,
    ),
    Layout(
        "potato",
        "Potato: pairwise comparison",
        ("label_annotations", "responses|left"),
        lambda row: is_texts(row.get("responses")) or is_text(row.get("left"), row.get("right")),
        whole=gathered(_potato),
    ),
)
