"""How a data set's responses end, and which end otherwise."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence

from hf_align.data.inspection.defect_kinds import CUT_OFF, MISSING_END
from hf_align.data.inspection.endings import End, end_of
from hf_align.data.inspection.findings import Finding, Found
from hf_align.data.inspection.records import Context, Record
from hf_align.data.inspection.specials import Specials
from hf_align.data.inspection.texts import shortened

HABIT = 0.9
"""Share of responses that end properly, of those that end properly or openly, from which open ones are cut off ..."""
TEXTS = 20
"""... among at least this many."""
SHOWN = 80


class Ends:
    """Responses that break off where the data set's others end, and end tokens that only some have.

    Both are judged by the data set's own habit: tweets without full stops are no finding among tweets.
    """

    def __init__(self, context: Context) -> None:
        self._fetch, self._specials = context.fetch, Specials(context.tokenizer)
        self._counts: Counter[End] = Counter()
        self._open, self._ended, self._unended = array("q"), array("q"), array("q")
        self._tokens = self._texts = 0

    def see(self, records: Sequence[Record]) -> None:
        """Take in the next rows."""
        for record in records:
            if record.read is None:
                continue
            ended = [self._specials.ends_turn(text) for text in record.responses]
            bare = [
                self._specials.without_end(text) if has_end else text
                for text, has_end in zip(record.responses, ended, strict=True)
            ]
            ends = list(map(end_of, bare))
            self._counts.update(ends)
            self._texts += len(ended)
            self._tokens += sum(ended)
            if End.OPEN in ends:
                self._open.append(record.number)
            if any(ended):
                self._ended.append(record.number)
            if not all(ended):
                self._unended.append(record.number)

    def finish(self) -> Found:
        """Figures and findings."""
        proper, judged = self._counts[End.PROPER], self._counts[End.PROPER] + self._counts[End.OPEN]
        share = proper / judged if judged else None
        metrics = {
            "proper_ends": share,
            "judged_ends": judged,
            "end_tokens": self._tokens / self._texts if self._texts else None,
        }
        findings = []
        if self._open and share is not None and judged >= TEXTS and share >= HABIT:
            findings.append(
                CUT_OFF.found(
                    list(self._open),
                    f"{_rows(len(self._open))} a response that breaks off in the middle of a sentence or word, where "
                    f"{share:.1%} of the responses end properly.",
                    example=self._shown(self._open[0], End.OPEN),
                )
            )
        if 0 < self._tokens < self._texts:
            findings.append(self._missing_end())
        return Found({"ends": metrics}, findings)

    def _missing_end(self) -> Finding:
        most = self._tokens * 2 >= self._texts
        rows, verb = (self._unended, "lacks") if most else (self._ended, "has")
        message = (
            f"{_rows(len(rows))} a response that {verb} the token which ends a turn, where "
            f"{(self._tokens if most else self._texts - self._tokens) / self._texts:.1%} of the responses "
            f"{'have' if most else 'lack'} it."
        )
        return MISSING_END.found(list(rows), message, example=self._shown(rows[0], None, ended=not most))

    def _shown(self, number: int, end: End | None, *, ended: bool = False) -> str:
        """The end of the first response of a row that shows it."""
        for text in self._fetch([number])[0].responses:
            shows = self._specials.ends_turn(text) == ended if end is None else end_of(self._bare(text)) == end
            if shows:
                return f"…{text.strip()[-SHOWN:]}" if len(text) > SHOWN else shortened(text)
        return ""

    def _bare(self, text: str) -> str:
        return self._specials.without_end(text)


def _rows(count: int) -> str:
    return f"{count:,} row has" if count == 1 else f"{count:,} rows have"
