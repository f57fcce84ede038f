"""Section "duplicates": prompts, pairs and responses that stand in the data more than once, exactly or nearly.

What an exact repetition is, agrees with what the trainers warn of (`find_bad_rows`). Near ones have a Jaccard
similarity of `hf_align.data.minhash.NEAR` or more and are verified by comparing the texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from typing import Any

import numpy as np

from hf_align.collators.doubts import DUPLICATE, OPPOSITE
from hf_align.data.inspection.findings import Finding, Found, Kind
from hf_align.data.inspection.near import NearTexts, near_rows
from hf_align.data.inspection.records import Check, Context, Record
from hf_align.data.inspection.repeats import Numbers, Repeats, RowKeys, find_repeats
from hf_align.data.minhash import NEAR, Clusters, MinHash
from hf_align.numbers import plural

SECTION = "duplicates"
MANY_PROMPTS = 5
"""Prompts from which a response that stands under all of them is taken for a template."""
PARTNERS = 6
"""Candidates of a text, about; see `MinHash`."""
SHOWN = 200
"""Characters of an example."""

DUPLICATE_PAIR = Kind(
    "duplicate_pair",
    SECTION,
    "warning",
    "Drop all but the first, which the fixed data does, unless another row contradicts them: then they may be votes.",
)
SWAPPED_PAIR = Kind(
    "swapped_pair",
    SECTION,
    "warning",
    "Drop all but the first, which the fixed data does, unless another row contradicts them: then they may be votes.",
)
CONTRADICTED_PAIR = Kind(
    "contradicted_pair",
    SECTION,
    "warning",
    "Look at them: make one row of each pair with the votes of all (column votes), or drop those that are wrong. The "
    "fixed data keeps them, since people may simply disagree.",
)
NEAR_DUPLICATE_PAIR = Kind(
    "near_duplicate_pair",
    SECTION,
    "warning",
    "Drop all but one of each group, which the fixed data does: it keeps the row that the others resemble most.",
)
TEMPLATE = Kind(
    "response_under_many_prompts",
    SECTION,
    "warning",
    "Look whether it answers its prompts: a template teaches to prefer or avoid it whatever is asked. Drop its rows, "
    "or keep few of them.",
)
PROMPT_REPEATED = Kind(
    "prompt_repeated", SECTION, "note", "Keep a prompt's rows in one split, and don't count them as independent."
)
NEAR_PROMPTS = Kind(
    "near_prompts", SECTION, "note", "Keep them in one split; drop some if one question outweighs the others."
)


class Duplicates:
    """Finds what stands in the data more than once. Of a pair 182 bytes are kept: hashes and three sketches."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._keys = RowKeys()
        self._prompts, self._responses = MinHash(NEAR, partners=PARTNERS), MinHash(NEAR, partners=PARTNERS)

    def see(self, records: Sequence[Record]) -> None:
        """Take in the next rows."""
        readable = [record for record in records if record.read is not None]
        for record in readable:
            self._keys.add(record)
        self._prompts.add([record.prompt for record in readable])
        self._responses.add([text for record in readable for text in record.responses])

    def finish(self) -> Found:
        """Figures and findings."""
        repeats = find_repeats(self._keys)
        prompts = NearTexts(self._prompts, self._keys.prompts, self._fetch_prompts)
        responses = NearTexts(self._responses, self._keys.responses, self._fetch_responses)
        found = Found()
        for part in (
            self._exact(repeats),
            self._near_rows(repeats, prompts, responses),
            self._templates(prompts, responses),
            self._repeated_prompts(prompts),
        ):
            found.metrics |= part.metrics
            found.findings += part.findings
        return found

    def _exact(self, each: Repeats) -> Found:
        votes = each.opposed  # a repeated row may be a further vote there
        findings = []
        for kind, again, earlier, how in (
            (DUPLICATE_PAIR, each.copies, each.copied, ""),
            (SWAPPED_PAIR, each.swapped, each.unswapped, ", with the responses in the other order"),
        ):
            if len(again):
                message = f"{_rows_have(again)} {DUPLICATE}{how}: {plural(len(earlier), 'row')} would be left of these."
                findings.append(
                    self._finding(kind, np.union1d(again, earlier), message, again[0], np.setdiff1d(again, votes))
                )
        if len(each.opposed):
            message = (
                f"{_rows_have(range(each.opposite_earlier))} {OPPOSITE}: {len(each.opposed):,} rows disagree "
                f"about {plural(each.opposed_pairs, 'pair')} of responses, {each.clear_pairs:,} by two to one or more."
            )
            findings.append(self._finding(CONTRADICTED_PAIR, each.opposed, message, each.opposed[0]))
        metrics = {
            "duplicate_pairs": len(each.copies),
            "swapped_pairs": len(each.swapped),
            "contradicted_pairs": each.opposed_pairs,
            "rows_of_contradicted_pairs": len(each.opposed),
        }
        return Found(metrics, findings)

    def _near_rows(self, repeats: Repeats, prompts: NearTexts, responses: NearTexts) -> Found:
        near = near_rows(self._keys, np.union1d(repeats.copies, repeats.swapped), prompts, responses)
        metrics = {"near_duplicate_pairs": _sizes(near)}
        if not len(near.copies):
            return Found(metrics)
        message = (
            f"{_rows_have(near.copies)} a near duplicate: prompt and responses with a "
            f"Jaccard similarity of {NEAR} or more, in {_said_sizes(near)}."
        )
        finding = self._finding(NEAR_DUPLICATE_PAIR, near.members, message, near.copies[0], near.copies)
        return Found(metrics, [finding])

    def _templates(self, prompts: NearTexts, responses: NearTexts) -> Found:
        """Responses that stand, exactly or nearly, under many prompts."""
        keys = self._keys
        group = responses.clusters().medoid[responses.firsts]
        owner = np.repeat(np.arange(len(keys.rows)), keys.preferences.counts)
        each = np.unique(np.stack([group, prompts.firsts[owner]], axis=1), axis=0)
        counts = np.bincount(each[:, 0], minlength=len(group))
        templates = np.flatnonzero(counts >= MANY_PROMPTS)
        metrics = {"responses_under_many_prompts": len(templates)}
        if not len(templates):
            return Found(metrics)
        rows = np.unique(owner[counts[group] >= MANY_PROMPTS])
        message = (
            f"{plural(len(templates), 'response')} {'stands' if len(templates) == 1 else 'stand'} under "
            f"{MANY_PROMPTS} prompts or more, exactly or nearly, in {plural(len(rows), 'row')}; the commonest under "
            f"{counts.max():,} prompts."
        )
        example = _shown(self._fetch_responses([int(counts.argmax())])[0])
        return Found(metrics, [TEMPLATE.found(keys.rows[rows].tolist(), message, example=example)])

    def _repeated_prompts(self, prompts: NearTexts) -> Found:
        keys, near = self._keys, prompts.clusters()
        counts = np.bincount(prompts.firsts, minlength=len(keys.rows))
        shared = np.flatnonzero(counts[prompts.firsts] > 1)
        distinct = int((counts > 0).sum())
        metrics = {"prompts": distinct, "rows_of_repeated_prompts": len(shared), "near_prompts": _sizes(near)}
        findings = []
        if len(shared) and self._fetch_prompts([int(counts.argmax())])[0]:
            message = (
                f"{len(shared):,} rows share the prompt with others: "
                f"{len(keys.rows):,} rows have {plural(distinct, 'prompt')}, the commonest stands in {counts.max():,}."
            )
            findings.append(self._finding(PROMPT_REPEATED, shared, message, int(counts.argmax())))
        if len(near.copies):
            rows = np.flatnonzero(np.isin(prompts.firsts, near.members))
            message = (
                f"{plural(len(near.members), 'prompt')} of {distinct:,} are near duplicates of others (Jaccard "
                f"similarity of {NEAR} or more), in {_said_sizes(near)}."
            )
            findings.append(self._finding(NEAR_PROMPTS, rows, message, near.copies[0]))
        return Found(metrics, findings)

    def _finding(self, kind: Kind, places: Numbers, message: str, shown: int, drop: Numbers | None = None) -> Finding:
        rows = self._keys.rows
        dropped = () if drop is None else rows[drop].tolist()
        example = self._context.fetch([int(rows[shown])])[0]
        text = example.prompt if kind in (PROMPT_REPEATED, NEAR_PROMPTS) else example.responses[0]
        return kind.found(rows[places].tolist(), message, example=_shown(text), drop=dropped)

    def _fetch_prompts(self, places: Sequence[int]) -> list[str]:
        return [record.prompt for record in self._context.fetch(self._keys.rows[places].tolist())]

    def _fetch_responses(self, places: Sequence[int]) -> list[str]:
        starts = self._keys.starts
        rows = np.searchsorted(starts, places, side="right") - 1
        fetched = np.unique(rows)
        records = dict(zip(fetched.tolist(), self._context.fetch(self._keys.rows[fetched].tolist()), strict=True))
        return [records[row].responses[place - starts[row]] for row, place in zip(rows.tolist(), places, strict=True)]


def _rows_have(rows: Sized) -> str:
    return f"{plural(len(rows), 'row')} {'has' if len(rows) == 1 else 'have'}"


def _shown(text: str) -> str:
    return " ".join(text.split())[:SHOWN]


def _sizes(near: Clusters) -> dict[str, Any]:
    largest = max(near.sizes, default=0)
    return {
        "copies": len(near.copies),
        "groups": len(near.sizes),
        "largest": largest,
        "longest_chain": near.longest_chain,
        "complete": near.complete,
    }


def _said_sizes(near: Clusters) -> str:
    chain = f"; a chain of {near.longest_chain:,} was cut" if near.longest_chain > near.sizes[0] else ""
    more = "" if near.complete else "; there are more: only the first were compared"
    return f"{plural(len(near.sizes), 'group')}, the largest of {near.sizes[0]:,}{chain}{more}"


KINDS = (
    DUPLICATE_PAIR,
    SWAPPED_PAIR,
    CONTRADICTED_PAIR,
    NEAR_DUPLICATE_PAIR,
    TEMPLATE,
    PROMPT_REPEATED,
    NEAR_PROMPTS,
)
CHECKS: tuple[Callable[[Context], Check], ...] = (Duplicates,)
