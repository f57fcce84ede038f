"""Training texts that contain a response of the evaluation set."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from hf_align.data.inspection.findings import Found, Kind
from hf_align.data.inspection.records import Context, Record, record_of, records_of
from hf_align.data.minhash import parts
from hf_align.data.ngrams import WORDS, hash_ngrams, hash_words
from hf_align.data.shingles import normalise_all
from hf_align.report.inspection_sections import plural

CONTAINED = 0.7
"""Share of a response's runs of 8 words in one text from which that contains it (as in PaLM)."""
LEAST_WORDS = 5
"""Words of a response that is looked for; shorter ones, such as "I don't know." (four), prove nothing. Responses of
fewer than 8 words have to be equal to a text."""
COMMON = 20
"""Texts of either set from which a run that stands in more of them is a common phrase and proves nothing."""

CONTAMINATED = Kind(
    "contaminated",
    "splits",
    "warning",
    "Leave them out of training, as the fixed data does, or evaluate on other rows.",
)


class Contamination:
    """Looks for the evaluation set's responses in all texts. Keeps 20 bytes a run of words of the evaluation set."""

    def __init__(self, context: Context) -> None:
        self._responses = None if context.eval_dataset is None else _Responses(context.eval_dataset)
        self._rows, self._matched, self._counts, self._runs = array("q"), array("q"), array("q"), array("q")

    def see(self, records: Sequence[Record]) -> None:
        """Take in the next rows."""
        if self._responses is None or not len(self._responses.runs):
            return
        texts: dict[str, list[int]] = {}
        for record in records:
            for text in dict.fromkeys((record.prompt, *record.responses)):
                texts.setdefault(text, []).append(record.number)
        for part in parts(list(texts)):
            for number, response, runs in self._responses.contained(part):
                for row in texts[part[number]]:
                    self._rows.append(row)
                    self._matched.append(response)
                    self._counts.append(len(runs))
                    self._runs.extend(runs)

    def finish(self) -> Found:
        """Figures and the finding, if any."""
        responses = self._responses
        if responses is None:
            return Found()
        metrics = {
            "eval_responses": len(responses.sizes) + responses.short,
            "too_short": responses.short,
            "only_common_phrases": int((responses.sizes == 0).sum()),
        }
        rows, matched, counts, runs = (
            np.frombuffer(each, np.int64) for each in (self._rows, self._matched, self._counts, self._runs)
        )
        times = responses.times[runs]
        starts = np.cumsum(counts) - counts
        rare = np.add.reduceat(times <= COMMON, starts, dtype=np.int64) if len(starts) else counts
        certain = 2 * rare >= counts
        found = np.repeat(certain, counts)
        metrics |= {
            "contaminated_rows": len(np.unique(rows[certain])),
            "matches_of_common_phrases": int((~certain).sum()),
        }
        if not certain.any():
            return Found({"contamination": metrics})
        # The precision of the search: a run that stands in one text and one response only is hardly a coincidence.
        precision = float(((times == 1) & (responses.places[runs] == 1))[found].mean())
        listed = np.unique(rows[certain]).tolist()
        message = (
            f"{plural(len(listed), 'row')} {'contains' if len(listed) == 1 else 'contain'} "
            f"{plural(len(np.unique(matched[certain])), 'response')} of the evaluation set ({CONTAINED:.0%} or more of "
            f"the runs of {WORDS} words, or the whole of a shorter one); {precision:.0%} of the runs found stand in no "
            "other text of either."
        )
        finding = CONTAMINATED.found(listed, message, example=responses.text(int(matched[certain][0])), drop=listed)
        return Found({"contamination": metrics | {"unique_runs": precision}}, [finding])


class _Responses:
    """The evaluation set's different responses by their runs of words.

    Attributes:
        runs: uint64 `[G]` hashes of their runs, ascending, without those of more than `COMMON` responses.
        places: `[G]` number of responses with each run.
        times: `[G]` number of training texts with each run.
        sizes: `[D]` number of such runs of each response.
        short: Number of responses of fewer than `LEAST_WORDS` words.
    """

    def __init__(self, rows: Dataset) -> None:
        self._dataset = rows
        self._where = array("q")  # row and place in it
        self.short = 0
        values, owners, seen = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], set[int]()
        for records in records_of(rows):
            new = {}
            for record in records:
                for place, text in enumerate(record.responses):
                    if (key := hash(text)) not in seen:
                        seen.add(key)
                        new[text] = (record.number, place)
            for part in parts(list(new)):
                letters = normalise_all(part)
                kept = np.diff(hash_words(letters).starts) >= LEAST_WORDS
                self.short += int((~kept).sum())
                hashes = hash_ngrams(letters)
                counts = np.diff(hashes.starts)
                numbers = len(self._where) // 2 + np.cumsum(kept) - 1
                values.append(hashes.values[np.repeat(kept, counts)])
                owners.append(np.repeat(numbers[kept], counts[kept]))
                self._where.extend([each for text in np.array(part, object)[kept] for each in new[text]])
        run, owner = np.concatenate(values), np.concatenate(owners)
        order = np.lexsort((owner, run))
        run, owner = run[order], owner[order]
        once = np.ones(len(run), bool)
        once[1:] = (run[1:] != run[:-1]) | (owner[1:] != owner[:-1])
        self.runs, place, counts = np.unique(run[once], return_inverse=True, return_counts=True)
        rare = counts <= COMMON
        self._owners = owner[once][rare[place]]
        self.runs, self.places = self.runs[rare], counts[rare]
        self._starts = np.concatenate([[0], np.cumsum(self.places)])
        self.sizes = np.bincount(self._owners, minlength=len(self._where) // 2)
        self.times = np.zeros(len(self.runs), np.int32)
        # Which first bits occur: sixteen times as many as there are runs rule out most others without a search.
        bits = min(24, max(10, int(16 * len(self.runs)).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._known = np.zeros(2**bits, bool)
        self._known[self.runs >> self._shift] = True

    def contained(self, texts: Sequence[str]) -> list[tuple[int, int, list[int]]]:
        """Which texts contain which responses, and the runs that they share; counts the runs."""
        hashes = hash_ngrams(normalise_all(texts))
        likely = np.flatnonzero(self._known[hashes.values >> self._shift])
        values = hashes.values[likely]
        place = np.minimum(np.searchsorted(self.runs, values), len(self.runs) - 1)
        hit = self.runs[place] == values
        owner = np.searchsorted(hashes.starts, likely[hit], side="right") - 1
        codes = np.sort(owner * len(self.runs) + place[hit])
        text, run = np.divmod(codes[np.diff(codes, prepend=-1) > 0], len(self.runs))
        np.add.at(self.times, run, 1)
        if not len(run):
            return []
        counts = self.places[run]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        response = self._owners[np.repeat(self._starts[run], counts) + within]
        text, run = np.repeat(text, counts), np.repeat(run, counts)
        order = np.lexsort((run, response, text))
        text, response, run = text[order], response[order], run[order]
        begins = np.flatnonzero((np.diff(text, prepend=-1) != 0) | (np.diff(response, prepend=-1) != 0))
        shared = np.diff(np.append(begins, len(run)))
        enough = np.flatnonzero(shared >= CONTAINED * self.sizes[response[begins]])
        return [
            (int(text[begin]), int(response[begin]), run[begin : begin + count].tolist())
            for begin, count in zip(begins[enough].tolist(), shared[enough].tolist(), strict=True)
        ]

    def text(self, number: int) -> str:
        """One of the responses, shortened."""
        row, place = self._where[2 * number : 2 * number + 2]
        return " ".join(record_of(row, self._dataset[row]).responses[place].split())[:200]
