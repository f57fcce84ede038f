"""Layouts with ratings, attributes and strengths of preference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import Any

from hf_align.data.layouts.grouping import Answer, grouped, pooled, rated_pairs
from hf_align.data.layouts.layout import (
    Layout,
    Made,
    Row,
    Tally,
    Unusable,
    assistant,
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
)
from hf_align.data.layouts.strings import PROMPTS, prompt_of
from hf_align.numbers import number_problem

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
"""Of HelpSteer's responses."""
_ASKED = f"prompt|{PROMPTS}"
_ANSWER, _RATING = "response|completion|answer|output", "rating|ratings|score|reward"


def _number(value: Any) -> float | None:
    """A number, also from text; None for "N/A" and the like."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if number_problem(number) else number


def _ultrafeedback(row: Row, tally: Tally) -> list[Made]:
    """The score is the mean of the aspects' ratings, since overall scores of 1 were stored as 10 in the raw data."""
    (prompt,) = need_text(row, "instruction")
    completions = row["completions"] or []
    if row.get("models") and len(row["models"]) != len(completions):
        raise Unusable("another number of models than completions")
    notes: list[Made] = [each.get("annotations") or {} for each in completions]
    aspects = list(dict.fromkeys(name for note in notes for name in note))
    ratings = {aspect: [_number((note.get(aspect) or {}).get("Rating")) for note in notes] for aspect in aspects}
    names = {"model": "models", "overall_score": "overall_scores", "critique": "critiques"}
    besides = {new: [each.get(name) for each in completions] for name, new in names.items()}
    overall = [_number(value) for value in besides["overall_scores"]]
    scores = [_mean([ratings[aspect][n] for aspect in aspects], overall[n]) for n in range(len(completions))]
    if sum(score is not None for score in scores) < 2:
        raise Unusable("fewer than two responses with a rating")
    return [
        {
            "prompt": prompt,
            "responses": [each.get("response") for each in completions],
            "scores": scores,
            **besides,
            **ratings,
            **kept(row, "instruction", "completions", "models"),
        }
    ]


def _mean(ratings: Sequence[float | None], otherwise: float | None) -> float | None:
    given = [rating for rating in ratings if rating is not None]
    return fmean(given) if given and len(given) == len(ratings) else otherwise


def _distilabel(row: Row, tally: Tally) -> list[Made]:
    """Ratings that aren't as many as the responses belong to unknown ones: the row is refused, not shifted."""
    name = next(name for name in _ASKED.split("|") if name in row)
    ratings_name = next(name for name in ("ratings", "rating") if name in row)
    (prompt,) = need_text(row, name)
    responses, ratings = row["generations"], row[ratings_name]
    for other in (ratings_name, "rationales", "generation_models"):
        if isinstance(row.get(other), list) and len(row[other]) != len(responses or []):
            raise Unusable(f"another number of {other} than generations")
    if not isinstance(ratings, list) or sum(rating is not None for rating in ratings) < 2:
        raise Unusable("fewer than two responses with a rating")
    scores = [None if rating is None else need_number(rating, "rating") for rating in ratings]
    return [
        {"prompt": prompt, "responses": responses, "scores": scores, **kept(row, name, "generations", ratings_name)}
    ]


def _helpsteer(rows: Iterable[tuple[int, Row]], tally: Tally) -> Iterator[Made]:
    """Pairs by helpfulness."""
    return rated_pairs(grouped(rows, tally, _attributes), tally)


def _attributes(row: Row) -> Answer:
    prompt, response = need_text(row, "prompt", "response")
    return Answer(prompt, response, [need_number(row["helpfulness"], "helpfulness")], kept(row, "prompt", "response"))


def _preferred(row: Row, name: str) -> tuple[float, float]:
    """Preference for the first response, and how strong it is, from a strength below 0 where the first is better."""
    value = need_number(row[name], name)
    if abs(value) > 3:
        raise Unusable(f"a {name} beyond 3")
    return 0.5 * (1 + (value < 0) - (value > 0)), abs(value)


def _helpsteer2(row: Row, tally: Tally) -> list[Made]:
    names = ("prompt", "response_1", "response_2")
    prompt, first, second = need_text(row, *names)
    preference, strength = _preferred(row, "preference_strength")
    others = kept(row, *names, "preference_strength")
    return tally.compare(prompt, first, second, preference, others, margin=strength)


def _helpsteer3(row: Row, tally: Tally) -> list[Made]:
    """Scores of single people become positive where the chosen response is the better one."""
    names = ("context", "response1", "response2", "overall_preference")
    first, second = map(assistant, need_text(row, "response1", "response2"))
    preference, strength = _preferred(row, "overall_preference")
    made = tally.compare(row["context"], first, second, preference, kept(row, *names), margin=strength)
    for pair in made if row.get("individual_preference") else ():
        sign = -1 if pair["chosen"] == first else 1
        pair["individual_preference"] = [
            each | {"score": None if each["score"] is None else sign * each["score"]}
            for each in row["individual_preference"]
        ]
    return made


def _saferlhf(row: Row, tally: Tally) -> list[Made]:
    """Pairs by the better response; whether it is the safer one, too, stands beside it."""
    names = ("prompt", "response_0", "response_1")
    prompt, first, second = need_text(row, *names)
    better, safer = row["better_response_id"], row.get("safer_response_id")
    if better not in (0, 1):
        raise Unusable("a better_response_id that is neither 0 nor 1")
    twins = [name for name in row if "response_0_" in name and name.replace("response_0_", "response_1_") in row]
    each = {
        name.replace("response_0_", ""): (row[name], row[name.replace("response_0_", "response_1_")]) for name in twins
    }
    if safer in (0, 1):
        each["is_safer"] = (safer == 0, safer == 1)
    used = [*names, "better_response_id", "safer_response_id", *twins]
    used += [name.replace("response_0_", "response_1_") for name in twins]
    return tally.compare(prompt, first, second, float(better == 0), kept(row, *used), each=each)


def _rated(rows: Iterable[tuple[int, Row]], tally: Tally) -> Iterator[Made]:
    """Pairs by the mean of a response's ratings, of which it may have one in each of several rows."""
    return rated_pairs(pooled(grouped(rows, tally, _rated_answer)), tally, votes=True)


def _rated_answer(row: Row) -> Answer:
    asked, answer, rating = (next(n for n in names.split("|") if n in row) for names in (_ASKED, _ANSWER, _RATING))
    prompt, response = need_text(row, asked, answer)
    values = row[rating] if isinstance(row[rating], list) else [row[rating]]
    if not values:
        raise Unusable(f"no {rating}")
    numbers = [need_number(value, rating) for value in values]
    return Answer(prompt_of(prompt), response, numbers, kept(row, asked, answer, rating))


def _post(info: Any) -> str:
    """What was to be summarised, in the form of the TL;DR task, or an article alone.

    Raises:
        Unusable: There is neither post nor article.
    """
    if info.get("post"):
        lines = [f"SUBREDDIT: r/{info['subreddit']}"] if info.get("subreddit") else []
        lines += [f"TITLE: {info['title']}"] if info.get("title") else []
        return "\n\n".join([*lines, f"POST: {info['post']}", "TL;DR:"])
    if info.get("article"):
        title = [f"TITLE: {info['title']}"] if info.get("title") else []
        return "\n\n".join([*title, f"ARTICLE: {info['article']}", "TL;DR:"])
    raise Unusable("neither post nor article in info")


def _about(info: Any) -> Made:
    return {f"info_{name}": info.get(name) for name in ("id", "site", "subreddit") if name in info}


def _summaries(row: Row, tally: Tally) -> list[Made]:
    if len(row["summaries"]) != 2:
        raise Unusable("another number of summaries than two")
    if row["choice"] not in (0, 1):
        raise Unusable("a choice that is neither 0 nor 1")
    first, second = row["summaries"]
    each = {name: (first[name], second.get(name)) for name in first if name != "text"}
    others = kept(row, "info", "summaries", "choice") | _about(row["info"])
    one, two = (f" {each['text'].strip()}" for each in (first, second))
    return tally.compare(_post(row["info"]), one, two, float(row["choice"] == 0), others, each=each)


def _axis(rows: Iterable[tuple[int, Row]], tally: Tally) -> Iterator[Made]:
    """Pairs by the overall rating, of which a summary has one for each worker."""
    return rated_pairs(pooled(grouped(rows, tally, _summary)), tally, votes=True)


def _summary(row: Row) -> Answer:
    axes = row["summary"].get("axes") or {}
    overall = need_number(axes.get("overall"), "overall rating")
    others = _about(row["info"]) | {"policy": row["summary"].get("policy")}
    return Answer(_post(row["info"]), f" {row['summary']['text'].strip()}", [overall], others)


def _is_rated(row: Row) -> bool:
    rating = first_of(row, _RATING)
    return is_text(first_of(row, _ASKED), first_of(row, _ANSWER)) and (is_number(rating) or is_numbers(rating))


LAYOUTS = (
    Layout(
        "ultrafeedback",
        "UltraFeedback",
        ("instruction", "completions"),
        lambda row: is_records(row["completions"], "response", "annotations"),
        makes="rankings",
        convert=_ultrafeedback,
    ),
    Layout(
        "distilabel_ratings",
        "distilabel's UltraFeedback task",
        (_ASKED, "generations", "ratings|rating"),
        lambda row: is_texts(row["generations"]) and is_numbers(first_of(row, "ratings|rating")),
        makes="rankings",
        convert=_distilabel,
        without=("chosen", "rejected"),
    ),
    Layout(
        "helpsteer",
        "HelpSteer, HelpSteer2",
        ("prompt", "response", *ATTRIBUTES),
        lambda row: is_text(row["prompt"], row["response"]) and is_number(*(row[name] for name in ATTRIBUTES)),
        whole=_helpsteer,
    ),
    Layout(
        "helpsteer2_preference",
        "HelpSteer2-Preference",
        ("prompt", "response_1", "response_2", "preference_strength"),
        lambda row: (
            is_text(row["prompt"], row["response_1"], row["response_2"]) and is_number(row["preference_strength"])
        ),
        convert=_helpsteer2,
    ),
    Layout(
        "helpsteer3",
        "HelpSteer3-Preference",
        ("context", "response1", "response2", "overall_preference"),
        lambda row: is_messages(row["context"]) and is_text(row["response1"], row["response2"]),
        convert=_helpsteer3,
    ),
    Layout(
        "saferlhf",
        "PKU-SafeRLHF, BeaverTails",
        ("prompt", "response_0", "response_1", "better_response_id"),
        lambda row: is_text(row["prompt"], row["response_0"], row["response_1"]),
        convert=_saferlhf,
    ),
    Layout(
        "summary_comparisons",
        "Summarize from Feedback, comparisons",
        ("info", "summaries", "choice"),
        lambda row: isinstance(row["info"], dict) and is_records(row["summaries"], "text"),
        convert=_summaries,
        without=("chosen", "rejected"),
    ),
    Layout(
        "summary_axes",
        "Summarize from Feedback, axis",
        ("info", "summary"),
        lambda row: isinstance(row["info"], dict) and isinstance(row["summary"], dict) and "axes" in row["summary"],
        whole=_axis,
    ),
    Layout(
        "rated_responses",
        "one rated response a row",
        (_ASKED, _ANSWER, _RATING),
        _is_rated,
        whole=_rated,
        without=("chosen", "rejected"),
    ),
)
