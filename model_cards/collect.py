"""Collection of a card's facts from a trainer."""

from __future__ import annotations

import dataclasses
import math
import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.compute as pc
import torch
from peft import PeftModel
from transformers import TrainingArguments

from hf_align.algorithms import ALGORITHMS
from hf_align.files import finite
from hf_align.losses.registry import EVERY_OPTION, PREFERENCE_LOSSES
from hf_align.model_cards.facts import CardFacts, Evaluation, Kind, Labels, as_evaluations, listed
from hf_align.model_cards.names import hub_id
from hf_align.model_cards.render import metric_type
from hf_align.model_cards.rewards import describe_rewards, rewards_of
from hf_align.report.render import duration
from hf_align.statistics import wilson_interval
from hf_align.version import versions

SHOWN_OPTIONS = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "optim",
    "weight_decay",
    "max_grad_norm",
    "gradient_checkpointing",
    "bf16",
    "fp16",
    "seed",
)
HIDDEN_OPTIONS = {
    "acceleration",
    "curriculum",
    "hub_base_model",
    "dataset_num_proc",
    "logging_steps",
    "remove_unused_columns",
}
LABEL = "Label (P(first response better))"
NOT_RESULTS = ("runtime", "_per_second", "preparation_time", "epoch")


def collect_facts(
    trainer: Any,
    *,
    language: str | None = None,
    license: str | None = None,
    tags: str | Iterable[str] | None = None,
    model_name: str | None = None,
    finetuned_from: str | None = None,
    tasks: str | Iterable[str] | None = None,
    dataset_tags: str | Iterable[str] | None = None,
    dataset: str | Iterable[str] | None = None,
    dataset_args: str | Iterable[str] | None = None,
    evaluation: Any = None,
    samples: Iterable[Mapping[str, Any]] | None = None,
) -> CardFacts:
    """The facts about a trainer's model.

    Args:
        trainer: Any of ours, before, during or after training.
        language: ISO code or codes of the texts.
        license: The Hub's identifier.
        tags: More tags.
        model_name: Default: the last part of `hub_model_id`, else of `output_dir`.
        finetuned_from: Hub id of the base model. Default: `hub_base_model`, else the model's source.
        tasks: Task identifiers; default: the kind's own.
        dataset_tags: Hub ids of the training data. Default: the id it was downloaded from, if any.
        dataset: The training data in words.
        dataset_args: Its configuration.
        evaluation: Further figures besides those of `evaluate()`; see `as_evaluations`.
        samples: Rows with `prompt`, `after` and optionally `before` and `score`. Default: PPO's last `eval_samples`.
    """
    args, model = trainer.args, trainer.accelerator.unwrap_model(trainer.model)
    inner = model.model
    base, adapter = inner, None
    if isinstance(inner, PeftModel):
        base, adapter = inner.get_base_model(), inner.peft_config[inner.active_adapters[0]]
    reward = getattr(model, "reward_config", None)
    others = foreign_algorithm(trainer)
    kind: Kind = kind_of(model, args)
    if others and kind != "reward":
        kind = "model"
    ids = listed(dataset_tags) or dataset_ids(trainer.train_dataset)
    rows = read_columns(trainer.train_dataset, args)
    name = model_name or str(args.hub_model_id or Path(args.output_dir).resolve().name).split("/")[-1]
    return CardFacts(
        kind=kind,
        algorithm=others,
        name=name,
        base_model=finetuned_from or args.hub_base_model or hub_id(getattr(base, "name_or_path", None)),
        base_description=describe_model(base),
        library="peft" if adapter is not None else "transformers",
        adapter=None if adapter is None else adapter_settings(adapter),
        quantization=quantization_of(base),
        conversational=bool(getattr(trainer.processing_class, "chat_template", None)),
        head=reward.head if reward else "linear",
        pooling=reward.pooling if reward else "last",
        outputs=dict(reward.tasks) if reward else {},
        projection=bool(reward) and reward.projection,
        length_penalty=reward.length_penalty if reward else 0.0,
        normalization=normalization_of(model),
        rankings="ranks" in columns_of(rows),
        labels=labels_of(args, columns_of(rows)) if reward else "hard",
        own_class=bool(reward) and reward.is_plain and not model.is_plain,
        value_head=getattr(model, "value_model", None) if kind == "ppo" else None,
        rewards=rewards_of(trainer),
        language=listed(language),
        license=license,
        tags=[*listed(tags), *([others["name"]] if others else [])],
        tasks=listed(tasks),
        dataset_ids=ids,
        datasets=listed(dataset),
        dataset_args=listed(dataset_args),
        data=data_statistics(rows, getattr(trainer, "made_rows", {})),
        losses=[describe_loss(each) for each in getattr(args, "losses", [])],
        hyperparameters=hyperparameters(args),
        run=run_facts(trainer),
        over_optimization=over_optimization_of(trainer),
        evaluation=[
            *logged_evaluation(trainer, ids, reward.tasks if reward else ()),
            *as_evaluations(evaluation or []),
        ],
        samples=[dict(row) for row in samples] if samples is not None else own_samples(trainer),
        versions=versions(),
    )


def foreign_algorithm(trainer: Any) -> dict[str, str]:
    """Name and summary of the algorithm of a trainer that another package adds; empty for ours."""
    algorithm = ALGORITHMS.of_trainer(type(trainer))
    if algorithm is None or algorithm.name in ALGORITHMS.builtin:
        return {}
    return {"name": algorithm.name, "summary": algorithm.summary.rstrip(".")}


def kind_of(model: Any, args: Any) -> Kind:
    """Method that trains this model."""
    if hasattr(model, "reward_config"):
        return "reward"
    if getattr(args, "checkpoint_kind", None) == "ppo":
        return "ppo"
    if getattr(args, "checkpoint_kind", None) == "online":
        return "online-dpo"
    return "ipo" if getattr(args, "loss_types", None) == ["ipo"] else "dpo"


def normalization_of(model: Any) -> dict[str, Any] | None:
    """Reference set of a reward model's scores, as `reward_config.json` has it."""
    normalization = getattr(model, "normalization", None)
    return None if normalization is None else normalization.to_json()


def read_columns(data: Any, args: Any) -> Any:
    """Training rows with the columns that the trainer reads: of prompts all others are the reward's."""
    prompts_alone = getattr(args, "checkpoint_kind", None) in ("ppo", "online")
    return data.select_columns(["prompt_ids"]) if prompts_alone and "prompt_ids" in columns_of(data) else data


def columns_of(data: Any) -> set[str]:
    """Columns of tokenised training data, as far as they are known."""
    return set(getattr(data, "column_names", None) or ())


def labels_of(args: Any, columns: set[str]) -> Labels:
    """How a reward model's loss took people's judgement; Plackett-Luce takes only an order."""
    if args.label_mode == "draw" and columns & {"votes", "ratings"}:
        return "drawn"
    return "soft" if columns & {"label", "ratings"} and args.loss_type != "plackett_luce" else "hard"


def describe_model(base: Any) -> str:
    """Architecture and size in words, without LoRA and without the model's local source."""
    weights = (parameter for name, parameter in base.named_parameters() if ".lora_" not in name)
    # 4-bit weights are packed two to a byte, but store their shape.
    count = sum(math.prod((getattr(weight, "quant_state", None) or weight).shape) for weight in weights)
    size = f"{count / 1e9:.2g}B" if count >= 1e9 else f"{count / 1e6:.3g}M"
    kind = type(base).__name__.removeprefix("HfAlign")
    kind = kind.removesuffix("ForCausalLM").removesuffix("ForSequenceClassification")
    return f"a {kind} model with {size} parameters"


def adapter_settings(config: Any) -> dict[str, Any]:
    """The settings of a LoRA configuration to show."""
    names = ("r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save", "use_rslora", "use_dora")
    values = {name: getattr(config, name, None) for name in names}
    settings = {name: value for name, value in values.items() if value not in (None, False)}
    return {
        # module names without their paths, each once
        name: sorted({module.split(".")[-1] for module in value}) if isinstance(value, (set, list)) else value
        for name, value in settings.items()
    }


def quantization_of(base: Any) -> str | None:
    """ "8bit" or "4bit" if the base is quantised."""
    config = getattr(base.config, "quantization_config", None)
    if not getattr(base, "is_quantized", False) or config is None:
        return None
    return "4bit" if getattr(config, "load_in_4bit", False) else "8bit"


def hyperparameters(args: Any, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The usual options of `TrainingArguments`, then the fields of our config classes that are set and not idle.

    Args:
        args: The config.
        names: Fields to show instead of all.
    """
    of_trainer = {entry.name for entry in dataclasses.fields(TrainingArguments)}
    added_names = {entry.name for entry in dataclasses.fields(args)} - of_trainer
    usual = {name: getattr(args, name) for name in SHOWN_OPTIONS}
    del usual["num_train_epochs" if usual["max_steps"] > 0 else "max_steps"]
    if losses := getattr(args, "losses", []):
        added_names -= unread_options(args, losses)
    if not getattr(args, "sync_ref_model", False):
        added_names = {name for name in added_names if not name.startswith("ref_model_")}
    added_names -= {*HIDDEN_OPTIONS, *getattr(args, "idle_options", ())}
    added = {name: getattr(args, name) for name in names or sorted(added_names)}
    values = {name: getattr(value, "value", value) for name, value in (usual | added).items()}
    if losses:
        shown = [Path(each.name).name for each in losses]  # a function's file without its folder
        values["loss_type"] = shown if len(shown) > 1 else shown[0]
    return {
        name: value
        for name, value in values.items()
        if value is not None and value is not False and value not in ([], {})
    }


def describe_loss(loss: Any) -> dict[str, Any]:
    """What a card says of a loss on pairs; of a function of the user's its name, without its file's folder."""
    named = PREFERENCE_LOSSES.get(loss.name)
    if named is None:
        return {"title": Path(loss.name).name, "reference_free": loss.reference_free}
    return {name: getattr(named, name) for name in ("title", "formula", "paper", "arxiv", "reference_free")}


def unread_options(args: Any, losses: Sequence[Any]) -> set[str]:
    """Options at their default that none of these losses reads, as far as it is one of ours."""
    defaults = {entry.name: entry.default for entry in dataclasses.fields(args)}
    unread = {
        option
        for option in EVERY_OPTION
        if not any(each.reads(option) and not each.is_users for each in losses)
        and getattr(args, option, None) == defaults.get(option)
    }
    return unread if args.f_divergence_type == "alpha_divergence" else {*unread, "f_alpha_divergence_coef"}


def run_facts(trainer: Any) -> dict[str, Any]:
    """Hardware, duration and length of the training so far."""
    args, state = trainer.args, trainer.state
    facts: dict[str, Any] = {"Hardware": hardware(args)}
    if seconds := [entry["train_runtime"] for entry in state.log_history if "train_runtime" in entry]:
        facts["Time"] = duration(seconds[-1])
    facts["Steps"] = state.global_step
    if state.epoch and getattr(trainer, "stream", None) is None:
        facts["Epochs"] = round(float(state.epoch), 2)
    if left_out := [int(entry["nonfinite/step"]) for entry in state.log_history if "nonfinite/step" in entry]:
        facts["Steps with NaN or infinite numbers, not taken"] = ", ".join(map(str, left_out))
    warned = {name: entry["step"] for entry in state.log_history for name in entry if name.startswith("health/")}
    if warned:
        facts["Warnings of PPO, from step"] = ", ".join(
            f"{name.removeprefix('health/')} {step}" for name, step in warned.items()
        )
    if stages := getattr(trainer, "describe_curriculum", str)():
        facts["Curriculum"] = stages
    facts["Rows a step"] = args.per_device_train_batch_size * args.gradient_accumulation_steps * max(1, args.world_size)
    if rewards := describe_rewards(trainer):
        facts["Reward"] = ", ".join(rewards)
    if (judge := getattr(trainer, "judge", None)) is not None:
        facts["Judge"] = judge.name
    facts["Acceleration"] = trainer.describe_acceleration()
    if args.device.type == "cuda":
        facts["Peak memory"] = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB a GPU"
    return facts


def hardware(args: Any) -> str:
    """The accelerators of all processes, or the CPU cores."""
    if args.device.type == "cuda":
        return f"{args.world_size} × {torch.cuda.get_device_name()}"
    kind = "CPU" if args.device.type == "cpu" else args.device.type.upper()
    cores = f"{torch.get_num_threads()} threads, {platform.machine()}" if kind == "CPU" else platform.machine()
    processes = f"{args.world_size} processes, " if args.world_size > 1 else ""
    return f"{kind} ({processes}{cores})"


def data_statistics(data: Any, made: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Rows, lengths in tokens, labels, scores and margins of tokenised training data.

    Args:
        data: The rows; None or without columns gives nothing, and a stream its `first` rows.
        made: Of them, number of rows by the kind of augmentation that made them.
    """
    if data is None or not hasattr(data, "column_names"):
        return {}
    first = getattr(data, "first", None)
    facts: dict[str, Any] = {"Rows": len(data) if first is None else f"a stream; figures of its first {len(first):,}"}
    data = data if first is None else first
    if made:
        facts["Of these, made"] = ", ".join(f"{count:,} by {kind.replace('_', ' ')}" for kind, count in made.items())
    for label, lengths in token_lengths(data).items():
        middle, high, most = np.percentile(lengths, [50, 95, 100])
        facts[f"Tokens of a {label}"] = f"median {middle:.0f}, 95% below {high:.0f}, at most {most:.0f}"
    if "ranks" in data.column_names:
        facts |= ranking_statistics(data["ranks"][:])
    for column, label in (("label", LABEL), ("margin", "Margin")):
        if column in data.column_names:
            facts[label] = _summary(data[column][:])
    if "scores" in data.column_names:
        facts["Score"] = _summary([score for row in data["scores"] for score in row])
    return facts


def _summary(values: Any) -> str:
    """Mean and range of numbers; NaN doesn't count."""
    numbers = np.asarray(values, float)
    return f"mean {np.nanmean(numbers):.3g}, from {np.nanmin(numbers):.3g} to {np.nanmax(numbers):.3g}"


def ranking_statistics(ranks: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Responses of ranked prompts, and how many of them share a rank or aren't ranked."""
    counts = [len(row) for row in ranks]
    ranked = [[rank for rank in row if rank >= 0] for row in ranks]
    tied = sum(sum(row.count(rank) > 1 for rank in row) for row in ranked)
    facts: dict[str, Any] = {
        "Responses of a prompt": f"{min(counts)}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
    }
    if tied:
        facts["Responses that share a rank"] = f"{tied:,} of {sum(counts):,}"
    if unranked := sum(counts) - sum(map(len, ranked)):
        facts["Responses below all ranked ones"] = f"{unranked:,} of {sum(counts):,}"
    return facts


def token_lengths(data: Any) -> dict[str, np.ndarray]:
    """Lengths of the prompts and responses of tokenised rows; pairs have a chosen and a rejected response."""
    table, indices = data.data, getattr(data, "_indices", None)
    rows = np.arange(len(table)) if indices is None else indices.column(0).to_numpy()

    def lengths_of(column: Any) -> np.ndarray:
        return pc.list_value_length(column).to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]

    lengths_by_part = {}
    if "prompt_ids" in data.column_names:
        lengths_by_part["prompt"] = lengths_of(table.column("prompt_ids"))[rows]
    if "response_ids" in data.column_names:
        column = table.column("response_ids")
        counts, lengths = lengths_of(column), lengths_of(pc.list_flatten(column))  # type: ignore[attr-defined]
        if (counts == 2).all() and "ranks" not in data.column_names:
            lengths_by_part["chosen response"], lengths_by_part["rejected response"] = lengths.reshape(-1, 2)[rows].T
        else:
            of_rows = np.split(lengths, counts.cumsum()[:-1])
            lengths_by_part["response"] = np.concatenate([of_rows[row] for row in rows])
    return lengths_by_part


def dataset_ids(data: Any) -> list[str]:
    """Hub ids that a data set was downloaded from, as far as recorded."""
    sources = getattr(getattr(data, "info", None), "download_checksums", None) or {}
    prefix = "hf://datasets/"
    return sorted({name[len(prefix) :].split("@")[0] for name in sources if name.startswith(prefix) and "@" in name})


def logged_evaluation(trainer: Any, ids: list[str], tasks: Collection[str] = ()) -> list[Evaluation]:
    """The last value of every metric that `evaluate()` logged; shares of rows get Wilson's 95% interval.

    Shares of something else get none: of the pairs of rankings, of pairs without ties, of labels of `tasks`.
    """
    last: dict[str, float] = {}
    for entry in trainer.state.log_history:
        last.update({name: value for name, value in entry.items() if name.startswith("eval_")})
    parts = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else {"": trainer.eval_dataset}
    result = []
    for name, value in last.items():
        if any(name.endswith(ending) for ending in NOT_RESULTS) or not isinstance(value, (int, float)):
            continue
        metric = name.removeprefix("eval_")
        part = next((key for key in parts if key and metric.startswith(f"{key}_")), "")
        rows = len(parts[part]) if parts.get(part) is not None else None
        metric = metric.removeprefix(f"{part}_") if part else metric
        of_rows = not columns_of(parts.get(part)) & {"ranks", "label"} and metric.partition("/")[0] not in tasks
        share = metric_type(metric) == "accuracy" and rows and of_rows
        interval = wilson_interval(float(value), cast(int, rows)) if share else None
        words = f"held-out rows: {part}" if part else "held-out rows"
        result.append(Evaluation(metric, float(value), interval, rows, words))
    return result


def over_optimization_of(trainer: Any) -> dict[str, Any]:
    """Figures of the trainer's watch for over-optimisation; empty without one, or before its first evaluation."""
    return finite(getattr(getattr(trainer, "over_optimization", None), "figures", {}))


def own_samples(trainer: Any) -> list[dict[str, Any]]:
    """Samples of the last evaluation of a trainer that samples; by a judge, the score is the preference."""
    return [
        {
            # the last message of a conversation
            "prompt": prompt if isinstance(prompt := row["prompt"], str) else str(prompt[-1]["content"]),
            "after": row["response"],
            "score": round(row["reward"] if "reward" in row else row["win_rate"], 4),
        }
        for row in getattr(trainer, "eval_samples", None) or []
    ]
