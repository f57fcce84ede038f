"""Looking at preference data before training on it: the checks in the page's order over rows that are read once."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from hf_align.collators.checks import as_preferences
from hf_align.collators.judged import NEEDED, kind_of
from hf_align.data.inspection import agreement, contradictions, defects, duplicates, margins, size, splits
from hf_align.data.inspection.findings import Finding
from hf_align.data.inspection.records import BATCH, Check, Context, Record, record_of, records_of
from hf_align.data.inspection.result import Inspection
from hf_align.data.inspection.stored import Pages, stored
from hf_align.data.layouts.conversion import convert_rows
from hf_align.errors import LoadError, UserError, reason_of
from hf_align.numbers import number_problem
from hf_align.progress import Progress, Silent
from hf_align.version import versions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODULES: Mapping[str, ModuleType] = {
    "size": size,
    "defects": defects,
    "duplicates": duplicates,
    "contradictions": contradictions,
    "splits": splits,
    "agreement": agreement,
    "margins": margins,
}
"""The modules of checks by section, in the page's order."""
SEVERITIES = ("error", "warning", "note")


def inspect_preferences(
    dataset: Any,
    tokenizer: PreTrainedTokenizerBase | str | None = None,
    *,
    eval_dataset: Any = None,
    max_length: int | None = None,
    max_prompt_length: int | None = None,
    min_agreement: float = 0.7,
    min_margin: float = 0.2,
    seed: int = 0,
    progress: Progress | None = None,
) -> Inspection:
    """Look for what would spoil training on preference data, and for what is worth knowing about it.

    Rows are read once, in batches; of their texts only hashes and numbers are kept. The result depends on the
    arguments alone.

    Args:
        dataset: Pairs or rankings, or a layout that `to_preferences` recognises (row numbers are then those of the
            converted rows): a `Dataset`, a list of dicts, an `IterableDataset` (read once into a file), or a dictionary
            with one split.
        tokenizer: Of the model to train, or its name or folder: adds lengths in tokens, what truncation would cut and
            the checks of special tokens. Default: lengths in words.
        eval_dataset: Rows to evaluate on, in any such layout: looks for what both have.
        max_length: Tokens of prompt and response together, as for the trainers; None for no limit.
        max_prompt_length: Tokens of the prompt; None for no limit.
        min_agreement: Least share of agreeing pairs of people in a row.
        min_margin: Least margin of a row, from 0, on the scale of the margins.
        seed: Of bootstraps and samples.
        progress: Receiver of progress. Default: none.

    Returns:
        Findings, each with its kind, severity, rows, figures and fix; the rows without them.

    Raises:
        UserError: The data can't be read at all, or an option is out of its range. Rows that can't be used are
            findings.

    Example:
        >>> from hf_align.data import inspect_preferences
        >>> rows = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " too long."}]
        >>> inspect_preferences(rows).ok
        True
    """
    _check_options(min_agreement, min_margin, {"max_length": max_length, "max_prompt_length": max_prompt_length})
    progress = progress or Silent()
    folder = tempfile.TemporaryDirectory(prefix="hf-align-inspect-")
    pages = Pages()
    rows, converted = _preferences(dataset, "dataset", folder, pages)
    held_out = None if eval_dataset is None else _preferences(eval_dataset, "eval_dataset", folder, pages)[0]
    loaded = _load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
    context = Context(
        rows.column_names,
        len(rows),
        lambda numbers: _fetch(rows, numbers, pages),
        loaded,
        max_length,
        max_prompt_length,
        held_out,
        seed,
        min_agreement,
        min_margin,
    )
    metrics, findings = _run(rows, context, progress, pages)
    facts = {
        "rows": len(rows),
        "columns": rows.column_names,
        "layout": kind_of(rows.column_names),
        "converted": converted,
        "tokenizer": getattr(loaded, "name_or_path", None),
        "max_length": max_length,
        "max_prompt_length": max_prompt_length,
        "eval_rows": None if held_out is None else len(held_out),
        "min_agreement": min_agreement,
        "min_margin": min_margin,
        "seed": seed,
        "versions": versions(),
    }
    inspection = Inspection(findings, metrics, facts, rows)
    weakref.finalize(inspection.rows, folder.cleanup)  # a stream's rows are in it
    return inspection


def _check_options(min_agreement: float, min_margin: float, limits: Mapping[str, int | None]) -> None:
    if not 0 <= min_agreement <= 1:
        raise UserError(f"min_agreement is {min_agreement}; give a share from 0 to 1.")
    if number_problem(min_margin) or min_margin < 0:
        raise UserError(f"min_margin is {min_margin}; give a number from 0.")
    for name, limit in limits.items():
        if limit is not None and limit < 1:
            raise UserError(f"{name} is {limit}; give a number of tokens from 1.")


def _preferences(
    dataset: Any, name: str, folder: tempfile.TemporaryDirectory[str], pages: Pages
) -> tuple[Dataset, str]:
    """The rows as pairs or rankings, and what was recognised and left out if they were converted."""
    part = Path(folder.name, name)
    part.mkdir()
    rows = stored(dataset, name, part, pages)
    try:
        conversion = convert_rows(rows)
    except UserError as error:
        if not set(NEEDED[kind_of(rows.column_names)]) <= set(rows.column_names):
            raise UserError(f"{name}: {error}") from error
        return as_preferences(rows, name), ""  # the rows are bad, which is what the findings are for
    return as_preferences(conversion.rows, name), "" if conversion.layout.unchanged else str(conversion)


def _run(
    rows: Dataset, context: Context, progress: Progress, pages: Pages
) -> tuple[dict[str, dict[str, Any]], list[Finding]]:
    """Figures by section and findings in order."""
    checks: list[tuple[str, Check]] = [
        (section, check(context)) for section, module in MODULES.items() for check in module.CHECKS
    ]
    with progress.task("rows read", len(rows)) as advance:
        for records in records_of(rows):
            for _, check in checks:
                check.see(records)
            pages.release()
            advance(records[-1].number + 1, "")
    metrics: dict[str, dict[str, Any]] = {section: {} for section in MODULES}
    findings: list[Finding] = []
    count = len(checks)
    with progress.task("checks", count) as advance:
        while checks:
            section, check = checks.pop(0)  # what a finished one has kept isn't needed any more
            advance(count - len(checks) - 1, section)
            found = check.finish()
            del check
            metrics[section] |= found.metrics
            findings += found.findings
    place = {section: number for number, section in enumerate(MODULES)}
    return metrics, sorted(findings, key=lambda each: (place[each.section], SEVERITIES.index(each.severity)))


def _fetch(rows: Dataset, numbers: Sequence[int], pages: Pages) -> list[Record]:
    """Rows again, by their numbers."""
    records: list[Record] = []
    for start in range(0, len(numbers), BATCH):
        part = list(map(int, numbers[start : start + BATCH]))
        records += map(record_of, part, rows.select(part).to_list())
    pages.release()
    return records


def _load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer by name or folder; code of its own isn't run.

    Raises:
        LoadError: There is none, or it can't be read.
    """
    from transformers import AutoTokenizer  # a second and a half, which an inspection without a tokenizer saves

    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError, AssertionError) as error:
        reason = reason_of(error)
        if not Path(name).exists() and (name[:1] in "./~" or name.count("/") > 1):
            reason = "there is no such folder"
        if "custom code" in reason:
            reason = "it needs its own code, which is never run; use one that transformers supports"
        raise LoadError(f"Can't load a tokenizer from '{name}': {reason}", name) from error
