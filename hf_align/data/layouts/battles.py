"""Layouts of battles: two responses to a prompt, and who preferred which."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hf_align.collators.rows import RowProblem, join_sides
from hf_align.data.layouts.layout import (
    UNREADABLE,
    Layout,
    Made,
    Row,
    Tally,
    Unusable,
    Whole,
    is_number,
    is_text,
    kept,
    need_number,
    need_text,
    problem_of,
)
from hf_align.data.layouts.votes import SKIPPED, TIE, Vote, count, decide, gather, read_verdict, verdict_of

Messages = list[dict[str, str]]
Reader = Callable[[Row], Vote]


def gathered(read: Reader) -> Whole:
    """A conversion of rows of single votes: all votes on a pair in one row."""

    def whole(rows: Iterable[tuple[int, Row]], tally: Tally) -> Iterator[Made]:
        def votes() -> Iterator[Vote]:
            for number, row in rows:
                try:
                    yield read(row)
                except UNREADABLE as error:
                    tally.refuse(number, problem_of(error))

        yield from gather(votes(), tally)

    return whole


def decided(read: Reader) -> Callable[[Row, Tally], list[Made]]:
    """A conversion of rows that each hold the one answer on their pair."""
    return lambda row, tally: decide(read(row), tally)


def joined(text: str, context: Any) -> str:
    """An instruction with the input it is about, if there is one."""
    return f"{text}\n\n{context}" if isinstance(context, str) and context.strip() else text


def messages_of(value: Any, name: str) -> Messages:
    """Messages of a conversation, as a list or its JSON, with role and text content only.

    Raises:
        Unusable: It isn't one, or shows something other than text.
    """
    turns = _parsed(value, name)
    messages = []
    for turn in turns:
        if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
            raise Unusable(f"a message without role in {name}")
        content = turn.get("content")
        if isinstance(content, list):
            if any(part.get("image") or part.get("type") not in (None, "text") for part in content):
                raise Unusable(f"an image in {name}")
            content = "".join(part.get("text") or "" for part in content)
        if not isinstance(content, str) or not content.strip():
            raise Unusable(f"a message without content in {name}")
        messages.append({"role": turn["role"], "content": content})
    return messages


def split(first: Messages, second: Messages, names: tuple[str, str]) -> tuple[Messages, Messages, Messages]:
    """The messages that two conversations share, up to one that an answer follows, and the rest of each.

    Raises:
        Unusable: They share none, or one has no answer of its own.
    """
    if first == second:
        return first, [], []
    try:
        prompt, (a, b) = join_sides(None, [first, second], names)
    except RowProblem as problem:
        raise Unusable(str(problem)) from None
    return prompt, a, b  # type: ignore[return-value]  # messages in, messages out


def _parsed(value: Any, name: str) -> list[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise Unusable(f"a {name} that is neither messages nor their JSON") from None
    if not isinstance(value, list) or not value:
        raise Unusable(f"an empty {name}")
    return value


def _conversations(row: Row) -> Vote:
    """A battle of whole conversations: both answer the same first message, and later ones where people went on.

    MT-bench stores both turns with the votes on the first; elsewhere `turn` is the number of turns.
    """
    names = ("conversation_a", "conversation_b")
    sides = [messages_of(row.get(name), name) for name in names]
    turns: Any = row.get("turn")
    if is_number(turns) and turns >= 1:
        sides = [_first_turns(side, int(turns)) for side in sides]
    prompt, first, second = split(sides[0], sides[1], names)
    verdict = read_verdict(row["winner"], "winner")
    used = (*names, "winner", "judge", "model_a", "model_b")
    models = {"model": (row.get("model_a"), row.get("model_b"))} if "model_a" in row else {}
    return Vote(prompt, first, second, verdict, row.get("judge"), kept(row, *used), models)


def _first_turns(messages: Messages, turns: int) -> Messages:
    users = [number for number, message in enumerate(messages) if message["role"] == "user"]
    return messages[: users[turns]] if turns < len(users) else messages


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list | str) and bool(value)


def _is_battle(row: Row) -> bool:
    sides = row["conversation_a"], row["conversation_b"]
    return all(map(_is_conversation, sides)) and verdict_of(row["winner"]) is not None


def _lists(row: Row) -> Vote:
    """The Kaggle competition's table: lists of turns as JSON, three columns of 0 and 1."""
    prompts, first, second = (_parsed(row.get(name), name) for name in ("prompt", "response_a", "response_b"))
    if not len(prompts) == len(first) == len(second):
        raise Unusable("another number of prompts than responses")
    if not all(isinstance(text, str) and text.strip() for text in (*prompts, *first, *second)):
        raise Unusable("a turn without text")
    wins = [need_number(row.get(name), name) for name in _WINS]
    if sorted(wins) != [0, 0, 1]:
        raise Unusable("not exactly one of winner_model_a, winner_model_b and winner_tie")
    sides = [
        [
            {"role": role, "content": text}
            for turn in zip(prompts, texts, strict=True)
            for role, text in zip(("user", "assistant"), turn, strict=True)
        ]
        for texts in (first, second)
    ]
    prompt, a, b = split(sides[0], sides[1], ("response_a", "response_b"))
    models = {"model": (row.get("model_a"), row.get("model_b"))} if "model_a" in row else {}
    others = kept(row, "prompt", "response_a", "response_b", "model_a", "model_b", *_WINS)
    return Vote(prompt, a, b, (1.0, 0.0, TIE)[wins.index(1)], others=others, each=models)


_WINS = ("winner_model_a", "winner_model_b", "winner_tie")


def _shp(row: Row) -> Vote:
    """Reddit's answers, the one with more upvotes first if labels is 1."""
    prompt, first, second = need_text(row, "history", "human_ref_A", "human_ref_B")
    label = row.get("labels")
    if label not in (0, 1):
        raise Unusable("labels that are neither 0 nor 1")
    scores: Any = row.get("score_A"), row.get("score_B")
    if is_number(*scores) and (scores[0] - scores[1]) * (label - 0.5) < 0:
        raise Unusable("labels that contradict score_A and score_B")
    each = {"score": scores} if "score_A" in row and "score_B" in row else {}
    others = kept(row, "history", "human_ref_A", "human_ref_B", "labels", "score_A", "score_B")
    return Vote(prompt, first, second, float(label), others=others, each=each)


def _alpaca_eval(row: Row) -> Vote:
    """1 prefers the first, 2 the second, between them a judge's probability of the second; 0 and 1.5 are ties."""
    instruction, first, second = need_text(row, "instruction", "output_1", "output_2")
    preference = row.get("preference")
    verdict: float | str = SKIPPED
    if preference is not None and preference == preference:  # AlpacaEval writes NaN where its judge failed
        number = need_number(preference, "preference")
        if number and not 1 <= number <= 2:
            raise Unusable("a preference outside 1 to 2")
        verdict = TIE if number in (0, 1.5) else float(number < 1.5)
    models = {"model": (row.get("generator_1"), row.get("generator_2"))} if "generator_1" in row else {}
    used = ("instruction", "input", "output_1", "output_2", "annotator", "generator_1", "generator_2")
    prompt = joined(instruction, row.get("input"))
    return Vote(prompt, first, second, verdict, row.get("annotator"), kept(row, *used), models)


def _comparison(row: Row) -> Vote:
    """The table of `comparisons_to_pairs`."""
    preference = need_number(row.get("preference"), "preference")
    if preference not in (0, 0.5, 1):
        raise Unusable("a preference that is not 0, 0.5 or 1")
    names = ("prompt", "response_a", "response_b")
    verdict: float | str = TIE if preference == 0.5 else preference
    others = kept(row, *names, "preference", "annotator")
    return Vote(row["prompt"], row["response_a"], row["response_b"], verdict, row.get("annotator"), others)


def _counts(row: Row, tally: Tally) -> list[Made]:
    """Numbers of votes for each response and, if there are such, ties."""
    prompt, first, second = need_text(row, "prompt", "response_a", "response_b")
    numbers = [need_number(row.get(name, 0), name) for name in _COUNTS]
    if any(number < 0 or number % 1 for number in numbers):
        raise Unusable("a number of votes that is no whole number from 0")
    votes = [each for number, each in zip(map(int, numbers), (1.0, 0.0, 0.5), strict=True) for _ in range(number)]
    if not votes:
        tally.drop("comparisons without a vote")
        return []
    others = kept(row, "prompt", "response_a", "response_b", *_COUNTS)
    return list(count(tally, Vote(prompt, first, second, TIE), votes, None, others))


_COUNTS = ("votes_a", "votes_b", "votes_tie")


def _upvotes(row: Row) -> Vote:
    """Each response's upvotes: votes on one response, not between the two, so only their order is used."""
    prompt, first, second = need_text(row, "prompt", "response_a", "response_b")
    numbers = [need_number(row.get(name), name) for name in ("upvotes_a", "upvotes_b")]
    verdict: float | str = TIE if numbers[0] == numbers[1] else float(numbers[0] > numbers[1])
    others = kept(row, "prompt", "response_a", "response_b", "upvotes_a", "upvotes_b")
    return Vote(prompt, first, second, verdict, others=others, each={"upvotes": (numbers[0], numbers[1])})


def _preference_collection(row: Row) -> Vote:
    names = ("orig_instruction", "orig_response_A", "orig_response_B")
    prompt, first, second = need_text(row, *names)
    used = (*names, "orig_preference", "orig_score_A", "orig_score_B", "instruction", "output")
    scores = {"score": (row["orig_score_A"], row["orig_score_B"])} if "orig_score_A" in row else {}
    verdict = read_verdict(row["orig_preference"], "orig_preference")
    return Vote(prompt, first, second, verdict, others=kept(row, *used), each=scores)


def _reward_bench(row: Row, tally: Tally) -> list[Made]:
    prompt, chosen, rejected = need_text(row, "prompt", "chosen", "rejected")
    others = {"domain": row["subset"], **kept(row, "prompt", "chosen", "rejected", "subset", *_MODELS)}
    models = {"model": (row["chosen_model"], row["rejected_model"])}
    return tally.compare(prompt, chosen, rejected, 1, others, each=models)


_MODELS = ("chosen_model", "rejected_model")


def _llmbar(row: Row) -> Vote:
    prompt, first, second = need_text(row, "input", "output_1", "output_2")
    if row.get("label") not in (1, 2):
        raise Unusable("a label that is neither 1 nor 2")
    others = kept(row, "input", "output_1", "output_2", "label")
    return Vote(prompt, first, second, float(row["label"] == 1), others=others)


def _pandalm(row: Row, tally: Tally) -> list[Made]:
    """Three people's answers: 1 and 2 are the responses, 0 is a tie."""
    prompt, first, second = need_text(row, "instruction", "response1", "response2")
    names = _annotators(row)
    answers = {name: row[name] for name in names if row[name] is not None}
    if any(answer not in (0, 1, 2) for answer in answers.values()):
        raise Unusable("an annotator's answer that is not 0, 1 or 2")
    if not answers:
        tally.drop("comparisons without a vote")
        return []
    votes = [(0.5, 1.0, 0.0)[int(answer)] for answer in answers.values()]
    others = kept(row, "instruction", "input", "response1", "response2", *names)
    vote = Vote(joined(prompt, row.get("input")), first, second, TIE)
    return list(count(tally, vote, votes, list(answers), others))


def _annotators(row: Row) -> list[str]:
    return [name for name in row if name.startswith("annotator") and name[len("annotator") :].isdigit()]


LAYOUTS = (
    Layout(
        "mt_bench_judgments",
        "MT-bench human judgments",
        ("question_id", "winner", "judge", "conversation_a", "conversation_b", "turn"),
        _is_battle,
        whole=gathered(_conversations),
        without=("tstamp", "language"),
    ),
    Layout(
        "arena_conversations",
        "Chatbot Arena: conversations, 100k, 140k",
        ("conversation_a", "conversation_b", "winner"),
        _is_battle,
        whole=gathered(_conversations),
    ),
    Layout(
        "arena_55k",
        "LMSYS Arena human preference 55k",
        ("prompt", "response_a", "response_b", *_WINS),
        lambda row: all(_is_conversation(row[name]) for name in ("prompt", "response_a", "response_b")),
        convert=decided(_lists),
    ),
    Layout(
        "shp",
        "Stanford Human Preferences",
        ("history", "human_ref_A", "human_ref_B", "labels"),
        lambda row: is_text(row["history"], row["human_ref_A"], row["human_ref_B"]),
        convert=decided(_shp),
    ),
    Layout(
        "preference_collection",
        "Prometheus Preference Collection",
        ("orig_instruction", "orig_response_A", "orig_response_B", "orig_preference"),
        lambda row: is_text(row["orig_instruction"], row["orig_response_A"], row["orig_response_B"]),
        convert=decided(_preference_collection),
    ),
    Layout(
        "pandalm",
        "PandaLM test set",
        ("instruction", "response1", "response2", "annotator1"),
        lambda row: is_text(row["instruction"], row["response1"], row["response2"]) and row["annotator1"] in (0, 1, 2),
        convert=_pandalm,
    ),
    Layout(
        "llmbar",
        "LLMBar",
        ("input", "output_1", "output_2", "label"),
        lambda row: is_text(row["input"], row["output_1"], row["output_2"]) and is_number(row["label"]),
        convert=decided(_llmbar),
    ),
    Layout(
        "alpaca_eval",
        "AlpacaEval, AlpacaFarm",
        ("instruction", "output_1", "output_2", "preference"),
        lambda row: is_text(row["instruction"], row["output_1"], row["output_2"]),
        whole=gathered(_alpaca_eval),
    ),
    Layout(
        "reward_bench",
        "RewardBench",
        ("prompt", "chosen", "rejected", "subset", *_MODELS),
        lambda row: is_text(row["prompt"], row["chosen"], row["rejected"]),
        convert=_reward_bench,
    ),
    Layout(
        "vote_counts",
        "counts of votes: votes_a, votes_b",
        ("prompt", "response_a", "response_b", "votes_a", "votes_b"),
        lambda row: is_text(row["prompt"], row["response_a"]) and is_number(row["votes_a"], row["votes_b"]),
        convert=_counts,
    ),
    Layout(
        "upvotes",
        "counts of votes on each response: upvotes_a, upvotes_b",
        ("prompt", "response_a", "response_b", "upvotes_a", "upvotes_b"),
        lambda row: is_text(row["prompt"], row["response_a"]) and is_number(row["upvotes_a"], row["upvotes_b"]),
        convert=decided(_upvotes),
    ),
    Layout(
        "comparisons",
        "hf_align's comparisons_to_pairs",
        ("prompt", "response_a", "response_b", "preference"),
        lambda row: row["preference"] in (0, 0.5, 1),
        whole=gathered(_comparison),
    ),
)
