"""The columns of a table that hold texts or numbers by their names, whatever their values look like."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hf_align.data.layouts.sheets import sheet_of
from hf_align.data.layouts.strings import CHOSEN, PROMPTS, REJECTED
from hf_align.errors import UserError

_SIDES = {"chosen", *CHOSEN.split("|"), *REJECTED.split("|")}
_RESPONSES = re.compile(r"(response|answer|completion|output)(_?[0-9abjk])?")
_NUMBERS = re.compile(r"(?:^|[^a-z])(?:rating|score|margin|weight|ranking|rank|strength)s?(?:$|[^a-z])")
_ATTRIBUTES = {"helpfulness", "correctness", "coherence", "complexity", "verbosity"}
"""Of HelpSteer's rows."""


def are_numbers(column: str) -> bool:
    """Whether a column holds numbers by its name.

    Example:
        >>> from hf_align.data.layouts.texts import are_numbers
        >>> list(map(are_numbers, ["margin", "score_chosen", "Rating A", "category"]))
        [True, True, True, False]
    """
    return column in _ATTRIBUTES or _NUMBERS.search(column.lower()) is not None


def text_columns(columns: Sequence[str]) -> list[str]:
    """Columns that are prompts or responses by their names: the answer to a sum is a text, too.

    Example:
        >>> from hf_align.data.layouts.texts import text_columns
        >>> text_columns(["prompt", "response", "rating"])
        ['prompt', 'response']
    """
    try:
        sheet = sheet_of(tuple(columns))
    except UserError:  # raised again when the layout is looked for
        sheet = None
    if sheet is not None:
        return [name for name in (sheet.prompt, sheet.context, sheet.first, sheet.second) if name is not None]
    prompts = {"prompt"} if "prompt" in columns else set(PROMPTS.split("|"))
    sided = "chosen" in columns or len(_SIDES & set(columns)) > 1
    sides = _SIDES if sided else set()
    return [name for name in columns if name in prompts or name in sides or _RESPONSES.fullmatch(name)]
