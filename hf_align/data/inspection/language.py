"""Scripts of prompts and responses: Latin, Cyrillic, Han and so on."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np
import regex
from numpy.typing import NDArray

from hf_align.data.inspection.findings import Found, Kind
from hf_align.data.inspection.records import Context, Record

LANGUAGE = Kind(
    "language",
    "margins",
    "warning",
    "Drop the rows, unless the prompt asks for another language, as for a translation.",
)
KINDS = (LANGUAGE,)

SCRIPTS: dict[str, str] = {
    "Latin": r"\p{Script=Latin}",
    "Greek": r"\p{Script=Greek}",
    "Cyrillic": r"\p{Script=Cyrillic}",
    "Armenian": r"\p{Script=Armenian}",
    "Hebrew": r"\p{Script=Hebrew}",
    "Arabic": r"\p{Script=Arabic}",
    "Devanagari": r"\p{Script=Devanagari}",
    "Bengali": r"\p{Script=Bengali}",
    "Gurmukhi": r"\p{Script=Gurmukhi}",
    "Gujarati": r"\p{Script=Gujarati}",
    "Tamil": r"\p{Script=Tamil}",
    "Telugu": r"\p{Script=Telugu}",
    "Kannada": r"\p{Script=Kannada}",
    "Malayalam": r"\p{Script=Malayalam}",
    "Sinhala": r"\p{Script=Sinhala}",
    "Thai": r"\p{Script=Thai}",
    "Lao": r"\p{Script=Lao}",
    "Myanmar": r"\p{Script=Myanmar}",
    "Georgian": r"\p{Script=Georgian}",
    "Ethiopic": r"\p{Script=Ethiopic}",
    "Khmer": r"\p{Script=Khmer}",
    "Hangul": r"\p{Script=Hangul}",
    "Chinese or Japanese": r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}",
    "another": r"\p{Letter}--[\p{Script=Common}\p{Script=Inherited}]",
}
"""Characters of each script; a Japanese text may be all Han, so the two count as one. The last takes what is left."""
NAMES = ("", *SCRIPTS)
LETTERS = 3
"""Fewest letters of a text that has a script."""
MOST = 0.5
"""Share of the letters that must be of one script."""
_ASCII = re.compile(rf"(?:[A-Za-z][^A-Za-z]*){{{LETTERS}}}")


@cache
def _table() -> NDArray[np.uint8]:
    """Number in `NAMES` of every character."""
    characters = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    table = np.zeros(0x110000, np.uint8)
    for number in reversed(range(1, len(NAMES))):
        letters = f"[[{SCRIPTS[NAMES[number]]}]&&\\p{{Letter}}]+"
        for match in regex.finditer(letters, characters, regex.VERSION1):
            first, last = ord(match[0][0]), ord(match[0][-1])
            table[first : last + 1] = number
    return table


def script_of(text: str) -> int:
    """Number in `NAMES` of the script of most letters; 0 where there are too few, or none has most.

    Example:
        >>> from hf_align.data.inspection.language import NAMES, script_of
        >>> [NAMES[script_of(text)] for text in ("Прага is Prague?", "Прага и Москва (Moscow)", "42!")]
        ['Latin', 'Cyrillic', '']
    """
    if text.isascii():
        return int(_ASCII.search(text) is not None)
    codes = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32)
    counts = np.bincount(_table()[codes], minlength=len(NAMES))
    counts[0] = 0
    most, letters = int(counts.argmax()), int(counts.sum())
    return most if letters >= LETTERS and counts[most] > MOST * letters else 0


class Languages:
    """Finds rows whose responses are in another script than the prompt, or than each other."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._prompts, self._responses = Counter[int](), Counter[int]()
        self._rows = array("q")

    def see(self, records: Sequence[Record]) -> None:
        """Take in the next rows."""
        for record in records:
            if record.read is None:
                continue
            prompt, scripts = script_of(record.prompt), [script_of(text) for text in record.responses]
            self._prompts[prompt] += 1
            self._responses.update(scripts)
            known = {script for script in scripts if script}
            if len(known) > 1 or (prompt and known and known != {prompt}):
                self._rows.append(record.number)

    def finish(self) -> Found:
        """Scripts of all texts, and the rows that mix them."""
        responses, prompts = (
            {NAMES[script] or "none": count for script, count in counts.most_common()}
            for counts in (self._responses, self._prompts)
        )
        found = Found({"scripts": {"prompts": prompts, "responses": responses}})
        if self._rows:
            mixed = ", ".join(name for name in responses if name != "none")
            rows = list(self._rows)
            message = (
                f"{len(rows):,} {'row has' if len(rows) == 1 else 'rows have'} a response in another script than its "
                f"prompt or its rival (scripts of the responses: {mixed})."
            )
            first = self._context.fetch(rows[:1])[0]
            texts = [first.prompt, *first.responses]
            example = "; ".join(f"{NAMES[script_of(text)] or 'no script'}: {text[:40]!r}" for text in texts if text)
            found.findings.append(LANGUAGE.found(rows, message, example=example))
        return found
