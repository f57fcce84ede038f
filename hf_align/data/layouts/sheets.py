"""Tables of comparisons as people write them: a prompt, two responses and a choice, under names of any spelling."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from hf_align.data.layouts.battles import gathered, joined
from hf_align.data.layouts.layout import Layout, Made, Row, Tally, Unusable, is_text, kept, need_text, plain
from hf_align.data.layouts.votes import SKIPPED, TIE, Vote, count, verdict_of
from hf_align.errors import UserError

PROMPTS = "prompt|question|instruction|item|query|input|context|post|document"
STEMS = "response|answer|output|completion|reply|candidate|option|summary|translation|generation|text"
SIDES = (("a", "b"), ("1", "2"), ("left", "right"))
CHOICES = "choice|winner|preference|preferred|preferredresponse|better|betterresponse|best|verdict|vote|label"
CHOICES += "|judgement|judgment|decision|selection|selected|annotation|flag|rating|answer|result"
PEOPLE = "annotator|annotatorid|rater|raterid|worker|workerid|user|userid|username|judge|judgeid|evaluator|labeler"
FIRSTS, SECONDS = ("|".join(f"{stem}{sides[side]}" for stem in STEMS.split("|") for sides in SIDES) for side in (0, 1))
_PERSON = re.compile(r"(annotator|rater|worker|judge|evaluator|labeler)(?!id$).+")


@dataclass(frozen=True)
class Sheet:
    """The columns of a table of comparisons.

    Attributes:
        prompt: Column of the prompt.
        context: Column of what an instruction is about, written behind it; None if there is none.
        first: Column of one response.
        second: Column of the other.
        choices: Columns that may say which is better.
        annotator: Column of who said so; None if there is none.
        twins: Names of the two columns of each other value that both responses have, by its name.
        numbered: Whether the responses are called 1 and 2.
    """

    prompt: str
    first: str
    second: str
    choices: tuple[str, ...] = ()
    annotator: str | None = None
    twins: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    numbered: bool = False
    context: str | None = None

    @property
    def used(self) -> tuple[str, ...]:
        """Columns that aren't kept as they are."""
        others = [name for name in (self.annotator, self.context) if name is not None]
        return (self.prompt, self.first, self.second, *others, *(name for pair in self.twins.values() for name in pair))


@lru_cache(maxsize=64)
def sheet_of(columns: tuple[str, ...]) -> Sheet | None:
    """The table's columns; None if there is no prompt or there are no two responses.

    Raises:
        UserError: Several columns could be the prompt, or the responses.
    """
    names: dict[str, str] = {}
    for name in columns:
        names.setdefault(plain(name), name)
    asked = [each for each in PROMPTS.split("|") if each in names]
    pairs = [(stem, sides) for stem in STEMS.split("|") for sides in SIDES if {stem + s for s in sides} <= set(names)]
    if not asked or not pairs:
        return None
    asked, (stem, sides) = _prompt(asked, names), _responses(pairs, names)
    first, second = (names[stem + side] for side in sides)
    twins = {}
    for key in names:
        root = key.removesuffix(sides[0])
        if root and root not in (key, stem) and root + sides[1] in names:
            twins[root] = (names[key], names[root + sides[1]])
    taken = {names[asked[0]], first, second, *(name for pair in twins.values() for name in pair)}
    choices = tuple(names[each] for each in CHOICES.split("|") if each in names and names[each] not in taken)
    annotator = next((names[each] for each in PEOPLE.split("|") if each in names), None)
    context = names["input"] if len(asked) > 1 else None
    return Sheet(names[asked[0]], first, second, choices, annotator, twins, sides == ("1", "2"), context)


def _prompt(asked: list[str], names: Mapping[str, str]) -> list[str]:
    """The column of the prompt, and that of what an instruction is about, of those that could be."""
    if asked == ["instruction", "input"]:
        return asked
    if len(asked) > 1 and asked[0] != "prompt":
        raise UserError(f"{_both(names, asked)} could be the prompt: drop the others, or rename it to prompt")
    return asked[:1]


def _responses(pairs: list[tuple[str, tuple[str, str]]], names: Mapping[str, str]) -> tuple[str, tuple[str, str]]:
    """What the columns of both responses are called, and how the two differ, of the pairs that there are."""
    if len(pairs) > 1 and pairs[0][0] != "response":
        could = _both(names, [stem + sides[0] for stem, sides in pairs])
        raise UserError(f"{could} could be the first response: drop the others, or rename it to response_a")
    return pairs[0]


def _both(names: Mapping[str, str], keys: Sequence[str]) -> str:
    return " and ".join(names[key] for key in keys)


def need_sheet(row: Row) -> Sheet:
    """The row's table.

    Raises:
        Unusable: It has no prompt or no two responses.
    """
    if (sheet := sheet_of(tuple(row))) is None:
        raise Unusable("no columns for a prompt and two responses")
    return sheet


def chosen_in(row: Row, sheet: Sheet, value: Any) -> float | str | None:
    """The verdict of a cell: `verdict_of`, a number of a numbered response, or the text of a response itself.

    Returns:
        As `verdict_of`. None, too, if the cell names one response and is the text of the other ("A" where response B is
        the letter A): either may be meant.
    """
    numbered = sheet.numbered and not isinstance(value, bool) and value in (1, 2)
    named = float(value == 1) if numbered else verdict_of(value)
    quoted = _quoted(row, sheet, value)
    return named if quoted is None else quoted if named in (None, quoted) else None


def _quoted(row: Row, sheet: Sheet, value: Any) -> float | None:
    """The verdict of a cell that is the text of one response; None if it isn't."""
    if not isinstance(value, str) or not value.strip():
        return None
    same = [value.strip() == str(row[name]).strip() for name in (sheet.first, sheet.second)]
    return float(same[0]) if sum(same) == 1 else None


def _unclear(row: Row, sheet: Sheet, name: str) -> Unusable:
    """What is wrong with a cell without a verdict."""
    if _quoted(row, sheet, row[name]) is not None:
        return Unusable(f"a {name} that is one response's text and another's name, or a tie's")
    return Unusable(f"a {name} that names neither response nor a tie")


def vote_of(row: Row, sheet: Sheet, verdict: float | str, annotator: Any, *used: str) -> Vote:
    """The vote of a row.

    Args:
        row: The row.
        sheet: Its columns.
        verdict: What was voted.
        annotator: Who voted, if that is known.
        used: Columns, besides the sheet's, that aren't kept.
    """
    prompt, first, second = need_text(row, sheet.prompt, sheet.first, sheet.second)
    if sheet.context is not None:
        prompt = joined(prompt, row[sheet.context])
    each = {name: (row[a], row[b]) for name, (a, b) in sheet.twins.items()}
    others = kept(row, *sheet.used, *used)
    return Vote(prompt, first, second, verdict, None if annotator is None else str(annotator), others, each)


def read_choice(row: Row, sheet: Sheet) -> tuple[float | str, tuple[str, ...]]:
    """The verdict of a row's choice column, and the columns that hold it.

    Raises:
        Unusable: None says which response is better, or two say different things.
    """
    said = {name: chosen_in(row, sheet, row[name]) for name in sheet.choices}
    verdicts = {name: verdict for name, verdict in said.items() if verdict is not None and verdict != SKIPPED}
    if len(set(verdicts.values())) > 1:
        raise Unusable(f"{' and '.join(verdicts)} that disagree")
    if verdicts:
        return next(iter(verdicts.values())), tuple(verdicts)
    if SKIPPED in said.values():
        return SKIPPED, ()
    raise _unclear(row, sheet, sheet.choices[0])


def _vote(row: Row) -> Vote:
    sheet = need_sheet(row)
    verdict, used = read_choice(row, sheet)
    annotator = None if sheet.annotator is None else row[sheet.annotator]
    return vote_of(row, sheet, verdict, annotator, *(used or sheet.choices[:1]))


def _fits(row: Row) -> bool:
    sheet = sheet_of(tuple(row))
    if sheet is None or not is_text(row[sheet.prompt], row[sheet.first], row[sheet.second]):
        return False
    return any(chosen_in(row, sheet, row[name]) is not None for name in sheet.choices)


def people_in(row: Row, sheet: Sheet) -> list[str]:
    """Columns that each hold one person's answer."""
    return [name for name in row if name not in sheet.used and _PERSON.fullmatch(plain(name))]


def _wide(row: Row, tally: Tally) -> list[Made]:
    """A column for each annotator; empty cells are people who weren't asked."""
    sheet = need_sheet(row)
    people = people_in(row, sheet)
    said = {name: chosen_in(row, sheet, row[name]) for name in people}
    for name, verdict in said.items():
        if verdict is None:
            raise _unclear(row, sheet, name)
    answers = {name: verdict for name, verdict in said.items() if verdict is not None and verdict != SKIPPED}
    if not answers:
        tally.drop("comparisons without an answer")
        return []
    votes = [0.5 if isinstance(verdict, str) else verdict for verdict in answers.values()]
    vote = vote_of(row, sheet, TIE, None, *people)
    return list(count(tally, vote, votes, list(answers), vote.others))


def _is_wide(row: Row) -> bool:
    sheet = sheet_of(tuple(row))
    if sheet is None or not is_text(row[sheet.prompt], row[sheet.first], row[sheet.second]):
        return False
    verdicts = [chosen_in(row, sheet, row[name]) for name in people_in(row, sheet)]
    return len(verdicts) > 1 and None not in verdicts


LAYOUTS = (
    Layout(
        "annotator_columns",
        "CrowdTruth-like tables: a column for each annotator's answer",
        (PROMPTS, FIRSTS, SECONDS),
        _is_wide,
        convert=_wide,
        without=("chosen", "rejected"),
        loose=True,
        share=0,
    ),
    Layout(
        "spreadsheet",
        "spreadsheets, Gradio's flags: item, response A, response B, choice",
        (PROMPTS, FIRSTS, SECONDS, CHOICES),
        _fits,
        whole=gathered(_vote),
        without=("chosen", "rejected"),
        loose=True,
    ),
)
