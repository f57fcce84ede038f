"""Defects that the texts or values of one row show, whatever the others are like."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_align.collators.doubts import (
    NEAR_IDENTICAL,
    REPEATED_PROMPT as REPEATS,
    are_near_identical,
    asked,
    repeat_prompt,
)
from hf_align.collators.rankings import Ranking
from hf_align.data.inspection.defect_kinds import (
    BROKEN_ENCODING,
    DOUBLE_BOS,
    NEAR_IDENTICAL_RESPONSES,
    REPEATED_PROMPT,
    REPETITION,
    SEVERAL_ANSWERS,
    SPECIAL_TOKENS,
    TIED,
)
from hf_align.data.inspection.encoding import is_broken, mended
from hf_align.data.inspection.findings import Finding, Found, Kind
from hf_align.data.inspection.records import Context, Record
from hf_align.data.inspection.repetition import repeats_itself
from hf_align.data.inspection.scores import Column, score_columns
from hf_align.data.inspection.specials import Specials
from hf_align.data.inspection.texts import Look, Repairs, changed_columns, look_at, shortened
from hf_align.data.inspection.turns import begins_with_role, goes_on


@dataclass(frozen=True)
class Sign:
    """A sign of a defect.

    Attributes:
        kind: The defect.
        says: What rows with it have, worded to follow "3 rows have".
        find: A text that shows it, None where there is none.
        repair: New values of a row's columns, where the repair is sure.
    """

    kind: Kind
    says: str
    find: Callable[[Look], str | None]
    repair: Callable[[Record], Mapping[str, Any]] | None = None


class Signs:
    """Looks for every sign in every row that can be read."""

    def __init__(self, context: Context) -> None:
        self._fetch = context.fetch
        self._signs = signs_for(context)
        self._rows = [array("q") for _ in self._signs]
        self._examples = [""] * len(self._signs)

    def see(self, records: Sequence[Record]) -> None:
        """Take in the next rows."""
        for record in records:
            if record.read is None:
                continue
            look = look_at(record)
            for number, sign in enumerate(self._signs):
                if (text := sign.find(look)) is not None:
                    self._rows[number].append(record.number)
                    self._examples[number] = self._examples[number] or shortened(text)

    def finish(self) -> Found:
        """A finding for each sign that was met."""
        return Found(findings=[self._finding(number) for number, rows in enumerate(self._rows) if rows])

    def _finding(self, number: int) -> Finding:
        sign, rows = self._signs[number], list(self._rows[number])
        changes = None if sign.repair is None else Repairs(rows, self._fetch, sign.repair)
        count = f"{len(rows):,} row has" if len(rows) == 1 else f"{len(rows):,} rows have"
        return sign.kind.found(rows, f"{count} {sign.says}.", example=self._examples[number], changes=changes)


def signs_for(context: Context) -> list[Sign]:
    """The signs of an inspection, of which some depend on the tokenizer and the columns."""
    specials = Specials(context.tokenizer)
    scored = [column for column in score_columns(context.columns) if column.judges and len(column.sources) == 2]
    bos = " or ".join(specials.bos)
    return [
        Sign(NEAR_IDENTICAL_RESPONSES, NEAR_IDENTICAL, _near_identical),
        Sign(TIED, "responses of which none is better: a label of .5, equal scores or a margin of 0", _tie_in(scored)),
        Sign(REPETITION, "a response that repeats itself", _first_response(repeats_itself)),
        Sign(BROKEN_ENCODING, "text in a broken encoding", _broken, _mend),
        Sign(SEVERAL_ANSWERS, "a response that goes on with the user's next turn, or holds several answers", _goes_on),
        Sign(REPEATED_PROMPT, REPEATS, _repeated_prompt, _without_prompt),
        Sign(
            DOUBLE_BOS,
            f"a text that begins with {bos}, which is added to it anyway",
            lambda look: next(filter(specials.begins_twice, (look.prompt, *look.responses)), None),
            lambda record: changed_columns(record.row, specials.without_bos),
        ),
        Sign(SPECIAL_TOKENS, "special tokens inside a text", _special_tokens_in(specials)),
    ]


def _first_response(shows: Callable[[str], bool]) -> Callable[[Look], str | None]:
    return lambda look: next(filter(shows, look.responses), None)


def _near_identical(look: Look) -> str | None:
    return look.responses[0] if are_near_identical(look.responses) else None


def _tie_in(columns: Sequence[Column]) -> Callable[[Look], str | None]:
    def tie(look: Look) -> str | None:
        record = look.record
        if isinstance(record.read, Ranking):
            tied = len(set(record.read.ranks)) == 1
        else:
            scores = [tuple(column.values(record)) for column in columns]
            tied = record.values["label"] == 0.5 or record.row.get("margin") == 0
            tied = tied or any(chosen == rejected for chosen, rejected in scores)  # NaN equals nothing
        return look.responses[0] if tied else None

    return tie


def _broken(look: Look) -> str | None:
    return next(filter(is_broken, (look.prompt, *look.responses)), None)


def _mend(record: Record) -> Mapping[str, Any]:
    return changed_columns(record.row, mended)


def _goes_on(look: Look) -> str | None:
    assert look.record.read is not None
    sides = zip(look.record.read.responses, look.responses, strict=True)
    return next((text for side, text in sides if goes_on(side, text, look.prompt)), None)


def _repeated_prompt(look: Look) -> str | None:
    assert look.record.read is not None
    repeated = repeat_prompt(look.record.read.prompt, look.responses)
    return look.responses[0] if repeated else None


def _without_prompt(record: Record) -> Mapping[str, Any]:
    """Responses without the prompt, if all are text that goes on behind it."""
    words = asked(record.prompt)
    behind = [text.lstrip().removeprefix(words) for text in record.responses]
    texts = isinstance(record.row.get("prompt"), str) and not isinstance(_first_side(record), list)
    whole = all(text.lstrip().startswith(words) for text in record.responses)
    if not texts or not whole or not all(map(str.strip, behind)):
        return {}
    return changed_columns(
        record.row, lambda text: text.lstrip().removeprefix(words), ("chosen", "rejected", "responses")
    )


def _first_side(record: Record) -> Any:
    assert record.read is not None
    return record.read.responses[0]


def _special_tokens_in(specials: Specials) -> Callable[[Look], str | None]:
    """Special tokens of which other signs say nothing, in messages and responses: a text prompt may be a template's."""

    def find(look: Look) -> str | None:
        assert look.record.read is not None
        messages = isinstance(look.record.read.prompt, list)
        texts = (look.prompt, *look.responses) if messages else look.responses
        shown = next(filter(specials.inside, texts), None)
        if shown is None or begins_with_role(shown) or _goes_on(look) is not None:
            return None
        return shown

    return find
