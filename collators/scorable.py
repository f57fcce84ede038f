"""Rows of any known layout as prompts with the responses that a reward model scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from datasets import Dataset, Features, List, Value

from hf_align.collators.checks import PAIR, group_rows, refuse
from hf_align.collators.encoding import PairEncoder
from hf_align.collators.rows import (
    RowProblem,
    Side,
    as_turns,
    join_sides,
    read_pair,
    read_side,
    read_value,
    text_of,
    word_ends,
)
from hf_align.collators.tools import NESTED
from hf_align.collators.truncation import Limits, truncate
from hf_align.errors import UserError

Row = Mapping[str, Any]
Ids = list[int]
Pairs = list[tuple[Side, Side]]
"""A row's responses, each after its prompt."""
FINISHED = "finished"
"""Column that says whether responses are complete: a bool, or a list of them."""
OF_RESPONSES = {
    *("chosen", "rejected", "completion", "response", "responses", "response_a", "response_b", "messages", "text"),
    *("margin", "weight", "label", "preference", "votes", "ranking", "rating", "ratings", "chosen_ratings"),
    *("rejected_ratings", "score", "scores", "score_chosen", "score_rejected", "finished"),
}
"""Columns about a row's earlier responses, which new ones replace."""


class Sample(NamedTuple):
    """A response with its prompt, and whether it is complete."""

    prompt: Side
    response: Side
    finished: bool


@dataclass(frozen=True)
class Layout:
    """A layout of rows.

    Attributes:
        columns: The columns that it is recognised by.
        suffixes: What is appended to the name of the column of each response's scores; ("s",): one list of them.
        read: Reads one row.
    """

    columns: tuple[str, ...]
    suffixes: tuple[str, ...]
    read: Callable[[Row], Pairs]

    def names(self, column: str) -> tuple[str, ...]:
        """Columns of the scores, for `column` as the name of a single one."""
        return tuple(f"{column}{suffix}" for suffix in self.suffixes)

    def values(self, column: str, scores: Sequence[Sequence[float]]) -> dict[str, list[Any]]:
        """The columns of the scores, from the scores of each row's responses."""
        if self.suffixes == ("s",):
            return {f"{column}s": [list(row) for row in scores]}
        return {name: [row[n] for row in scores] for n, name in enumerate(self.names(column))}


def _read_pair(row: Row) -> Pairs:
    if row.get("prompt") is not None:
        prompt = read_side(dict(row), "prompt")
        return _joined(prompt, [read_side(dict(row), name) for name in PAIR], PAIR)
    pair = read_pair({name: row[name] for name in PAIR})  # the prompt is what both begin with
    if pair.prompt is not None:
        return [(pair.prompt, pair.chosen), (pair.prompt, pair.rejected)]
    chosen, rejected = text_of(pair.chosen), text_of(pair.rejected)
    end = next(word_ends(chosen, rejected))
    return [(text[:end], text[end:]) for text in (chosen, rejected)]


def _reader(*names: str) -> Callable[[Row], Pairs]:
    def read(row: Row) -> Pairs:
        prompt = read_side(dict(row), "prompt")
        return [sample for name in names for sample in _joined(prompt, [read_side(dict(row), name)], (name,))]

    return read


def _read_ranking(row: Row) -> Pairs:
    prompt, responses = read_side(dict(row), "prompt"), row.get("responses")
    if not isinstance(responses, list) or not responses:
        raise RowProblem("responses that are no list" if responses else "no responses")
    sides = [read_value(response, "response") for response in responses]
    return [sample for side in sides for sample in _joined(prompt, [side], ("response",))]


def _read_conversation(row: Row) -> Pairs:
    messages = read_side(dict(row), "messages")
    if isinstance(messages, str):
        raise RowProblem("messages that are text")
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise RowProblem("messages that don't end with an assistant message after another one")
    return [(messages[:-1], messages[-1:])]


def _joined(prompt: Side, sides: Sequence[Side], names: Sequence[str]) -> Pairs:
    if len({isinstance(side, str) for side in sides}) > 1:
        raise RowProblem("text on one side and messages on the other")
    whole = isinstance(prompt, str) and not isinstance(sides[0], str) and sides[0][0]["role"] != "assistant"
    if whole and len(sides) == 1:  # what of it is the prompt shows only beside another one
        raise RowProblem(f"a {names[0]} that doesn't begin with an assistant message after a prompt of text")
    prompt, responses = join_sides(prompt, sides, names)
    return [(prompt, response) for response in responses]


LAYOUTS = (
    Layout(("chosen", "rejected"), ("_chosen", "_rejected"), _read_pair),
    Layout(("prompt", "responses"), ("s",), _read_ranking),
    Layout(("prompt", "response_a", "response_b"), ("_a", "_b"), _reader("response_a", "response_b")),
    Layout(("prompt", "response"), ("",), _reader("response")),
    Layout(("prompt", "completion"), ("",), _reader("completion")),
    Layout(("messages",), ("",), _read_conversation),
)
"""Layouts in the order in which they are looked for."""


def layout_of(columns: Sequence[str], name: str = "data") -> Layout:
    """The first layout whose columns are there.

    Raises:
        UserError: There is none.
    """
    for layout in LAYOUTS:
        if set(layout.columns) <= set(columns):
            return layout
    known = "; ".join(" + ".join(layout.columns) for layout in LAYOUTS)
    raise UserError(f"{name} has the columns {', '.join(columns)}, and none of these to score: {known}.")


def read_any_prompt(row: Row) -> Side:
    """The prompt of a row of any layout, or of `messages` with or without a last answer.

    Raises:
        RowProblem: There is none, or it can't be used.
    """
    if row.get("prompt") is not None:
        return read_side(dict(row), "prompt")
    if row.get("messages") is not None:
        messages = read_side(dict(row), "messages")
        if isinstance(messages, str) or not (prompt := messages[: -1 if messages[-1]["role"] == "assistant" else None]):
            raise RowProblem("messages that are text" if isinstance(messages, str) else "messages without a prompt")
        return prompt
    if all(row.get(name) is not None for name in PAIR):
        return _read_pair(row)[0][0]
    raise RowProblem("no prompt")


@dataclass(frozen=True)
class Reader:
    """What turns rows of a layout into what a reward model reads.

    Attributes:
        layout: The rows' layout.
        encoder: Gives token ids; None for a model that writes texts itself.
        limits: Limits of a response with its prompt; responses of a row whose prompts agree are cut alike.
        as_turns: Whether texts become chat messages.
    """

    layout: Layout
    encoder: PairEncoder | None
    limits: Limits
    as_turns: bool = False

    def samples(self, row: Row) -> list[Sample]:
        """The row's responses.

        Raises:
            RowProblem: It can't be used.
        """
        pairs = self.layout.read(row)
        if self.as_turns:
            pairs = [(as_turns(prompt, "user"), as_turns(response, "assistant")) for prompt, response in pairs]
        return [Sample(*pair, ended) for pair, ended in zip(pairs, _finished(row, len(pairs)), strict=True)]

    def read(self, row: Row) -> dict[str, Any]:
        """A record of `prepare_rows` for one row."""
        samples = self.samples(row)
        record = {"count": len(samples), "unfinished": sum(not sample.finished for sample in samples)}
        if self.encoder is None:
            return _EMPTY | record | {"length": max(len(text_of(s.prompt)) + len(text_of(s.response)) for s in samples)}
        ids = [self._encode(sample, self.encoder, row) for sample in samples]
        cut = self._cut([prompt for prompt, _ in ids], [response for _, response in ids], self.encoder.start)
        return record | {
            "prompt_ids": [prompt for prompt, _ in cut],
            "response_ids": [response for _, response in cut],
            "length": max(len(prompt) + len(response) for prompt, response in cut),
            "prompts_cut": sum(before[0] != after[0] for before, after in zip(ids, cut, strict=True)),
            "responses_cut": sum(before[1] != after[1] for before, after in zip(ids, cut, strict=True)),
            "problem": "",
        }

    def _encode(self, sample: Sample, encoder: PairEncoder, row: Row) -> tuple[Ids, Ids]:
        prompt, response = encoder.prompt_and_response(sample.prompt, sample.response, dict(row))
        if sample.finished:
            return prompt, response
        conversational = isinstance(sample.prompt, list) or isinstance(sample.response, list)
        return prompt, encoder.unended(response, conversational=conversational)

    def _cut(self, prompts: list[Ids], responses: list[Ids], start: Ids) -> list[tuple[Ids, Ids]]:
        if all(prompt == prompts[0] for prompt in prompts):
            prompt, responses = truncate(prompts[0], responses, self.limits, start=start)
            return [(prompt, response) for response in responses]
        cut = [
            truncate(*sample, self.limits, start=start)
            for sample in zip(prompts, ([r] for r in responses), strict=True)
        ]
        return [(prompt, response) for prompt, (response,) in cut]


FEATURES = Features(
    {
        "prompt_ids": List(List(Value("int32"))),
        "response_ids": List(List(Value("int32"))),
        **{name: Value("int32") for name in ("count", "length", "unfinished", "prompts_cut", "responses_cut")},
        "problem": Value("string"),
    }
)
_EMPTY: dict[str, Any] = {
    "prompt_ids": [],
    "response_ids": [],
    **dict.fromkeys(("count", "length", "unfinished", "prompts_cut", "responses_cut"), 0),
    "problem": "",
}


def prepare_rows(dataset: Dataset, reader: Reader, name: str = "data") -> Dataset:
    """Read every row.

    Args:
        dataset: The rows.
        reader: What reads them.
        name: The argument's name, for messages.

    Returns:
        One record for each row: `count` of its responses, how many of them are `unfinished`, the `length` of the
        longest with its prompt (tokens; characters without encoder), and of its responses, in their order,
        `prompt_ids` and `response_ids`, with counts of those cut.

    Raises:
        UserError: Rows can't be used: one line with counts and row numbers.
    """
    needed = {*reader.layout.columns, "prompt", FINISHED, *NESTED}
    rows = dataset.select_columns([column for column in dataset.column_names if column in needed]).with_format(None)
    records = rows.map(
        _read, fn_kwargs={"reader": reader}, remove_columns=rows.column_names, features=FEATURES, desc=f"Reading {name}"
    )
    refuse(group_rows(records["problem"]), name, "fix or drop them")
    return records


def _read(row: dict[str, Any], reader: Reader) -> dict[str, Any]:
    try:
        return reader.read(row)
    except RowProblem as problem:
        return _EMPTY | {"problem": str(problem)}


def _finished(row: Row, count: int) -> list[bool]:
    """Whether each response is complete; any other content of the column says nothing."""
    given = row.get(FINISHED)
    given = given if isinstance(given, list) else [given] * count
    return [value is not False for value in given] if len(given) == count else [True] * count
