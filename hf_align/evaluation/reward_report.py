"""Report on a reward model: whether its scores order responses as people do, and can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_align.collators.checks import as_dataset
from hf_align.collators.rows import text_of
from hf_align.data.comparison_rows import STYLES, read_comparisons
from hf_align.data.comparisons import MAX_PAIRS, Comparisons
from hf_align.errors import UserError
from hf_align.evaluation.accuracy import measure_accuracy
from hf_align.evaluation.benchmark_rows import benchmark_facts, recognise, with_prompt
from hf_align.evaluation.best_of_n import measure_best_of_n
from hf_align.evaluation.calibration import measure_calibration
from hf_align.evaluation.changes import CHANGES, check_changes
from hf_align.evaluation.described import describe_model, open_model, remarks_on_model
from hf_align.evaluation.length import measure_length, measure_styles
from hf_align.evaluation.people import measure_people
from hf_align.evaluation.rank_agreement import measure_rank_agreement
from hf_align.evaluation.remarks import remarks_on
from hf_align.evaluation.report import RewardReport
from hf_align.evaluation.robustness import MOST_TEXTS, measure_robustness
from hf_align.evaluation.scorers import score_all, scorer_of
from hf_align.evaluation.subsets import measure_subsets
from hf_align.evaluation.uncertainty import ensemble_uncertainty
from hf_align.evaluation.worst_rows import worst_rows
from hf_align.models.ensemble import RewardEnsemble
from hf_align.models.placement import to_gpu
from hf_align.models.quantized import Quantization
from hf_align.models.scorer import load_scorer
from hf_align.models.uncertainty import PASSES
from hf_align.progress import Progress, Silent
from hf_align.statistics import Resampling


def reward_report(
    model: Any,
    dataset: Any,
    *,
    judge: Any = None,
    across_prompts: bool = False,
    output: str | int | None = None,
    chat_template: str | None = None,
    quantization: Quantization = None,
    scores: Sequence[Any] | None = None,
    min_gap: float = 0.0,
    styles: tuple[str, ...] = STYLES,
    changes: Sequence[str] = tuple(CHANGES),
    paraphrase: Callable[[list[str]], list[str]] | None = None,
    robustness_texts: int = MOST_TEXTS,
    dropout_passes: int = PASSES,
    max_pairs: int = MAX_PAIRS,
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> RewardReport:
    """Measure a reward model on people's preferences.

    Args:
        model: A `RewardModel`, a `RewardEnsemble` (which gets a further section, "uncertainty"), a `Scorer`, the folder
            or Hub id of any of them, any object with `score(prompts, responses)`, or a function as in `as_reward`; None
            with `scores`.
        dataset: Pairs, rankings, rated responses, or lists of chosen and rejected responses; see `read_comparisons`.
        judge: An independent judge for best-of-n: a reward model, or what `as_reward` takes. Default: people's scores,
            where rows have them.
        across_prompts: Compare rated responses to different prompts, too, within a subset. A reward model is trained to
            order responses to one prompt; its scores of responses to another need not compare.
        output: Name or number of the output that is the reward, for a model given by name that has several.
        chat_template: For a model given by name: as in `load_scorer`. Plain text of a benchmark that writes it as
            conversations gets the tokenizer's template if there is one, unless this is "none".
        quantization: Quantisation of a model given by name.
        scores: Stored scores instead of a model: for each row one number, or one for each of its responses (chosen
            before rejected). Without a model there is no robustness.
        min_gap: Pairs of people's scores that differ by no more are undecided.
        styles: Names of the styles, where rows have several.
        changes: Names of the changes for robustness (`hf_align.evaluation.changes.CHANGES`).
        paraphrase: A function that rewrites texts, for robustness.
        robustness_texts: Texts that are changed; 0 to leave robustness out. Each change scores them once more.
        dropout_passes: Passes with dropout for an ensemble's uncertainty; 0 to leave them out. Each scores all texts
            once more.
        max_pairs: Most pairs made of people's scores; with more, a sample is measured.
        resamples: Bootstrap resamples of the intervals.
        seed: Seed of all draws.
        progress: Receiver of progress. Default: none.

    Raises:
        UserError: A row, an option, the model or the judge can't be used; what needs no model is checked first.

    Example:
        >>> from hf_align.evaluation import reward_report
        >>> rows = [{"prompt": f"Film {n}?", "chosen": "A joy to watch.", "rejected": "Dull."} for n in range(20)]
        >>> report = reward_report(lambda prompts, responses: [float(len(text)) for text in responses], rows)
        >>> report.metrics["accuracy"]["accuracy"]
        1.0
    """
    progress = progress or Silent()
    _check(model, judge, scores, changes, min_gap, robustness_texts, dropout_passes, max_pairs, resamples)
    dataset = with_prompt(as_dataset(dataset, "data", ()))
    benchmark = recognise(dataset)
    data = read_comparisons(
        dataset, across_prompts=across_prompts, min_gap=min_gap, max_pairs=max_pairs, styles=styles, seed=seed
    )
    if not len(data.first):
        raise UserError(
            "data has no two responses to compare: rated responses are compared within a prompt, or with "
            "across_prompts=True within a subset."
        )
    name = model if isinstance(model, str) else None
    if isinstance(model, str):
        settings = {"output": output, "chat_template": chat_template, "quantization": quantization}
        model = open_model(model, data, benchmark, **settings)
    if scores is not None:
        given = _stored(scores, data)
    else:
        given = score_all(scorer_of(model), data.texts, progress, "scoring")[data.text_of]
    lengths, length_unit = _lengths(data, model)
    resampling = Resampling(data.units, resamples=resamples, seed=seed)
    metrics = _of_scores(data, given, lengths, _judged(judge, data, progress), resampling, seed)
    if model is not None and robustness_texts:
        metrics["robustness"] = measure_robustness(
            data,
            given,
            scorer_of(model),
            resampling,
            model=model,
            changes=changes,
            paraphrase=paraphrase,
            most_texts=robustness_texts,
            seed=seed,
            progress=progress,
        )
    if isinstance(model, RewardEnsemble):
        metrics["uncertainty"] = ensemble_uncertainty(
            data, given, model, resampling, passes=dropout_passes, seed=seed, progress=progress
        )
    facts = _facts(data, metrics) | {
        "resamples": resamples,
        "seed": seed,
        "min_gap": min_gap,
        "length_unit": length_unit,
        **describe_model(model, judge, data, name),
    }
    by_row = [given[entries].tolist() for entries in _entries_by_row(data)]
    if benchmark is not None:
        facts["benchmark"] = benchmark_facts(benchmark, dataset.to_list(), by_row)
    remarks = [*remarks_on(data, given, metrics, facts), *remarks_on_model(model, data, benchmark)]
    return RewardReport(metrics, facts, remarks, by_row)


def _check(
    model: Any,
    judge: Any,
    scores: Sequence[Any] | None,
    changes: Sequence[str],
    min_gap: float,
    robustness_texts: int,
    dropout_passes: int,
    max_pairs: int,
    resamples: int,
) -> None:
    if (model is None) == (scores is None):
        raise UserError("reward_report takes a model or stored scores; give one of the two.")
    if judge is not None and judge is model:
        raise UserError("judge is the model itself, which would agree with it; give an independent one.")
    for name, value, least in (
        ("min_gap", min_gap, 0),
        ("robustness_texts", robustness_texts, 0),
        ("max_pairs", max_pairs, 1),
        ("resamples", resamples, 1),
        ("dropout_passes", dropout_passes, 0),
    ):
        if value < least:
            raise UserError(f"{name} is {value}; give a number from {least}.")
    if dropout_passes == 1:
        raise UserError("dropout_passes is 1, and a deviation takes at least 2; give 2 or more, or 0 to leave it out.")
    check_changes(changes)


def _entries_by_row(data: Comparisons) -> list[NDArray[np.intp]]:
    """Each row's entries, in the order of its responses."""
    order = np.argsort(data.row_of, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(data.row_of[order])) + 1)


def _stored(scores: Sequence[Any], data: Comparisons) -> NDArray[np.float64]:
    """`[R]` scores of the entries from one number or list for each row."""
    entries_of = _entries_by_row(data)
    if len(scores) != len(entries_of):
        raise UserError(f"scores has {len(scores)} entries and data {len(entries_of)} rows; give one for each row.")
    values = np.empty(len(data.row_of))
    for row, (entries, given) in enumerate(zip(entries_of, scores, strict=True)):
        flat = np.asarray(_flat(given), dtype=float)
        if len(flat) != len(entries) or not np.isfinite(flat).all():
            raise UserError(f"scores: row {row} has {len(entries)} responses; give a finite number for each.")
        values[entries] = flat
    return values


def _flat(value: Any) -> list[float]:
    return [number for part in value for number in _flat(part)] if isinstance(value, list | tuple) else [value]


def _lengths(data: Comparisons, model: Any) -> tuple[NDArray[np.float64], str]:
    """`[R]` lengths of the responses in the model's tokens, or in words if it has no tokenizer."""
    texts = [text_of(response.text) for response in data.texts]
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return np.asarray([len(text.split()) for text in texts], dtype=float)[data.text_of], "words"
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return np.asarray([len(ids) for ids in encoded], dtype=float)[data.text_of], "tokens"


def _judged(judge: Any, data: Comparisons, progress: Progress) -> NDArray[np.float64] | None:
    """`[R]` the judge's scores."""
    if judge is None:
        return None
    judge = to_gpu(load_scorer(judge), None) if isinstance(judge, str) else judge
    return score_all(scorer_of(judge), data.texts, progress, "judging", "judge")[data.text_of]


def _of_scores(
    data: Comparisons,
    scores: NDArray[np.float64],
    lengths: NDArray[np.float64],
    judged: NDArray[np.float64] | None,
    resampling: Resampling,
    seed: int,
) -> dict[str, Any]:
    """The sections in the report's order, filled as far as `[R]` scores, lengths and a judge's scores do."""
    people = measure_people(data, scores, resamples=resampling.resamples, seed=seed)
    return {
        "accuracy": measure_accuracy(data, scores, resampling) | {"people": people},
        "tau": measure_rank_agreement(data, scores, resampling),
        "calibration": measure_calibration(data, scores, resampling, seed=seed),
        "robustness": None,
        "length": measure_length(data, scores, lengths, resampling)
        | {"styles": measure_styles(data, scores, resampling)},
        "subsets": measure_subsets(data, scores, resampling),
        "best_of_n": measure_best_of_n(data, scores, resampling, judged),
        "worst_rows": worst_rows(data, scores, lengths),
    }


def _facts(data: Comparisons, metrics: dict[str, Any]) -> dict[str, Any]:
    missing = {
        "tau": "pairs have no ranking: tau would be 2 x accuracy - 1"
        if data.layout in ("pairs", "lists")
        else "no prompt has two responses with people's scores",
        "robustness": "stored scores: there is no model to score changed texts, or it was left out",
        "subsets": "no column subset or domain",
        "best_of_n": "no judge was given, and no prompt has two responses with people's scores",
    }
    return {
        "layout": data.layout,
        "rows": len(np.unique(data.row_of)),
        "prompts": len(data.prompts),
        "responses": len(data.text_of),
        "texts": len(data.texts),
        "pairs": len(data.first),
        "candidate_pairs": data.candidates,
        "across_prompts": data.across_prompts,
        "unit": data.unit,
        "units": data.units,
        "skipped": data.skipped,
        "missing": {section: reason for section, reason in missing.items() if metrics[section] is None},
    }
