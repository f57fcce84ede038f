"""Layouts of trees: several answers to one conversation, ranked, scored or chosen to go on with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hf_align.data.layouts.layout import (
    Layout,
    Made,
    Row,
    Tally,
    Unusable,
    is_number,
    is_records,
    is_text,
    kept,
    need_text,
    rank_order,
)

Messages = list[dict[str, str]]
Node = Mapping[str, Any]
_ROLES = {"prompter": "user", "user": "user", "assistant": "assistant", "model": "assistant", "system": "system"}


def _usable(node: Node) -> bool:
    return not node.get("deleted") and node.get("review_result") is not False and bool((node.get("text") or "").strip())


def _rankings(node: Node, replies: Mapping[str, Sequence[Node]], thread: Messages, tally: Tally) -> Iterator[Made]:
    """All rankings of answers in a tree of Open Assistant, depth first."""
    stack: list[tuple[Node, Messages]] = [(node, thread)]
    while stack:
        node, thread = stack.pop()
        role = _ROLES.get(node.get("role") or "prompter")
        if role is None or not _usable(node):
            tally.drop("branches behind a deleted or rejected message")
            continue
        thread = [*thread, {"role": role, "content": node["text"]}]
        below = replies.get(node["message_id"], ())
        stack += [(reply, thread) for reply in reversed(below)]
        answers = [reply for reply in below if _ROLES.get(reply.get("role") or "") == "assistant" and _usable(reply)]
        ranked = [answer for answer in answers if is_number(answer.get("rank"))]
        if role != "user" or not answers:
            continue
        tally.drop("answers without a rank", len(answers) - len(ranked) if len(ranked) > 1 else 0)
        if len({answer["text"] for answer in ranked}) < len(ranked):
            tally.drop("prompts with two identical answers")
        elif len(ranked) > 1:
            yield {
                "prompt": thread,
                "responses": [[{"role": "assistant", "content": answer["text"]}] for answer in ranked],
                "ranking": rank_order([answer["rank"] for answer in ranked]),
                "message_id": node["message_id"],
                "lang": node.get("lang"),
            }
        else:
            tally.drop("prompts with fewer than two ranked answers")


def _nested(row: Row, tally: Tally) -> list[Made]:
    """A message tree of Open Assistant's export, replies in replies."""
    replies: dict[str, list[Node]] = {}
    stack: list[Node] = [row["prompt"]]
    while stack:
        node = stack.pop()
        replies[node["message_id"]] = node.get("replies") or []
        stack += replies[node["message_id"]]
    others = {"message_tree_id": row.get("message_tree_id")}
    return [{**made, **others} for made in _rankings(row["prompt"], replies, [], tally)]


def _flat(rows: Iterable[tuple[int, Row]], tally: Tally) -> Iterator[Made]:
    """The table of oasst1 and oasst2: a message a row, in any order."""
    replies: dict[str, list[Node]] = {}
    roots: list[Node] = []
    seen: dict[str, int] = {}
    for number, row in rows:
        name = row.get("message_id")
        if not isinstance(name, str) or not is_text(row.get("text"), row.get("role")):
            tally.refuse(number, "no message_id, text or role")
        elif not isinstance(row.get("parent_id"), str | None):
            tally.refuse(number, "a parent_id that is no text")
        elif name in seen:
            tally.refuse(number, "the message_id of an earlier row")
        else:
            seen[name] = number
            parent = row.get("parent_id")
            (roots if parent is None else replies.setdefault(parent, [])).append(row)
    stack = list(roots)
    lost = dict(seen)
    while stack:
        name = stack.pop()["message_id"]
        lost.pop(name)
        stack += replies.get(name, ())
    for number in lost.values():
        tally.refuse(number, "a parent_id that leads to no first message")
    for root in roots:
        for made in _rankings(root, replies, [], tally):
            yield {**made, "message_tree_id": root.get("message_tree_id", root["message_id"])}


def _stack_exchange(row: Row, tally: Tally) -> list[Made]:
    """Answers with pm_score: log2(1 + upvotes), rounded, one more if accepted, -1 if voted down."""
    (question,) = need_text(row, "question")
    answers = [answer for answer in row["answers"] if (answer.get("text") or "").strip()]
    return _scored(question, answers, "pm_score", kept(row, "question", "answers"), tally)


def _eli5(row: Row, tally: Tally) -> list[Made]:
    """Reddit's answers as a dict of lists."""
    (title,) = need_text(row, "title")
    answers = row["answers"]
    if len(answers["text"]) != len(answers["score"]):
        raise Unusable("another number of scores than answers")
    records = [{"text": text, "score": score} for text, score in zip(answers["text"], answers["score"], strict=True)]
    body = row.get("selftext")
    prompt = f"{title}\n\n{body}" if isinstance(body, str) and body.strip() else title
    return _scored(prompt, records, "score", kept(row, "title", "selftext", "answers"), tally)


def _scored(prompt: str, answers: Sequence[Node], score: str, others: Made, tally: Tally) -> list[Made]:
    scored = [answer for answer in answers if is_number(answer.get(score))]
    tally.drop("answers without a score", len(answers) - len(scored))
    if len({answer["text"] for answer in scored}) < len(scored):
        raise Unusable("two identical answers")
    if len(scored) < 2:
        tally.drop("questions with fewer than two scored answers")
        return []
    responses, scores = [answer["text"] for answer in scored], [float(answer[score]) for answer in scored]
    return [{"prompt": prompt, "responses": responses, "scores": scores, **others}]


def _prism(row: Row, tally: Tally) -> list[Made]:
    """A conversation in which one of the answers to each turn is chosen and gone on with.

    Every other answer of the turn becomes the rejected one of a pair.
    """
    turns: dict[int, list[Node]] = {}
    for message in row["conversation_history"]:
        turns.setdefault(message["turn"], []).append(message)
    others = {"annotator": row.get("user_id"), **kept(row, "conversation_history", "user_id")}
    thread: Messages = []
    made: list[Made] = []
    for number in sorted(turns):
        said = [message for message in turns[number] if _ROLES.get(message["role"]) == "user"]
        answers = [message for message in turns[number] if _ROLES.get(message["role"]) == "assistant"]
        chosen = [message for message in answers if message.get("if_chosen")]
        if len(said) != 1 or len(chosen) != 1:
            raise Unusable("a turn without exactly one user message and one chosen answer")
        thread = [*thread, {"role": "user", "content": said[0]["content"]}]
        best = [{"role": "assistant", "content": chosen[0]["content"]}]
        for answer in answers:
            if answer is chosen[0]:
                continue
            each = {name: (chosen[0].get(f"{key}"), answer.get(f"{key}")) for name, key in _PRISM if key in answer}
            rest = [{"role": "assistant", "content": answer["content"]}]
            made += tally.compare(thread, best, rest, 1, {**others, "turn": number}, each=each)
        thread = [*thread, *best]
    return made


_PRISM = (("model", "model_name"), ("score", "score"))

LAYOUTS = (
    Layout(
        "oasst_trees",
        "Open Assistant: message trees",
        ("message_tree_id", "prompt"),
        lambda row: isinstance(row["prompt"], dict) and {"message_id", "text", "replies"} <= set(row["prompt"]),
        makes="rankings",
        convert=_nested,
    ),
    Layout(
        "oasst_messages",
        "Open Assistant: oasst1, oasst2",
        ("message_id", "parent_id", "text", "role", "rank"),
        lambda row: is_text(row["message_id"], row["text"], row["role"]),
        makes="rankings",
        whole=_flat,
    ),
    Layout(
        "stack_exchange",
        "Stack Exchange Preferences",
        ("question", "answers"),
        lambda row: is_text(row["question"]) and is_records(row["answers"], "text", "pm_score"),
        makes="rankings",
        convert=_stack_exchange,
    ),
    Layout(
        "eli5",
        "ELI5",
        ("title", "answers"),
        lambda row: (
            is_text(row["title"]) and isinstance(row["answers"], dict) and {"text", "score"} <= set(row["answers"])
        ),
        makes="rankings",
        convert=_eli5,
    ),
    Layout(
        "prism",
        "PRISM: conversations that go on with the chosen answer",
        ("conversation_history",),
        lambda row: is_records(row["conversation_history"], "role", "content", "turn", "if_chosen"),
        convert=_prism,
    ),
)
