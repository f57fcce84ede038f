"""The section "size" of an inspection: rows, columns, lengths, and what truncation would cut."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hf_align.collators.doubts import long_limit
from hf_align.collators.encoding import PairEncoder
from hf_align.collators.judged import kind_of
from hf_align.collators.rows import RowProblem, key_of
from hf_align.collators.truncation import Limits, truncate
from hf_align.data.inspection.findings import Finding, Found, Kind
from hf_align.data.inspection.histogram import histogram
from hf_align.data.inspection.records import Check, Context, Record
from hf_align.data.inspection.texts import Look, look_at, shortened

SECTION = "size"
LONG_ROW = Kind(
    "long_row",
    SECTION,
    "warning",
    "Look whether the rows are whole documents or several rows in one; drop or cut them.",
)
SHORT_ROW = Kind("short_row", SECTION, "note", "Look whether these responses are answers at all.")
CUT = Kind(
    "cut_by_truncation",
    SECTION,
    "warning",
    "Raise max_length or max_prompt_length, or drop the rows: a cut prompt may lose the question, and a cut response "
    "teaches nothing about its end.",
)
REFUSED_BY_TEMPLATE = Kind(
    "refused_by_template", SECTION, "error", "Give the messages a form that the tokenizer's chat template takes."
)
KINDS = (LONG_ROW, SHORT_ROW, CUT, REFUSED_BY_TEMPLATE)

QUANTILES = {"min": 0.0, "5%": 0.05, "25%": 0.25, "50%": 0.5, "75%": 0.75, "95%": 0.95, "99%": 0.99, "max": 1.0}
SHORT_SHARE = 10
"""Responses are short if all of a row have less than a tenth of the median response's words ..."""
HABIT = 0.1
"""... and at most this share of the rows has such responses: else short answers are what the data set teaches, too."""
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNSPACED += "\U00020000-\U0003ffff"  # Thai, Lao, Burmese, Khmer, Japanese, Chinese
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
NEAR = 3
"""Tokens from a limit within which a row is tokenised as in training: a token may cross the border of two texts."""


class Columns:
    """Types of the columns, and shares of nulls."""

    def __init__(self, context: Context) -> None:
        self._rows = 0
        self._nulls = dict.fromkeys(context.columns, 0)
        self._types = dict.fromkeys(context.columns, "null")

    def see(self, records: Sequence[Record]) -> None:
        """Take in the next rows."""
        self._rows += len(records)
        for name in self._types:
            values = [value for record in records if (value := record.row[name]) is not None]
            self._nulls[name] += len(records) - len(values)
            if self._types[name] in ("null", "empty list") and values:  # a column has one type
                self._types[name] = next((kind for kind in map(type_of, values) if kind != "empty list"), "empty list")

    def finish(self) -> Found:
        """Figures."""
        columns = [
            {"name": name, "type": kind, "nulls": self._nulls[name] / max(1, self._rows)}
            for name, kind in self._types.items()
        ]
        return Found({"rows": self._rows, "layout": kind_of(self._types), "columns": columns})


def type_of(value: Any) -> str:
    """The type of a value in a word."""
    if isinstance(value, list):
        first = next((part for part in value if part is not None), None)
        if isinstance(first, dict):
            return "messages" if "role" in first else "records"
        return f"list of {type_of(first)}" if first is not None else "empty list"
    names = {bool: "truth value", int: "number", float: "number", str: "text", dict: "record"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), type(value).__name__)


def count_words(text: str) -> int:
    """Number of words; in scripts that are written without spaces, such as Chinese, of characters."""
    if text.isascii() or not _IS_UNSPACED.search(text):
        return len(text.split())
    return len(_WORD.findall(text))


class Lengths:
    """Lengths of prompts and responses, in tokens if there is a tokenizer, else in words; rows far from the others'.

    Of a conversation the prompt is rendered by the chat template, and a response is its text with the template's end of
    turn. Rows within `NEAR` tokens of a limit are tokenised as in training, so the rows counted as cut are those that a
    trainer would cut.

    Raises:
        UserError: The tokenizer has no EOS token, rows are conversations and it has no chat template, or a limit leaves
            no room.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._limits = Limits(context.max_length, context.max_prompt_length)
        self._tokens = None if context.tokenizer is None else Tokens(PairEncoder(context.tokenizer))
        self._names = ("response",) if kind_of(context.columns) == "rankings" else ("chosen", "rejected")
        self._rows, self._characters, self._words = array("q"), array("q"), array("i")
        self._prompts, self._wholes = array("i"), array("i")
        self._responses = {name: array("i") for name in self._names}
        self._cut = {"prompt": array("q"), "response": array("q")}
        self._refused: dict[str, list[int]] = {}

    def see(self, records: Sequence[Record]) -> None:
        """Take in the next rows."""
        looks = [look_at(record) for record in records if record.read is not None]
        words = [[*map(count_words, look.responses)] for look in looks]
        for look, of_responses in zip(looks, words, strict=True):
            self._rows.append(look.record.number)
            self._characters.append(len(look.record.prompt) + max(map(len, look.record.responses)))
            self._words.append(max(of_responses))
        if self._tokens is None:
            counts = ((count_words(look.prompt), each) for look, each in zip(looks, words, strict=True))
        else:
            counts = self._tokens.count(looks)
        for look, count in zip(looks, counts, strict=True):
            if isinstance(count, RowProblem):
                self._refused.setdefault(str(count), []).append(look.record.number)
            else:
                self._take(look, *count)

    def finish(self) -> Found:
        """Figures and findings."""
        metrics: dict[str, Any] = {
            "read": len(self._rows),
            "unit": "words" if self._tokens is None else "tokens",
            "lengths": {
                "prompt": _quantiles(self._prompts),
                **{name: _quantiles(values) for name, values in self._responses.items()},
                "prompt and longest response": _quantiles(self._wholes),
            },
            "histogram": histogram(*map(np.asarray, self._responses.values())) if self._wholes else None,
        }
        findings = [*self._outliers(), *self._refusals()]
        if self._tokens is not None and (self._limits.max_length or self._limits.max_prompt_length):
            metrics["truncation"] = {
                "max_length": self._limits.max_length,
                "max_prompt_length": self._limits.max_prompt_length,
                **{f"{side}_cut": len(rows) for side, rows in self._cut.items()},
            }
            findings += self._truncated()
        return Found(metrics, findings)

    def _take(self, look: Look, prompt: int, responses: Sequence[int]) -> None:
        """Keep the lengths of a row and whether it would be cut."""
        longest = max(responses)
        if self._tokens is not None:
            limits = self._limits
            gaps = [
                length - limit
                for length, limit in ((prompt + longest, limits.max_length), (prompt, limits.max_prompt_length))
                if limit is not None
            ]
            if any(abs(gap) <= NEAR for gap in gaps):
                prompt, responses = self._tokens.exact(look) or (prompt, responses)
            if any(gap > -NEAR for gap in gaps):
                kept, cut = truncate([0] * prompt, [[0] * length for length in responses], limits)
                for side, is_cut in (
                    ("prompt", len(kept) < prompt),
                    ("response", any(len(ids) < length for ids, length in zip(cut, responses, strict=True))),
                ):
                    if is_cut:
                        self._cut[side].append(look.record.number)
        self._prompts.append(prompt)
        self._wholes.append(prompt + max(responses))
        for number, length in enumerate(responses):
            self._responses[self._names[min(number, len(self._names) - 1)]].append(length)

    def _outliers(self) -> list[Finding]:
        characters, words = np.frombuffer(self._characters, np.int64), np.frombuffer(self._words, np.int32)
        rows, findings = np.frombuffer(self._rows, np.int64), []
        limit, median = long_limit(characters.tolist())
        if (long := rows[characters > limit]).size:
            message = f"{_have(long)} more than {limit:,} characters, where the median row has {median:,}."
            findings.append(LONG_ROW.found(long.tolist(), message, example=self._example(long[0])))
        usual = float(np.median(words)) if words.size else 0.0
        short = rows[words < usual / SHORT_SHARE]
        if 0 < short.size <= HABIT * rows.size:
            message = f"{_have(short)} responses of less than a tenth of the usual {usual:.0f} words."
            findings.append(SHORT_ROW.found(short.tolist(), message, example=self._example(short[0])))
        return findings

    def _truncated(self) -> list[Finding]:
        rows = sorted({*self._cut["prompt"], *self._cut["response"]})
        if not rows:
            return []
        prompts, responses = (len(self._cut[side]) for side in ("prompt", "response"))
        limits = ", ".join(
            f"{name}={limit}"
            for name in ("max_length", "max_prompt_length")
            if (limit := getattr(self._limits, name)) is not None
        )
        share = len(rows) / max(1, len(self._rows))
        message = (
            f"{_have(rows)} more tokens than {limits} leaves room for ({share:.1%} of all): the prompt is cut in "
            f"{prompts:,}, a response in {responses:,}."
        )
        return [CUT.found(rows, message, example=self._example(rows[0]))]

    def _refusals(self) -> list[Finding]:
        rows = sorted(row for each in self._refused.values() for row in each)
        if not rows:
            return []
        reasons = "; ".join(f"{_have(each)} {reason}" for reason, each in self._refused.items())
        return [REFUSED_BY_TEMPLATE.found(rows, f"{reasons}.", example=self._example(rows[0]), drop=rows)]

    def _example(self, number: int) -> str:
        record = self._context.fetch([int(number)])[0]
        return shortened(max(record.responses, key=len))


class Tokens:
    """Numbers of tokens of prompts and responses."""

    def __init__(self, encoder: PairEncoder) -> None:
        self._encoder = encoder
        self._start = str(encoder.tokenizer.decode(encoder.start)) if encoder.start else ""

    def count(self, looks: Sequence[Look]) -> list[tuple[int, list[int]] | RowProblem]:
        """Tokens of each row's prompt and of each response, one call of the tokenizer for all distinct texts."""
        prompts: dict[int, str | RowProblem] = {}
        rendered = [self._prompt(look, prompts) for look in looks]
        texts = dict.fromkeys([each for each in rendered if isinstance(each, str)])
        texts |= dict.fromkeys(text for look in looks for text in look.responses)
        lengths = dict(zip(texts, map(len, self._encoder.encode(list(texts))), strict=True))
        return [
            prompt if isinstance(prompt, RowProblem) else self._row(look, prompt, lengths)
            for look, prompt in zip(looks, rendered, strict=True)
        ]

    def exact(self, look: Look) -> tuple[int, list[int]] | None:
        """Tokens as the trainers have them; None where they would refuse the row."""
        read, encoder = look.record.read, self._encoder
        assert read is not None
        try:
            texts = encoder.texts(read.prompt, read.responses, dict(look.record.row))
            prompt, responses = encoder.split(read, texts, encoder.encode(texts.all))
        except RowProblem:
            return None
        return len(prompt), list(map(len, responses))

    def _prompt(self, look: Look, known: dict[int, str | RowProblem]) -> str | RowProblem:
        """The prompt's text, of a conversation by the template."""
        assert look.record.read is not None
        prompt, row = look.record.read.prompt, dict(look.record.row)
        if not isinstance(prompt, list):
            return look.prompt
        key = hash((key_of(prompt), str(row.get("tools")), str(row.get("chat_template_kwargs"))))
        if key not in known:
            try:
                known[key] = self._encoder.template.prompt(prompt, row)
            except RowProblem as problem:
                known[key] = problem
        return known[key]

    def _row(self, look: Look, prompt: str, lengths: Mapping[str, int]) -> tuple[int, list[int]]:
        assert look.record.read is not None
        conversation = isinstance(look.record.read.prompt, list)
        there = conversation or prompt.startswith(self._start)
        start = 0 if there else len(self._encoder.start)
        end = len(self._encoder.closing) if conversation else 1
        return lengths[prompt] + start, [lengths[text] + end for text in look.responses]


def _quantiles(values: Sequence[int]) -> dict[str, float] | None:
    if not len(values):
        return None
    found = np.quantile(np.asarray(values), list(QUANTILES.values()))
    return {"mean": float(np.mean(values)), **dict(zip(QUANTILES, found.tolist(), strict=True))}


def _have(rows: Sequence[int] | np.ndarray) -> str:
    return f"{len(rows):,} row has" if len(rows) == 1 else f"{len(rows):,} rows have"


CHECKS: tuple[Callable[[Context], Check], ...] = (Columns, Lengths)
