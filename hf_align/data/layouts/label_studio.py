"""Label Studio's exports: tasks with the annotations of several people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from hf_align.data.layouts.layout import (
    UNREADABLE,
    Layout,
    Made,
    Row,
    Tally,
    Unusable,
    is_records,
    is_text,
    kept,
    need_text,
    plain,
    problem_of,
)
from hf_align.data.layouts.rankings import borda
from hf_align.data.layouts.sheets import PROMPTS, Sheet, sheet_of, vote_of
from hf_align.data.layouts.votes import Vote, gather, read_verdict

_ITEM_TEXTS = ("body", "text", "html", "title")


def _completed(task: Row, tally: Tally, *kinds: str) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
    """Who completed an annotation, and its one result of these kinds; others are counted.

    Raises:
        Unusable: An annotation has several such results.
    """
    for annotation in task["annotations"] or []:
        if annotation.get("was_cancelled"):
            tally.drop("cancelled annotations")
            continue
        results = [each for each in annotation.get("result") or [] if each.get("type") in kinds]
        if len(results) > 1:
            raise Unusable("several comparisons in one annotation")
        if not results:
            tally.drop("annotations without an answer")
            continue
        person = annotation.get("completed_by")
        if isinstance(person, dict):
            person = person.get("email") or person.get("id")
        yield None if person is None else str(person), results[0]


def _prompt_in(data: Mapping[str, Any], used: Sequence[str]) -> str:
    names = {plain(name): name for name in data if name not in used}
    prompt = next((names[each] for each in PROMPTS.split("|") if each in names), None)
    if prompt is None:
        raise Unusable("no prompt in data")
    return prompt


def _sheet(data: Mapping[str, Any], compared: str) -> Sheet:
    """The prompt and the two responses, left and right, by the names of their tags or by those of their columns."""
    names = {plain(name): name for name in data}
    sides = [names.get(plain(name)) for name in compared.split(",")]
    if len(sides) == 2 and sides[0] and sides[1]:
        return Sheet(_prompt_in(data, [sides[0], sides[1]]), sides[0], sides[1])
    sheet = sheet_of(tuple(data))
    if sheet is None:
        raise Unusable("no prompt and two responses in data")
    return sheet


def _pairwise(rows: Iterable[tuple[int, Row]], tally: Tally) -> Iterator[Made]:
    """Votes of all annotators on each pair: left is the first of the compared texts."""
    votes: list[Vote] = []
    for number, task in rows:
        if not task["annotations"]:
            tally.drop("tasks without an annotation")
            continue
        try:
            votes += [_vote(task, *each) for each in _completed(task, tally, "pairwise", "choices")]
        except UNREADABLE as error:
            tally.refuse(number, problem_of(error))
    yield from gather(votes, tally)


def _vote(task: Row, person: str | None, result: Mapping[str, Any]) -> Vote:
    value, data = result.get("value") or {}, task["data"]
    said = value.get("selected") if result["type"] == "pairwise" else (value.get("choices") or [None])[0]
    verdict = read_verdict(said, "choice")
    sheet = _sheet(data, result.get("to_name") or "")
    return vote_of({**data, "task_id": task.get("id")}, sheet, verdict, person)


def _ranker(row: Row, tally: Tally) -> list[Made]:
    """Each person's order as Borda points, so that all people's stand in one row."""
    if not row["annotations"]:
        tally.drop("tasks without an annotation")
        return []
    data = row["data"]
    name = next(name for name in data if _is_items(data[name]))
    texts = {str(item["id"]): _item_text(item) for item in data[name]}
    answers = list(_completed(row, tally, "ranker"))
    if not answers:
        return []
    orders = [_order(result) for _, result in answers]
    if any(sorted(order) != sorted(texts) for order in orders):
        raise Unusable("a ranking that doesn't name each item once")
    points = [borda([order.index(item) for item in texts]) for order in orders]
    asked = _prompt_in(data, [name])
    (prompt,) = need_text(data, asked)
    made = {
        "prompt": prompt,
        "responses": list(texts.values()),
        "ratings": [list(each) for each in zip(*points, strict=True)],
        "annotators": [person for person, _ in answers],
        "task_id": row.get("id"),
    }
    return [{**made, **kept(data, asked, name)}]


def _order(result: Mapping[str, Any]) -> list[str]:
    """Ids from the best to the worst.

    Raises:
        Unusable: The items were sorted into buckets, which have no order.
    """
    ranker = (result.get("value") or {}).get("ranker")
    if isinstance(ranker, dict):
        lists = [each for each in ranker.values() if each is not None]
        if len(lists) != 1:
            raise Unusable("items in several buckets, whose order isn't known")
        ranker = lists[0]
    return [str(item) for item in ranker or []]


def _item_text(item: Mapping[str, Any]) -> str:
    text = next((item[name] for name in _ITEM_TEXTS if is_text(item.get(name)) and item[name].strip()), None)
    if text is None:
        raise Unusable("an item without text")
    return text


def _is_items(value: Any) -> bool:
    return is_records(value, "id") and any(name in value[0] for name in _ITEM_TEXTS)


def _has(*kinds: str) -> Callable[[Row], bool]:
    def fits(row: Row) -> bool:
        if not isinstance(row["data"], dict) or not isinstance(row["annotations"], list):
            return False
        results = [each for annotation in row["annotations"] for each in annotation.get("result") or []]
        return any(each.get("type") in kinds for each in results)

    return fits


def _min(rows: Iterable[tuple[int, Row]], tally: Tally) -> Iterator[Made]:
    """An annotation a row, results under the names of their tags."""
    votes: list[Vote] = []
    for number, row in rows:
        try:
            name = _answer_in(row)
            if name is None:
                raise Unusable("no answer")
            sheet = sheet_of(tuple(row))
            if sheet is None:
                raise Unusable("no prompt and two responses")
            said = row[name].get("selected") if isinstance(row[name], dict) else row[name]
            dropped = [each for each in ("created_at", "updated_at", "lead_time") if each in row]
            person = row.get("annotator")
            votes.append(vote_of(row, sheet, read_verdict(said, "choice"), person, name, "annotator", *dropped))
        except UNREADABLE as error:
            tally.refuse(number, problem_of(error))
    yield from gather(votes, tally)


def _answer_in(row: Row) -> str | None:
    for name, value in row.items():
        if isinstance(value, dict) and "selected" in value:
            return name
        if value in ("left", "right"):
            return name
    return None


LAYOUTS = (
    Layout(
        "label_studio_pairwise",
        "Label Studio: Pairwise, Choices",
        ("data", "annotations"),
        _has("pairwise", "choices"),
        whole=_pairwise,
        share=0,
    ),
    Layout(
        "label_studio_ranker",
        "Label Studio: Ranker",
        ("data", "annotations"),
        lambda row: _has("ranker")(row) and any(map(_is_items, row["data"].values())),
        makes="rankings",
        convert=_ranker,
        share=0,
    ),
    Layout(
        "label_studio_min",
        "Label Studio: JSON_MIN, CSV",
        ("annotation_id", "annotator", "lead_time"),
        lambda row: sheet_of(tuple(row)) is not None and _answer_in(row) is not None,
        whole=_min,
        share=0,
    ),
)
