"""Collection of a card's facts from a trainer."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from hf_align.algorithms import ALGORITHMS
from hf_align.model_cards.data import columns_of, data_statistics, dataset_ids, labels_of, read_columns
from hf_align.model_cards.evaluations import logged_evaluation, over_optimization_of, own_samples
from hf_align.model_cards.facts import CardFacts, Kind, as_evaluations, listed
from hf_align.model_cards.names import hub_id
from hf_align.model_cards.options import describe_loss, hyperparameters
from hf_align.model_cards.rewards import describe_rewards, rewards_of
from hf_align.report.render import duration
from hf_align.version import versions


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
