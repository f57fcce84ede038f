"""How far people agree: within each row, and as Krippendorff's alpha over all of them, by annotator and group."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Literal

import numpy as np
from scipy.special import entr

from hf_align.collators.judged import kind_of
from hf_align.collators.rankings import Ranking
from hf_align.data.agreement import OfAnnotator, agreement_of
from hf_align.data.answers import Answers, Level
from hf_align.data.inspection.findings import Found, Kind
from hf_align.data.inspection.opinions import NOBODY, Opinion, of_label, of_ratings, of_votes, ratings_of
from hf_align.data.inspection.records import Check, Context, Record
from hf_align.data.inspection.units import MOST, Units, digest

Source = Literal["votes", "annotator", "ratings", "label"]
GROUPS = ("group", "domain")
"""Columns within whose values agreement is measured, too."""
MOST_GROUPS = 50
SHOWN = 50
"""Annotators whose figures are listed: those who agree least."""
LEVEL: Level = "interval"
"""Of votes, a tie lies half-way between the two responses."""
TENTATIVE = 0.667
"""Below this alpha not even tentative conclusions hold (Krippendorff, Content Analysis, 2018, chapter 12)."""
UNNAMED = "(unnamed)"
FEW = 20
"""Values below which nothing is said about an annotator."""
HOW: dict[Source, str] = {
    "votes": "the share of pairs of votes on a row that are the same",
    "annotator": "the share of pairs of annotators of the same responses who chose the same",
    "ratings": "the share of pairs of ratings, one of each response, with the same order, where ties count half",
    "label": "how often two people agree by the row's label p: p² + (1 - p)²",
}

LOW_AGREEMENT = Kind(
    "low_agreement",
    "agreement",
    "warning",
    "Ask more people, train a reward model on the votes or shares (`votes`, `label`), or drop the rows: a plain pair "
    "is taught as certain.",
)
LOW_ALPHA = Kind(
    "low_alpha",
    "agreement",
    "warning",
    "Look at the instructions, the groups and the single annotators before training; more answers per row help only "
    "where people disagree by error.",
)
ANNOTATOR_AT_CHANCE = Kind(
    "annotator_at_chance",
    "agreement",
    "warning",
    "Look at what they answered; without their answers alpha may be another one.",
)
ANNOTATORS_UNFIT = Kind(
    "annotators_unfit", "agreement", "warning", "Give one annotator for each vote, or remove the column `annotators`."
)
UNDEFINED = Kind(
    "agreement_undefined", "agreement", "note", "Ask several people about the same rows to know how far they agree."
)


class PeopleAgree:
    """Reads votes, else annotators' single choices, else ratings, else soft labels: the first that the rows have."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.source: Source | None = _source(context.columns)
        self._groups = [name for name in GROUPS if name in context.columns]
        single = self.source == "annotator"
        # One choice a row is small; and all rows of a pair are needed to say how far its annotators agree.
        self._units = Units(self._groups, merge=single, most=2**62 if single else MOST)
        self._rows, self._agreement, self._share = array("q"), array("f"), array("f")
        self._unfit: list[int] = []

    def see(self, records: Sequence[Record]) -> None:
        """Take in the next rows."""
        if self.source is None:
            return
        take = {"votes": self._votes, "annotator": self._choice, "ratings": self._ratings, "label": self._label}
        for record in records:
            if record.read is not None:
                opinion = take[self.source](record)
                if opinion is not None:
                    self._rows.append(record.number)
                    self._agreement.append(opinion[0])
                    self._share.append(opinion[1])

    def _votes(self, record: Record) -> Opinion:
        votes: list[float] | None = record.values.get("votes")
        if votes is None:
            return NOBODY
        raters: Sequence[Hashable] | None = None
        if "annotators" in self._context.columns:
            names = record.row["annotators"]
            if isinstance(names, list) and len(names) == len(votes) and None not in names:
                last = dict(zip(names, votes, strict=True))  # of several votes of one annotator the last one counts
                raters, votes = list(last), list(last.values())
            else:
                raters = [UNNAMED] * len(votes)
                self._unfit.append(record.number)
        pair, turned = _pair(record)
        key = digest(pair, repr(votes).encode(), repr(raters).encode())
        self._units.add(key, _turn(votes, turned), raters, self._group(record))
        return of_votes(votes)

    def _choice(self, record: Record) -> Opinion | None:
        name, label = record.row.get("annotator"), record.values.get("label")
        if name is None:
            return None
        pair, turned = _pair(record)
        choice = 1.0 if label is None else float(label)
        self._units.add(digest(pair), _turn([choice], turned), [name], self._group(record))
        return NOBODY

    def _ratings(self, record: Record) -> Opinion:
        ratings = ratings_of(record.row, record.values)
        prompt = record.prompt.encode(errors="surrogatepass")
        for text, values in zip(record.responses, ratings, strict=False):  # a response may stand in several pairs
            key = digest(prompt, text.encode(errors="surrogatepass"), array("d", values).tobytes())
            self._units.add(key, values, None, self._group(record))
        return of_ratings(ratings)

    def _label(self, record: Record) -> Opinion:
        return NOBODY if isinstance(record.read, Ranking) else of_label(record.values.get("label"))

    def _group(self, record: Record) -> Mapping[str, Hashable]:
        return {name: str(record.row.get(name)) for name in self._groups}

    def finish(self) -> Found:
        """Agreement by row, alpha, and rows on which people agree too little."""
        if self.source is None:
            reason = "no column says what several people thought: votes, annotator, ratings or a soft label"
            return Found({"source": None, "reason": reason})
        found = Found({"source": self.source, "how": HOW[self.source], "least": self._context.min_agreement})
        answers = self._units.answers()
        agreement = np.array(self._agreement)
        share = np.array(self._share)
        if self.source == "annotator":
            agreement, share = self._by_pair(answers)
        self._add_rows(found, agreement, share)
        if self._unfit:
            count = len(self._unfit)
            message = f"{count:,} {'row has' if count == 1 else 'rows have'} no name for each vote in annotators."
            found.findings.append(ANNOTATORS_UNFIT.found(self._unfit, message))
        if self.source == "label":
            found.metrics["reason"] = "alpha is undefined: a label is a share, and says nothing of single people"
        elif len(answers.values):
            self._add_alpha(found, answers)
        else:
            found.metrics["reason"] = f"alpha is undefined: no row has {self.source} of several people"
        return found

    def _by_pair(self, answers: Answers) -> tuple[np.ndarray, np.ndarray]:
        """Agreement, and share who chose the row's first response, of the annotators of a row's pair."""
        distinct, code = np.unique(answers.values, return_inverse=True)
        counts = np.zeros((len(answers.units), len(distinct)))
        np.add.at(counts, (answers.unit, code), 1)
        total = counts.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            same = (counts * (counts - 1)).sum(axis=1) / (total * (total - 1))
        _, of_row = np.unique(self._units.keys, return_inverse=True)
        # Entropy is the same for a share and its complement, so the turn of the row doesn't matter.
        share = np.where(total > 1, counts @ distinct / np.maximum(total, 1), np.nan)
        return same[of_row], share[of_row]

    def _add_rows(self, found: Found, agreement: np.ndarray, share: np.ndarray) -> None:
        rows, known = np.array(self._rows), np.isfinite(agreement)
        found.metrics["rows"] = int(known.sum())
        if not known.any():
            return
        least, values = self._context.min_agreement, agreement[known].astype(float)
        low = rows[known][values < least - 1e-6].tolist()
        counts, edges = np.histogram(values, bins=20, range=(0.0, 1.0))
        found.metrics |= {
            "mean": float(values.mean()),
            "quartiles": np.percentile(values, [25, 50, 75]).tolist(),
            "low_share": len(low) / len(values),
            "histogram": {"edges": edges.tolist(), "counts": [counts.tolist()]},
        }
        if (shares := share[np.isfinite(share)]).size:
            found.metrics["entropy"] = float(np.mean(entr(shares) + entr(1 - shares)) / np.log(2))  # in bits
        if low:
            share_of = f"{len(low):,} of {len(values):,} rows have an agreement below {least:g}"
            message = f"{share_of}: {HOW[self.source or 'votes']} (median {np.median(values):.2f})."
            found.findings.append(LOW_AGREEMENT.found(low, message, example=self._example(low[0])))

    def _add_alpha(self, found: Found, answers: Answers) -> None:
        result = agreement_of(answers, LEVEL, seed=self._context.seed)
        lowest = sorted(result.annotators.items(), key=lambda item: (item[1].alpha, str(item[0])))
        shown = {name: one for name, one in lowest if one.values}
        few = replace(result, annotators=dict(islice(shown.items(), SHOWN)))
        found.metrics |= few.to_dict() | {"annotator_count": len(shown), "share_of_units": self._units.share}
        found.metrics["groups"] = {name: self._by_group(answers, name) for name in self._groups}
        apart = [(name, one) for name, one in lowest if _at_chance(one, result.alpha)]
        if apart:
            low = [f"{name} ({one.alpha:.2f}, {one.values:,} answers)" for name, one in apart]
            more = f" and {len(low) - 5:,} more" if len(low) > 5 else ""
            message = f"Alpha against all others is 0 or less for {', '.join(low[:5])}{more}."
            found.findings.append(ANNOTATOR_AT_CHANCE.found((), message))
        if result.reason:
            found.findings.append(UNDEFINED.found((), f"{result.sentence[0].upper()}{result.sentence[1:]}."))
        elif (result.interval[1] if result.interval[1] == result.interval[1] else result.alpha) < TENTATIVE:
            found.findings.append(LOW_ALPHA.found((), f"{result.sentence[0].upper()}{result.sentence[1:]}."))

    def _by_group(self, answers: Answers, name: str) -> dict[str, Any]:
        """Agreement within each value of a column."""
        labels = np.array(self._units.labels(name), dtype=str)
        values = np.unique(labels)
        if len(values) > MOST_GROUPS:
            return {"reason": f"{len(values):,} values, more than {MOST_GROUPS}"}
        parts = (answers.of((labels == value)[answers.unit]) for value in values)
        results = [replace(agreement_of(part, LEVEL, seed=self._context.seed), annotators={}) for part in parts]
        return {str(value): result.to_dict() for value, result in zip(values, results, strict=True)}

    def _example(self, row: int) -> str:
        record = self._context.fetch([row])[0]
        names = ("votes", "ratings", "chosen_ratings", "rejected_ratings", "label", "preference")
        said = [f"{name} {record.row[name]}" for name in names if record.row.get(name) is not None]
        return f"{', '.join(said)}: {record.responses[0].strip()[:120]!r} and {record.responses[1].strip()[:120]!r}"


def _source(columns: Sequence[str]) -> Source | None:
    """What of a data set's columns to read."""
    names, pairs = set(columns), kind_of(columns) == "pairs"
    if pairs and "votes" in names:
        return "votes"
    if pairs and "annotator" in names:
        return "annotator"
    if {"chosen_ratings", "rejected_ratings"} <= names or (not pairs and "ratings" in names):
        return "ratings"
    return "label" if pairs and names & {"label", "preference"} else None


def _pair(record: Record) -> tuple[bytes, bool]:
    """Prompt and responses in an order that doesn't depend on which is the better one; whether the row has the other.

    Values "first is better" would be nearly all 1 where the better response stands first, and chance would agree with
    that: alpha would be low, whatever people think.
    """
    sides = [digest(text.encode(errors="surrogatepass")) for text in record.responses[:2]]
    prompt = record.prompt.encode(errors="surrogatepass")
    return repr(sorted(sides)).encode() + prompt, sides != sorted(sides)


def _turn(votes: Sequence[float], turned: bool) -> Sequence[float]:
    return [1 - vote for vote in votes] if turned else votes


def _at_chance(one: OfAnnotator, alpha: float) -> bool:
    """Whether the annotator agrees with nobody, and that isn't chance in a table of this alpha."""
    return one.values >= FEW and one.alpha <= 0 and one.alpha + 3 * one.error < alpha


KINDS = (LOW_AGREEMENT, LOW_ALPHA, ANNOTATOR_AT_CHANCE, ANNOTATORS_UNFIT, UNDEFINED)
CHECKS: tuple[Callable[[Context], Check], ...] = (PeopleAgree,)
