"""Section "splits": what a data set shares with the set it is evaluated on."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import numpy as np

from hf_align.data.inspection import contamination, made
from hf_align.data.inspection.contamination import Contamination
from hf_align.data.inspection.findings import Found, Kind
from hf_align.data.inspection.records import Check, Context, Record, record_of, records_of
from hf_align.data.inspection.repeats import RowKeys
from hf_align.data.minhash import NEAR, MinHash, similarities
from hf_align.data.shingles import mix
from hf_align.report.inspection_sections import plural

SHARED_PAIR = Kind(
    "shared_pair",
    "splits",
    "warning",
    "Leave them out of training, as the fixed data does: the evaluation would measure what was learned by heart.",
)
SHARED_PROMPT = Kind(
    "shared_prompt",
    "splits",
    "warning",
    "Split by prompts, or leave these rows out of one set, unless the prompts are few general requests.",
)
NEAR_SHARED_PROMPT = Kind(
    "near_shared_prompt",
    "splits",
    "note",
    "Look whether they ask the same; if so, split by groups of near prompts.",
)


class Shared:
    """Finds prompts, exact and near ones, and whole rows of the evaluation set. Keeps nothing of other rows."""

    def __init__(self, context: Context) -> None:
        self._held_out = context.eval_dataset
        self._found = {kind: array("q") for kind in (SHARED_PAIR, SHARED_PROMPT, NEAR_SHARED_PROMPT)}
        self._examples: dict[Kind, str] = {}
        if self._held_out is None:
            return
        keys = RowKeys()
        self._sketches, self._numbers = MinHash(NEAR), array("q")
        seen: set[int] = set()
        for records in records_of(self._held_out):
            start = len(keys.rows)
            readable = [record for record in records if record.read is not None]
            for record in readable:
                keys.add(record)
            new = dict(zip(keys.prompts[start:].tolist(), readable, strict=True))
            new = {key: record for key, record in new.items() if record.prompt and key not in seen}
            seen.update(new)
            self._sketches.add([record.prompt for record in new.values()])
            self._numbers.extend(record.number for record in new.values())
        self._prompts, self._texts = np.array(sorted(seen), np.uint64), np.unique(_texts_of(keys))
        self._met = np.zeros(len(self._prompts), bool)

    def see(self, records: Sequence[Record]) -> None:
        """Take in the next rows."""
        readable = [record for record in records if record.read is not None]
        if self._held_out is None or not readable:
            return
        keys = RowKeys()
        for record in readable:
            keys.add(record)
        shared = np.isin(keys.prompts, self._prompts)
        self._met |= np.isin(self._prompts, keys.prompts[shared])
        self._note(SHARED_PROMPT, [record for record, is_shared in zip(readable, shared, strict=True) if is_shared])
        both = np.isin(_texts_of(keys), self._texts)
        self._note(SHARED_PAIR, [record for record, is_shared in zip(readable, both, strict=True) if is_shared])
        others = [record for record, is_shared in zip(readable, shared, strict=True) if not is_shared]
        near = self._near({record.prompt for record in others if record.prompt})
        self._note(NEAR_SHARED_PROMPT, [record for record in others if record.prompt in near])

    def finish(self) -> Found:
        """Figures and findings."""
        if self._held_out is None:
            return Found()
        counts = {kind.name: len(rows) for kind, rows in self._found.items()}
        found = Found({"eval_prompts": len(self._prompts), "shared_prompts": int(self._met.sum()), "rows": counts})
        said = {
            SHARED_PAIR: "prompt and responses of a row of the evaluation set",
            SHARED_PROMPT: f"a prompt of the evaluation set: {int(self._met.sum()):,} of its "
            f"{plural(len(self._prompts), 'prompt')}",
            NEAR_SHARED_PROMPT: f"a near duplicate of a prompt of the evaluation set (Jaccard similarity of {NEAR} or "
            "more)",
        }
        for kind, rows in self._found.items():
            if rows:
                have = f"{plural(len(rows), 'row')} {'has' if len(rows) == 1 else 'have'}"
                drop = rows.tolist() if kind is SHARED_PAIR else ()
                example = self._examples[kind]
                found.findings.append(kind.found(rows.tolist(), f"{have} {said[kind]}.", example=example, drop=drop))
        return found

    def _note(self, kind: Kind, records: Sequence[Record]) -> None:
        self._found[kind].extend(record.number for record in records)
        if records:
            self._examples.setdefault(kind, " ".join(records[0].prompt.split())[:200])

    def _near(self, prompts: set[str]) -> set[str]:
        """Those prompts that are near one of the evaluation set."""
        texts = sorted(prompts)
        pairs = self._sketches.matches(texts)
        near = similarities(pairs, lambda numbers: [texts[number] for number in numbers], self._eval_prompts) >= NEAR
        return {texts[number] for number in pairs[near, 0]}

    def _eval_prompts(self, numbers: Sequence[int]) -> list[str]:
        assert self._held_out is not None
        rows = [self._numbers[number] for number in numbers]
        return [record_of(*each).prompt for each in zip(rows, self._held_out.select(rows).to_list(), strict=True)]


def _texts_of(keys: RowKeys) -> np.ndarray:
    """Hashes of prompts with their responses, in any order."""
    return mix(keys.prompts) + keys.combine(keys.responses)


KINDS = (SHARED_PAIR, SHARED_PROMPT, NEAR_SHARED_PROMPT, contamination.CONTAMINATED, *made.KINDS)
CHECKS: tuple[Callable[[Context], Check], ...] = (Shared, Contamination, *made.CHECKS)
