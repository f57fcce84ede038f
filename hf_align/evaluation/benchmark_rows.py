"""Rows of public reward-model benchmarks: recognised by their columns, scored by their formulas, written as they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from hf_align.collators.rows import text_of
from hf_align.errors import UserError
from hf_align.evaluation.benchmarks import SECTIONS, TIES, rewardbench, rewardbench2, rm_bench

Rows = Sequence[Mapping[str, Any]]
OF_RESULTS = ("prompt", "chosen", "rejected", "results", "scores_chosen", "scores_rejected")
"""Keys of RewardBench's output rows that aren't further columns."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark whose rows a data set has.

    Attributes:
        name: Its name.
        figures: Its figures from rows and scores, each row's in the order of `RewardReport.scores`.
        formula: How its overall figure is made, in words.
        conversations: Whether it writes plain text as conversations where the tokenizer has a chat template.
    """

    name: str
    figures: Callable[[Rows, Sequence[Any]], dict[str, Any]]
    formula: str
    conversations: bool = False


def recognise(rows: Dataset) -> Benchmark | None:
    """The benchmark whose columns these are; None for other data.

    Raises:
        UserError: A row of RewardBench 2 has another number of chosen responses than its `num_correct`.
    """
    columns = set(rows.column_names)
    if not len(rows) or not {"chosen", "rejected"} <= columns:
        return None
    chosen = rows[0]["chosen"]
    several = isinstance(chosen, list) and all(isinstance(part, str | list) for part in chosen)
    if several and {"id", "prompt", "subset", "num_correct", "total_completions"} <= columns:
        _check_correct(rows)
        return BENCHMARKS["RewardBench 2"]
    if several and {"prompt", "domain"} <= columns and len(chosen) == len(rows[0]["rejected"]) == STYLES:
        return BENCHMARKS["RM-Bench"]
    subsets = {subset for names in SECTIONS.values() for subset in names}
    if not several and "subset" in columns and set(rows.unique("subset")) <= subsets:
        return BENCHMARKS["RewardBench"]
    return None


def _check_correct(rows: Dataset) -> None:
    counts = [(len(chosen or ()), stated) for chosen, stated in zip(rows["chosen"], rows["num_correct"], strict=True)]
    if wrong := [number for number, (count, stated) in enumerate(counts) if count != stated]:
        count, stated = counts[wrong[0]]
        raise UserError(
            f"data: {len(wrong)} of RewardBench 2's rows have a num_correct that isn't the number of their chosen "
            f"responses (row {wrong[0]}: num_correct {stated}, {count} chosen); correct the column, or drop the rows."
        )


def with_prompt(rows: Dataset) -> Dataset:
    """Rows whose column `question` or `input` is called `prompt`, as RewardBench reads them."""
    names = set(rows.column_names)
    other = next((name for name in ("question", "input") if name in names), None)
    wanted = other is not None and "prompt" not in names and {"chosen", "rejected"} <= names
    return rows.rename_column(other, "prompt") if other and wanted and isinstance(rows[0]["chosen"], str) else rows


STYLES = 3
"""Responses of one content in a row of RM-Bench: concise, detailed, and detailed in Markdown."""


def _rewardbench(rows: Rows, scores: Sequence[Any]) -> dict[str, Any]:
    chosen, rejected = zip(*scores, strict=True)
    return rewardbench([row["subset"] for row in rows], chosen, rejected)


def _rewardbench2(rows: Rows, scores: Sequence[Any]) -> dict[str, Any]:
    columns = (["subset"], ["num_correct"], ["id"])
    subsets, correct, ids = ([row[name] for row in rows] for (name,) in columns)
    return rewardbench2(subsets, scores, correct, ids)


def _rm_bench(rows: Rows, scores: Sequence[Any]) -> dict[str, Any]:
    sides = [(list(row[:STYLES]), list(row[STYLES:])) for row in scores]
    chosen, rejected = zip(*sides, strict=True)
    return rm_bench([row["domain"] for row in rows], chosen, rejected)


BENCHMARKS = {
    each.name: each
    for each in (
        Benchmark(
            "RewardBench",
            _rewardbench,
            "Mean of its sections, each the mean of its subsets by rows (math-prm as 984); equal scores count 0.",
            conversations=True,
        ),
        Benchmark(
            "RewardBench 2",
            _rewardbench2,
            "Mean of its subsets: the best of four responses is the right one, ties shared; Ties by its own score.",
            conversations=True,
        ),
        Benchmark(
            "RM-Bench",
            _rm_bench,
            "Mean of its domains; hard: the worse response is in a fancier style, easy: in a plainer one; equal scores "
            "count 0.",
            conversations=True,
        ),
    )
}


def benchmark_facts(benchmark: Benchmark, rows: Rows, scores: Sequence[Any]) -> dict[str, Any]:
    """A benchmark's figures for a report.

    Returns:
        "name", "formula", "figures" (as in `hf_align.evaluation.benchmarks`) and "table": (name, share) rows.
    """
    figures = benchmark.figures(rows, scores)
    table = figure_table(benchmark, figures)
    return {"name": benchmark.name, "formula": benchmark.formula, "figures": figures, "table": table}


def figure_table(benchmark: Benchmark, figures: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(name, share or None) rows of a benchmark's figures, the overall one first."""
    if benchmark.name == "RM-Bench":
        parts = {"overall": figures["overall"], **figures["domains"]}
        return [
            (name if level == "average" else f"{name}, {level}", levels[level])
            for name, levels in parts.items()
            for level in ("average", "easy", "normal", "hard")
        ]
    rows = [("overall", figures["overall"]), *figures.get("sections", {}).items()]
    return rows + [(f"  {name}", value) for name, value in figures["subsets"].items()]


def gained(benchmark: Benchmark, rows: Rows, scores: Sequence[Any]) -> list[float]:
    """What each row counts in the benchmark: 1, 0, or a share of 1.

    RewardBench: the chosen one scores higher. RewardBench 2: the right one is the best of all, shared with equal ones;
    in Ties the worst right one scores above the best wrong one. RM-Bench: the share of its nine comparisons.
    """
    if benchmark.name == "RewardBench":
        return [float(chosen > rejected) for chosen, rejected in scores]
    if benchmark.name == "RM-Bench":
        return [sum(better > worse for better in row[:STYLES] for worse in row[STYLES:]) / STYLES**2 for row in scores]
    result = []
    for row, values in zip(rows, scores, strict=True):
        right, wrong = values[: row["num_correct"]], values[row["num_correct"] :]
        if str(row["subset"]).lower() == TIES:
            result.append(float(min(right) > max(wrong)))
        else:
            shared = sum(value == right[0] for value in values)
            result.append(1 / shared if right[0] == max(values) else 0.0)
    return result


def result_json(
    benchmark: Benchmark,
    rows: Rows,
    scores: Sequence[Any],
    *,
    model: str,
    chat_template: str,
    tokenizer: str | None = None,
) -> dict[str, Any]:
    """The result that RewardBench's script writes for a run, with its keys; `accuracy` is the mean over rows.

    Args:
        benchmark: The benchmark.
        rows: Its rows.
        scores: Each row's scores.
        model: Name of the model.
        chat_template: The template in which it read them.
        tokenizer: Name of the tokenizer. Default: the model's.
    """
    counted = gained(benchmark, rows, scores)
    figures = benchmark.figures(rows, scores)
    parts = figures.get("subsets") or {name: levels["average"] for name, levels in figures["domains"].items()}
    return {
        "accuracy": sum(counted) / len(counted),
        "num_prompts": len(counted),
        "model": model,
        "ref_model": None,
        "tokenizer": tokenizer or model,
        "chat_template": chat_template,
        "extra_results": parts,
    }


def output_rows(benchmark: Benchmark, rows: Rows, scores: Sequence[Any]) -> list[dict[str, Any]]:
    """One output for each row as RewardBench's script writes them: results, scores, texts and every further column."""
    result = []
    for row, values, counted in zip(rows, scores, gained(benchmark, rows, scores), strict=True):
        pair = benchmark.name == "RewardBench"
        split = 1 if pair else row.get("num_correct", STYLES)
        chosen, rejected = list(values[:split]), list(values[split:])
        result.append(
            {
                "prompt": text_of(row["prompt"]) if row.get("prompt") is not None else "",
                "results": counted,
                "scores_chosen": chosen[0] if pair else chosen,
                "scores_rejected": rejected[0] if pair else rejected,
                "text_chosen": _texts(row["chosen"]),
                "text_rejected": _texts(row["rejected"]),
                **{name: value for name, value in row.items() if name not in OF_RESULTS},
            }
        )
    return result


def _texts(side: Any) -> Any:
    """The text of a response, or those of a list of responses."""
    if isinstance(side, list) and not (side and isinstance(side[0], dict)):
        return [_texts(each) for each in side]
    return text_of(side)
