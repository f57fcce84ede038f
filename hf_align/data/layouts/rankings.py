"""Layouts with several ranked or scored responses to a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from hf_align.data.layouts.grouping import Answer, grouped, of_prompts
from hf_align.data.layouts.layout import (
    Layout,
    Made,
    Row,
    Tally,
    Unusable,
    first_of,
    is_messages,
    is_number,
    is_numbers,
    is_records,
    is_text,
    is_texts,
    kept,
    need_number,
    need_text,
    rank_order,
)
from hf_align.data.layouts.strings import PROMPTS, prompt_of
from hf_align.numbers import number_problem

_ASKED = f"prompt|{PROMPTS}"
_LISTS = "responses|completions|outputs|candidates|answers|samples|responses_and_scores"
_SCORES = "scores|rewards|score|reward|ratings"
_BEST_FIRST = "ranked_responses|ranked_outputs|ranked_answers|ranked_completions"
_TEXTS, _GRADES = "text|response|content|answer|completion|output", "score|rating|reward"


def _there(row: Row, names: str) -> str:
    return next(name for name in names.split("|") if name in row)


def _asked(row: Row) -> tuple[str, Any]:
    name = _there(row, _ASKED)
    if isinstance(row[name], list):
        return name, row[name]
    return name, prompt_of(*need_text(row, name))


def _best_first(row: Row, tally: Tally) -> list[Made]:
    asked, prompt = _asked(row)
    name = _there(row, _BEST_FIRST)
    responses = row[name] or []
    if len(responses) < 2:
        raise Unusable("fewer than two responses")
    ranking = list(range(len(responses)))
    return [{"prompt": prompt, "responses": responses, "ranking": ranking, **kept(row, asked, name)}]


def _scored(row: Row, tally: Tally) -> list[Made]:
    asked, prompt = _asked(row)
    responses, scores = _there(row, _LISTS), _there(row, _SCORES)
    if len(row[responses] or []) != len(row[scores] or []):
        raise Unusable(f"another number of {responses} than {scores}")
    made = {"prompt": prompt, "responses": row[responses], "scores": row[scores]}
    return [made | kept(row, asked, responses, scores)]


def _records(row: Row, tally: Tally) -> list[Made]:
    """Records with a score, or a rank of which the lowest is the best."""
    asked, prompt = _asked(row)
    name = _there(row, _LISTS)
    texts = [first_of(each, _TEXTS) for each in row[name]]
    by_score = any(first_of(each, _GRADES) is not None for each in row[name])
    values = [first_of(each, _GRADES if by_score else "rank") for each in row[name]]
    numbers = [None if value is None else need_number(value, "score" if by_score else "rank") for value in values]
    if sum(number is not None for number in numbers) < 2:
        raise Unusable("fewer than two responses with a score or rank")
    judged = {"scores": numbers} if by_score else {"ranking": rank_order(numbers)}
    used = {*_TEXTS.split("|"), *_GRADES.split("|"), "rank"}
    more = list(dict.fromkeys(key for each in row[name] for key in each if key not in used))
    others = {f"response_{key}": [each.get(key) for each in row[name]] for key in more}
    return [{"prompt": prompt, "responses": texts, **judged, **others, **kept(row, asked, name)}]


def _raters(row: Row, tally: Tally) -> list[Made]:
    """Each rater's ranking as Borda points: the number of ranked responses below, and half of those tied."""
    (prompt,) = need_text(row, "prompt")
    responses, rankings = row["responses"] or [], row["rankings"] or []
    if any(len(ranking or []) != len(responses) for ranking in rankings):
        raise Unusable("another number of responses than ranks in a ranking")
    points = [borda(ranking) for ranking in rankings]
    ratings = [[each[n] for each in points if each[n] is not None] for n in range(len(responses))]
    return [{"prompt": prompt, "responses": responses, "ratings": ratings, **kept(row, "prompt", "responses")}]


def borda(ranks: Sequence[Any]) -> list[float | None]:
    """Borda points of ranks: the number of ranked responses below, and half of those tied; None stays."""
    ranked = [need_number(rank, "rank") for rank in ranks if rank is not None]

    def points(rank: float) -> float:
        return sum((other > rank) + 0.5 * (other == rank) for other in ranked) - 0.5  # it ties with itself

    return [None if rank is None else points(rank) for rank in ranks]


def _from_one(row: Row, tally: Tally) -> list[Made]:
    ranks = row["ranking"]
    if any(rank is not None and (number_problem(rank) or rank < 1) for rank in ranks):
        raise Unusable("a rank below 1 where others begin at 1")
    return [{**row, "ranking": [None if rank is None else rank - 1 for rank in ranks]}]


def _flat(rows: Iterable[tuple[int, Row]], tally: Tally) -> Iterator[Made]:
    groups = grouped(rows, tally, _ranked)
    shared = of_prompts(groups)
    for group in groups:
        if len(group) == 1:
            tally.drop("prompts with one response")
            continue
        names = list(dict.fromkeys(name for each in group for name in each.others))
        one = {name: group[0].others.get(name) for name in names if name in shared}
        lists = {f"response_{n}": [each.others.get(n) for each in group] for n in names if n not in shared}
        ranking = rank_order([each.values[0] for each in group])
        responses = [each.response for each in group]
        yield {"prompt": group[0].prompt, "responses": responses, "ranking": ranking, **lists, **one}


def _ranked(row: Row) -> Answer:
    asked, prompt = _asked(row)
    name = _there(row, "response|completion|answer|output")
    (response,) = need_text(row, name)
    return Answer(prompt, response, [need_number(row["rank"], "rank")], kept(row, asked, name, "rank"))


def _is_prompt(row: Row) -> bool:
    return is_text(prompt := first_of(row, _ASKED)) or is_messages(prompt)


def _is_responses(value: Any) -> bool:
    return is_texts(value) or (isinstance(value, list) and bool(value) and all(map(is_messages, value)))


def _is_records(keys: str) -> Callable[[Row], bool]:
    return lambda row: (
        _is_prompt(row)
        and is_records(records := first_of(row, _LISTS))
        and is_text(first_of(records[0], _TEXTS))
        and is_number(first_of(records[0], keys))
    )


def _is_from_one(row: Row) -> bool:
    return is_numbers(row["ranking"]) and min(rank for rank in row["ranking"] if rank is not None) == 1


def _is_ranking(row: Row) -> bool:
    values = first_of(row, "ranking|scores|ratings")
    lists = isinstance(values, list) and all(each in (None, []) or is_numbers(each) for each in values)
    return _is_prompt(row) and _is_responses(row["responses"]) and (lists or is_numbers(values))


def _is_by_raters(row: Row) -> bool:
    rankings = row["rankings"]
    return is_texts(row["responses"]) and isinstance(rankings, list) and all(map(is_numbers, rankings))


LAYOUTS = (
    Layout(
        "nectar",
        "Nectar",
        ("prompt", "answers"),
        lambda row: is_text(row["prompt"]) and is_records(row["answers"], "answer", "rank"),
        makes="rankings",
        convert=_records,
    ),
    Layout(
        "scored_records",
        "GPT-4-LLM comparisons; responses as records with a score or rank",
        (_ASKED, _LISTS),
        _is_records(f"{_GRADES}|rank"),
        makes="rankings",
        convert=_records,
    ),
    Layout(
        "rater_rankings",
        "a ranking by each of several people",
        ("prompt", "responses", "rankings"),
        _is_by_raters,
        makes="rankings",
        convert=_raters,
        without=("ranking", "scores", "ratings"),
    ),
    Layout(
        "best_first",
        "InstructGPT-like lists from the best to the worst",
        (_ASKED, _BEST_FIRST),
        lambda row: _is_prompt(row) and _is_responses(first_of(row, _BEST_FIRST)),
        makes="rankings",
        convert=_best_first,
    ),
    Layout(
        "rankings_from_1",
        "rankings whose best rank is 1",
        ("prompt", "responses", "ranking"),
        _is_from_one,
        makes="rankings",
        convert=_from_one,
    ),
    Layout(
        "rankings",
        "hf_align",
        ("prompt", "responses", "ranking|scores|ratings"),
        _is_ranking,
        makes="rankings",
        without=("chosen", "rejected"),
    ),
    Layout(
        "scored_lists",
        "RRHF; lists of responses and scores",
        (_ASKED, _LISTS, _SCORES),
        lambda row: _is_prompt(row) and _is_responses(first_of(row, _LISTS)) and is_numbers(first_of(row, _SCORES)),
        makes="rankings",
        convert=_scored,
        without=("chosen", "rejected"),
    ),
    Layout(
        "ranked_rows",
        "one ranked response a row",
        (_ASKED, "response|completion|answer|output", "rank"),
        lambda row: _is_prompt(row) and is_number(row["rank"]),
        makes="rankings",
        whole=_flat,
        without=("chosen", "rejected"),
    ),
)
