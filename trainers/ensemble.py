"""Training an ensemble of reward models: its members one after another, then all together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
from datasets import Dataset
from peft import PeftConfig
from transformers.utils import logging

from hf_align.data.comparison_rows import read_comparisons
from hf_align.data.fingerprint import fingerprints_of
from hf_align.errors import UserError
from hf_align.evaluation.accuracy import measure_accuracy
from hf_align.files import write_json
from hf_align.hub.push import check_repo_id, push_model
from hf_align.model_cards import card_told
from hf_align.model_cards.facts import Evaluation
from hf_align.model_cards.files import add_evaluations
from hf_align.models.aggregation import FITTED, RULES, aggregate
from hf_align.models.ensemble import RewardEnsemble
from hf_align.models.fitted_aggregation import LEAST_PROMPTS
from hf_align.models.quantized import Quantization
from hf_align.models.uncertainty import deviation
from hf_align.progress import Progress, Silent
from hf_align.statistics import Resampling
from hf_align.tracking import RunRecord
from hf_align.trainers.bagging import rows_by_prompt
from hf_align.trainers.checks import check_config_class, check_evaluation
from hf_align.trainers.config import Callbacks
from hf_align.trainers.ensemble_config import EnsembleConfig, Member, as_config, members_of
from hf_align.trainers.member_rows import EnsembleData
from hf_align.trainers.members import EnsembleTraining, TrainedMember
from hf_align.trainers.reward import RewardConfig

logger = logging.get_logger(__name__)

RESULTS = "ensemble_results.json"
"""File of figures in an ensemble's folder."""


def train_ensemble(
    model_id: str,
    args: RewardConfig,
    train_dataset: Dataset | list[dict[str, Any]],
    n: int = 4,
    bootstrap: float | None = 0.8,
    *,
    eval_dataset: Dataset | list[dict[str, Any]] | None = None,
    reference: Dataset | list[dict[str, Any]] | None = None,
    method: str = "mean",
    weights: Sequence[float] | None = None,
    uncertainty_coef: float = 1.0,
    trim: float = 0.2,
    vary: Mapping[str, Sequence[Any]] | None = None,
    early_stopping_patience: int | None = None,
    peft_config: PeftConfig | bool | None = True,
    quantization_config: Quantization = None,
    callbacks: Callbacks = None,
    progress: Progress | None = None,
) -> RewardEnsemble:
    """Train reward models one after another with `RewardTrainer`, and make an ensemble of them.

    Each has its own seed (`args.seed` plus its number) and its own bag of rows, and is normalised on one set, so that
    rewards compare. With LoRA they are adapters on one base, which is loaded once; all weights (`peft_config=None`), or
    adapters that change their base, are trained on a base that is loaded for each, never two at a time.

    `args.output_dir` becomes the ensemble's folder, with a folder for each member that loads alone, too
    (`load_reward_model`), figures in `ensemble_results.json`, and in `training/` the members' checkpoints and logs.
    A call that was stopped goes on when it is repeated: finished members are kept, an interrupted one resumes from its
    last checkpoint. A larger `n` adds members.

    Args:
        model_id: Hub id or folder of a language model or reward model.
        args: Options of each member's training.
        train_dataset: Pairs or rankings, as for `RewardTrainer`.
        n: Number of members.
        bootstrap: Each trains on this many times as many prompts as there are, drawn with replacement by its seed, each
            with all its rows (with fewer than 20 prompts: rows). None: on all rows.
        eval_dataset: Held-out rows. Without any, each member is evaluated on the rows that its bag left out.
        reference: Rows that all members are normalised on. Default: `eval_dataset`, or else up to 1,000 of the training
            rows, evenly spread.
        method: How the members' rewards become one; see `RewardEnsemble`. "dynamic" and "stacking" are fitted on half
            of the evaluation's prompts.
        weights: One for each member, for "mean" and "weight_average".
        uncertainty_coef: Coefficient of the variance, for "uncertainty_weighted".
        trim: Share of members left out at each end, for "trimmed_mean".
        vary: Lists of values in which members differ, by option of `RewardConfig`, of the adapter ("lora.r"), or
            "model"; member i gets value i, and a shorter list starts again.
        early_stopping_patience: Stop a member after this many evaluations without a better `metric_for_best_model`, and
            put its best weights back. Default: that of `args`.
        peft_config: A `LoraConfig`; True for the default (r=16, alpha=32, all linear layers), None to train all
            weights.
        quantization_config: "8bit", "4bit" or a `BitsAndBytesConfig` for the base.
        callbacks: As in `Trainer`; each member gets copies.
        progress: Shows a bar over members. Default: none, and Trainer's own bars.

    Raises:
        UserError: An argument or a row can't be used, or the folder's members were trained with other settings.
        KeyboardInterrupt: After Ctrl-C; the same call goes on.

    Example:
        >>> from hf_align import RewardConfig, train_ensemble
        >>> rows = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " too long."}]
        >>> model = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> ensemble = train_ensemble(model, RewardConfig("out", max_steps=1), rows, n=2, bootstrap=None)
        >>> len(ensemble.members), len(ensemble.score(["The film was"], [" a joy."]))
        (2, 1)
    """
    if not isinstance(model_id, str):
        raise UserError(
            f"model_id is a {type(model_id).__name__}; give a Hub id or folder: each member starts from it."
        )
    check_config_class(args, RewardConfig)
    if isinstance(args, EnsembleConfig):
        raise UserError("args is an EnsembleConfig, for recipes; give a RewardConfig, and n and so on as arguments.")
    config: EnsembleConfig = as_config(
        EnsembleConfig,
        args,
        n=n,
        bootstrap=bootstrap,
        method=method,
        weights=list(weights) if isinstance(weights, Iterable) else weights,
        uncertainty_coef=uncertainty_coef,
        trim=trim,
        vary=vary,
        early_stopping_patience=(
            args.early_stopping_patience if early_stopping_patience is None else early_stopping_patience
        ),
    )
    members = members_of(model_id, config, peft_config)
    data = EnsembleData.read(train_dataset, eval_dataset, reference)
    check_end(config, data.held_out)
    if config.method in FITTED and data.held_out is not None:
        check_held_out(config.method, data.held_out)
    training = EnsembleTraining(
        members,
        data,
        Path(config.output_dir or ""),
        bootstrap=bootstrap,
        quantization=quantization_config,
        callbacks=callbacks,
        progress=progress,
    )
    training.check()
    with recorded(config, data, members) as record:
        trained = training.run(record)
        return assemble(trained, config, data, quantization_config, progress or Silent(), record)


def recorded(
    config: EnsembleConfig, data: EnsembleData, members: Sequence[Member]
) -> AbstractContextManager[RunRecord | None]:
    """The ensemble's record, as a context that ends it; None on other processes and without `record`."""
    if not config.record or config.process_index:
        return nullcontext()
    sets = {"train": data.train, "eval": data.held_out, "reference": data.reference}
    return RunRecord.start(
        config.output_dir or "",
        "ensemble",
        config={"model": members[0].model, **config.to_dict()},
        data=fingerprints_of(**sets),
        base={"name": members[0].model},
        resume=True,
    )


def repository_of(config: EnsembleConfig) -> str:
    """Name of the repository that an ensemble is pushed to."""
    return config.hub_model_id or Path(config.output_dir or "").resolve().name


def check_end(config: EnsembleConfig, held_out: Any) -> None:
    """Refuse now what would fail after training: methods without rows to fit them on, a repository's invalid name.

    Raises:
        UserError: Names the option.
    """
    check_evaluation(config, held_out)
    if config.push_to_hub:
        check_repo_id(repository_of(config))
    if config.method in FITTED and held_out is None:
        raise UserError(f"method {config.method!r} is fitted on held-out rows; give eval_dataset.")


def check_held_out(method: str, rows: Dataset) -> None:
    """Refuse now held-out rows on which a method couldn't be fitted after training.

    Raises:
        UserError: They have too few prompts.
    """
    halves(rows)
    prompts = len(_prompt_groups(rows))
    if method == "dynamic" and (prompts + 1) // 2 < LEAST_PROMPTS:
        raise UserError(
            f"eval_dataset has {prompts} prompts; method 'dynamic' is fitted on half of them and needs at least "
            f"{LEAST_PROMPTS} there: give {2 * LEAST_PROMPTS} or more, or use method 'stacking'."
        )


def assemble(
    trained: Sequence[TrainedMember],
    config: EnsembleConfig,
    data: EnsembleData,
    quantization: Quantization,
    progress: Progress,
    record: RunRecord | None = None,
) -> RewardEnsemble:
    """Put trained members together, save the ensemble, measure it on held-out rows, and publish it."""
    folder = Path(config.output_dir or "")
    ensemble = RewardEnsemble(
        [each.folder for each in trained],
        config.method,
        config.weights,
        uncertainty_coef=config.uncertainty_coef,
        trim=config.trim,
        quantization=quantization,
    )
    if quantization is None:
        ensemble.to(config.device)
    results: dict[str, Any] = {
        "method": config.method,
        "members": [{"name": each.folder.name, **each.results} for each in trained],
    }
    rows = data.held_out
    if rows is not None and config.method in FITTED:
        to_fit, rows = halves(rows)
        ensemble.fit(to_fit)
    if config.process_index == 0:
        ensemble.save_pretrained(folder, beside_others=True)
    if rows is not None:
        of_all, of_members = measure(ensemble, rows)
        results |= of_all
        for each, figures in zip(results["members"], of_members, strict=True):
            each |= figures
    if config.process_index == 0:
        publish(folder, results, config, record)
    show(results, progress)
    return ensemble


def publish(folder: Path, results: Mapping[str, Any], config: EnsembleConfig, record: RunRecord | None) -> None:
    """Write what was measured beside the saved ensemble, into the run's record and the card, and push all."""
    write_json(folder / RESULTS, results)
    if record is not None:
        record_results(record, folder, results)
    if "accuracy" in results:
        low, high = map(float, results["accuracy_interval"])
        interval = (low, high) if math.isfinite(low) and math.isfinite(high) else None
        measured = Evaluation("accuracy", results["accuracy"], interval, results["rows"], "eval_dataset")
        with card_told(folder):
            add_evaluations(folder, [measured])
    if config.push_to_hub:
        push_model(
            folder,
            repository_of(config),
            base_model=config.hub_base_model,
            private=config.hub_private_repo,
            revision=config.hub_revision,
            token=config.hub_token,
            commit_message="Upload an ensemble with hf-align",
        )


def record_results(record: RunRecord, folder: Path, results: Mapping[str, Any]) -> None:
    """Record an ensemble as a checkpoint, in a stage of its own behind those of its members, with what it measures."""
    step = max(each["steps"] for each in results["members"])
    session = record.session("ensemble", prefix="rm", from_step=step)
    session.log(step, {f"eval_{name}": each for name, each in results.items() if isinstance(each, float)})
    session.checkpoint(folder, step, {"reward": str(folder)})
    session.end("finished")


def halves(rows: Dataset) -> tuple[Dataset, Dataset]:
    """Split rows in two by every other prompt: one half to fit on, the other to measure on.

    Raises:
        UserError: There is one prompt.
    """
    groups = _prompt_groups(rows)
    if len(groups) < 2:
        raise UserError("eval_dataset has one prompt; give more, half of which are fitted on and half measured.")
    first, second = (sorted(row for group in groups[start::2] for row in group) for start in (0, 1))
    return rows.select(first), rows.select(second)


def _prompt_groups(rows: Dataset) -> list[list[int]]:
    prompts = rows["prompt"] if "prompt" in rows.column_names else range(len(rows))
    return rows_by_prompt(map(repr, prompts))


def measure(ensemble: RewardEnsemble, rows: Dataset) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Accuracy on held-out rows, with its 95% interval, of an ensemble and of each member.

    Returns:
        The ensemble's figures, with the members' mean accuracy and its standard deviation over members, that of the
        members' scores of a response (the mean over responses), and how far their errors agree; and the members'.
    """
    compared = read_comparisons(rows, name="eval_dataset")
    prompts = [text.prompt for text in compared.texts]
    responses = [text.text for text in compared.texts]
    options = [text.options for text in compared.texts]
    scores = ensemble.member_scores(prompts, responses, rows=options)
    if ensemble.method in RULES:
        settings = {"trim": ensemble.trim, "uncertainty_coef": ensemble.uncertainty_coef}
        combined = aggregate(scores, ensemble.method, weights=ensemble.weights, **settings).tolist()
    else:
        combined = ensemble.score(prompts, responses, rows=options)
    resampling = Resampling(compared.units)
    figures = [
        measure_accuracy(compared, np.asarray(each)[compared.text_of], resampling)
        for each in (combined, *scores.tolist())
    ]
    of_all, *of_members = [{name: each[name] for name in ("accuracy", "accuracy_interval")} for each in figures]
    mean = fmean(each["accuracy"] for each in of_members)
    return {
        "rows": len(rows),
        "pairs": figures[0]["pairs"],
        **of_all,
        "mean_member_accuracy": mean,
        "member_accuracy_std": pstdev(each["accuracy"] for each in of_members),
        "std": float(deviation(scores).mean()),
        "error_correlation": ensemble.error_correlation(rows, "eval_dataset").to_json(),
    }, of_members


def show(results: Mapping[str, Any], progress: Progress) -> None:
    """Show a table of the members, and the ensemble below."""
    held_out = "accuracy" in results
    columns = ["member", "seed", "rows", "different", "varied"]
    lines = []
    for each in results["members"]:
        accuracy = each["accuracy"] if held_out else each["metrics"].get("accuracy")
        varied = ", ".join(f"{key} {value}" for key, value in each["varied"].items())
        counts = [f"{each[name]:,}" for name in ("rows", "different_rows")]
        lines.append([each["name"], str(each["seed"]), *counts, varied, "" if accuracy is None else f"{accuracy:.3f}"])
    if held_out:
        low, high = results["accuracy_interval"]
        blank = [""] * (len(columns) - 1)
        spread = f"{results['mean_member_accuracy']:.3f} ± {results['member_accuracy_std']:.3f}"
        lines.append(["mean of members", *blank, spread])
        lines.append([f"ensemble, {results['method']}", *blank, f"{results['accuracy']:.3f} ({low:.3f}-{high:.3f})"])
    where = "held out" if held_out else "on the rows that its bag left out"
    progress.table("members", [*columns, f"accuracy, {where}"], lines)
    correlation = results.get("error_correlation", {}).get("mean", math.nan)
    if not math.isnan(correlation):
        progress.line(f"   errors of two members correlate by {correlation:.2f} on average")
