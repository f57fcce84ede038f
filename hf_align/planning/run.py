"""Checks and estimates of a run's data, model, memory and disk, without loading weights."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from datasets import Dataset
from peft import PeftConfig
from transformers import PreTrainedTokenizerBase

from hf_align.acceleration.registry import Setting, decide, describe
from hf_align.algorithms import Rows
from hf_align.collators.checks import read_rows
from hf_align.collators.demonstrations import read_demonstrations
from hf_align.collators.encoding import PairEncoder
from hf_align.errors import UserError
from hf_align.feedback.judges.named import NamedJudge
from hf_align.layout.branches import build_branches
from hf_align.models.ensemble_files import EnsembleSettings, ensemble_folder, member_sources
from hf_align.models.kinds import check_is_policy
from hf_align.models.reward_adapter import shares_base
from hf_align.models.sources import adapter_config, base_of, is_ensemble, load_tokenizer, plain_folder
from hf_align.planning import memory
from hf_align.rewards.named import read_reward
from hf_align.rewards.sources import check_named_models, named_models
from hf_align.rewards.vader import VADER
from hf_align.trainers.curriculum import Schedule, make_schedule, read_curriculum
from hf_align.trainers.dpo import check_reference
from hf_align.trainers.ensemble_config import EnsembleConfig
from hf_align.trainers.pairs import tokenized_pairs
from hf_align.trainers.reward_setup import check_task_options, config_of, prepare_comparisons
from hf_align.trainers.rollouts.data import check_room, prompts_of

Source = Mapping[str, Any]
"""Checked values of a recipe's source keys: model, data, reward and so on."""
SCORING = ("reward", "judge", "eval_judge")
"""Keys of a recipe whose models score responses, or compare them."""
Documents = list[tuple[list[int], list[list[int]]]]
"""Rows as token ids of prompts with their responses."""


@dataclass(frozen=True)
class Plan:
    """Needs of a run, compared with this machine.

    Attributes:
        lines: Names and figures to show.
        memory: Bytes of memory needed.
        disk: Bytes written and kept on disk.
        where: The device.
        free_memory: Free bytes on the device.
        free_disk: Free bytes on the output folder's disk.
    """

    lines: list[tuple[str, str]]
    memory: float
    disk: float
    where: str
    free_memory: int
    free_disk: int

    def check(self) -> None:
        """Refuse a run that doesn't fit into memory or on disk."""
        if self.memory > self.free_memory:
            raise UserError(
                f"this needs about {_size(self.memory)} of memory, and {_size(self.free_memory)} are free on "
                f"{self.where}; try quantization: 4bit, lora: true, gradient_checkpointing: true, or a smaller "
                "per_device_train_batch_size"
            )
        if self.disk > self.free_disk:
            raise UserError(
                f"output_dir: this writes about {_size(self.disk)}, and {_size(self.free_disk)} are free; set "
                "save_total_limit or choose another folder"
            )


def plan_run(kind: Rows, source: Source, args: Any, rows: Mapping[str, Dataset], lora: PeftConfig | None) -> Plan:
    """Check data and model, and estimate a run's resources.

    Args:
        kind: Kind of rows that the algorithm trains on.
        source: The recipe's `model`, `quantization` and so on, its reward resolved.
        args: The trainer's config.
        rows: `train_dataset` and perhaps `eval_dataset`.
        lora: The adapter that would be trained.

    Raises:
        UserError: A row can't be used, or the model or reward can't be loaded.
    """
    tokenizer = load_tokenizer(source["model"])
    trains_reward = args.checkpoint_kind == "reward"
    for name in () if trains_reward else ("model", "ref_model"):
        check_is_policy(source.get(name), name, ask_hub=True)
    if not getattr(args, "needs_reference", True) and source.get("ref_model") is not None:
        check_reference(args, "ref_model")
    if kind == "comparisons":
        check_task_options(args, config_of(source["model"], args).tasks)
    for key in SCORING:
        check_named_models(_reward_of(source.get(key)))
    documents = READERS[kind](rows, tokenizer, args)
    model = memory.outline(
        source["model"],
        reward=trains_reward,
        quantization=source["quantization"],
        lora=lora,
        frozen_layers=getattr(args, "freeze_layers", 0),
    )
    if source["quantization"] is not None and not model.is_adapter:
        raise UserError("A quantised model trains only through an adapter; give lora.")
    if kind == "prompts":
        check_room(model.model, args, *_tokenized_prompts(rows, tokenizer, args, source["reward"]).values())
    parts = memory_parts(source, args, model, documents)
    steps, (where, free) = _steps(args, len(documents)), memory.available_memory()
    folder = Path(args.output_dir).absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    disk, free_disk = _disk(model, args, steps), shutil.disk_usage(existing).free
    quantized = source["quantization"] is not None  # the outline's layers aren't quantised
    setting = Setting(args.uses, args.device.type, recomputes=args.recomputes, quantized=quantized)
    lengths = [len(prompt) + sum(map(len, responses)) for prompt, responses in documents]
    lines = [
        ("model", f"{model.name}, {_count(model.total)} weights, {_count(model.trained)} trained"),
        ("data", f"{len(documents)} rows, {fmean(lengths):.0f} tokens on average, {max(lengths)} at most"),
        *([] if getattr(args, "needs_reference", True) else [("reference", "none: the loss needs none")]),
        ("acceleration", describe(decide(model.model, setting, args.acceleration))),
        ("steps", _describe_steps(args, steps, len(documents))),
        *((f"memory: {part}", _size(size)) for part, size in parts.items()),
        ("memory, about", f"{_size(sum(parts.values()))}, with {_size(free)} free on {where}"),
        ("disk, about", f"{_size(disk)}, with {_size(free_disk)} free"),
    ]
    plan = Plan(lines, sum(parts.values()), disk, where, free, free_disk)
    return of_members(plan, args, len(documents), model) if isinstance(args, EnsembleConfig) else plan


def of_members(plan: Plan, args: EnsembleConfig, rows: int, model: memory.Outline) -> Plan:
    """The plan of an ensemble, given that of a member on all rows: one is trained at a time, and all are kept."""
    drawn = rows if args.bootstrap is None else round(args.bootstrap * rows)
    steps = f"{_steps(args, drawn)} of each member, of "
    lines = [
        (name, steps + text.partition(", of ")[2] if name == "steps" else text)
        for name, text in plan.lines
        if not name.startswith("disk")
    ]
    draws = "on all rows" if args.bootstrap is None else f"on about {drawn} rows each, drawn with replacement"
    lines.insert(2, ("members", f"{args.n}, one after another, {draws}"))
    kept = model.base_bytes + args.n * 4.0 * model.trained if model.is_adapter else args.n * 4.0 * model.total
    lines += [
        ("memory of all members, about", _size(kept)),
        ("disk, about", f"{_size(args.n * plan.disk)}, with {_size(plan.free_disk)} free"),
    ]
    return replace(plan, lines=lines, memory=max(plan.memory, kept), disk=args.n * plan.disk)


def _reward_of(scoring: Any) -> Any:
    """A reward, or the one that a judge of pairs goes by; None of other judges."""
    if not isinstance(scoring, NamedJudge):
        return scoring
    reward = scoring.values.get("reward")
    return None if reward in (None, VADER) else read_reward(reward)


def _pairs(rows: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase, args: Any) -> Documents:
    read = {name: tokenized_pairs(data, tokenizer, args, name) for name, data in rows.items()}
    return _documents(read["train_dataset"])


def _comparisons(rows: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase, args: Any) -> Documents:
    tasks = args.tasks or {}
    read = {name: prepare_comparisons(data, tokenizer, args, name, tasks) for name, data in rows.items()}
    return _documents(read["train_dataset"])


def _documents(rows: Dataset) -> Documents:
    return list(zip(rows["prompt_ids"], rows["response_ids"], strict=True))


def _tokenized_prompts(
    rows: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase, args: Any, reward: Any = None
) -> dict[str, Any]:
    return {name: prompts_of(data, reward, tokenizer, args, name) for name, data in rows.items()}


def _prompts(rows: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase, args: Any) -> Documents:
    """Prompts with responses of maximum length, since the real lengths are unknown before sampling."""
    read = _tokenized_prompts(rows, tokenizer, args)["train_dataset"]
    return [(prompt, [[0] * args.max_new_tokens] * args.num_samples) for prompt in read["prompt_ids"]]


def _demonstrations(rows: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase, args: Any) -> Documents:
    read = {name: read_demonstrations(data, name) for name, data in rows.items()}["train_dataset"]
    encoder, limit = PairEncoder(tokenizer), args.max_length

    def document(row: dict[str, Any]) -> tuple[list[int], list[list[int]]]:
        if "text" in row:
            whole = tokenizer(row["text"])["input_ids"][:limit]
        else:
            prompt, response = encoder.prompt_and_response(row["prompt"], row["completion"])
            whole = [*prompt, *response][:limit]
        return whole[:1], [whole[1:] or [0]]

    return read_rows(map(dict, read), document, "train_dataset")


READERS: dict[Rows, Callable[[Mapping[str, Dataset], PreTrainedTokenizerBase, Any], Documents]] = {
    "pairs": _pairs,
    "comparisons": _comparisons,
    "prompts": _prompts,
    "demonstrations": _demonstrations,
}
"""Functions that read and tokenise, by kind of rows."""


def memory_parts(source: Source, args: Any, model: memory.Outline, documents: Documents) -> dict[str, float]:
    """Bytes by purpose."""
    parts: dict[str, float] = {}
    if model.is_adapter:
        parts["weights"] = model.base_bytes
    training = memory.training_bytes(model.trained, str(args.optim.value), model.dtype)
    parts["trained weights, gradients, optimizer"] = training
    if source.get("ref_model") is not None:
        reference = memory.outline(source["ref_model"], quantization=source["quantization"], dtype=model.dtype)
        moves = getattr(args, "sync_ref_model", False)
        parts["reference"] = 4.0 * reference.total if moves else reference.base_bytes
    elif "ref_model" in source and not model.is_adapter and _keeps_reference(args):
        parts["reference"] = 4.0 * model.total
    elif getattr(args, "sync_ref_model", False):
        parts["reference"] = 4.0 * model.trained  # a second adapter
    if getattr(args, "value_model", None) == "separate":
        parts["value model"] = parts.get("weights", 0.0) + training
    if rewards := _reward_bytes(source.get("reward"), model):
        parts["reward model"] = rewards
    for key in ("judge", "eval_judge"):
        if size := _reward_bytes(source.get(key), model):
            parts[key.replace("eval_judge", "judge of evaluations")] = size
    rows, tokens = _largest_batch(args, documents)
    # Trainer has an old and a new name for this option.
    checkpointing = args.gradient_checkpointing or args.activation_checkpointing
    activations = memory.activation_bytes(model.model, rows, tokens, checkpointing=bool(checkpointing))
    parts[f"largest batch, {rows} x {tokens} tokens"] = activations
    if hasattr(args, "responses_per_rollout"):
        longest = max(len(prompt) for prompt, _ in documents) + args.max_new_tokens
        cache = memory.cache_bytes(model.text_config, args.responses_per_rollout, longest, model.dtype)
        # Sampling and training alternate: only the excess of the cache over a batch's activations counts.
        parts["keys and values while sampling, beyond that"] = max(0.0, cache - activations)
    return parts


def _keeps_reference(args: Any) -> bool:
    """Whether a trainer with a reference keeps it while it trains."""
    return getattr(args, "needs_reference", True) and not getattr(args, "precompute_ref_log_probs", False)


def _reward_bytes(reward: Any, policy: memory.Outline) -> float:
    """Bytes of reward models; functions take none, and an adapter on the policy's base needs no second base.

    Members of an ensemble that are adapters on one base, or heads on one, have it once.
    """
    total = 0.0
    if isinstance(reward, NamedJudge) and reward.kind == "model":
        quantization = reward.values.get("quantization")
        total += memory.outline(reward.values["model"], quantization=quantization, dtype=policy.dtype).base_bytes
    for source in named_models(_reward_of(reward)):
        bases: set[str] = set()
        heads = is_ensemble(source) and EnsembleSettings.read(ensemble_folder(source, weights=False)).kind == "heads"
        for name in member_sources(source):
            model = memory.outline(name, reward=True, dtype=policy.dtype)
            total += 4.0 * model.trained if model.is_adapter else 0.0
            adapter = adapter_config(plain_folder(name))
            base = source if heads else name if adapter is None else plain_folder(base_of(adapter, name))
            if base not in bases and not shares_base(policy.model, name):
                bases.add(base)
                total += model.base_bytes
    return total


def _largest_batch(args: Any, documents: Documents) -> tuple[int, int]:
    """Rows and tokens of the micro-batch with the longest rows of the data, laid out as the trainer does."""
    if getattr(args, "packing", False):
        return args.per_device_train_batch_size, args.max_length
    stages = _stages(args, len(documents))
    batch = max(stage.batch for stage in stages.stages) if stages else args.per_device_train_batch_size
    count = max(1, batch // getattr(args, "num_samples", 1))
    longest = sorted(documents, key=lambda each: len(each[0]) + sum(map(len, each[1])))[-count:]
    branches = build_branches(longest, pad_token_id=0, row_tokens=getattr(args, "row_tokens", None))
    if getattr(args, "layout", None) == "separate":
        branches = branches.as_separate()
    rows, tokens = branches.input_ids.shape
    return rows, tokens


def _steps(args: Any, rows: int) -> int:
    if args.max_steps > 0:
        return args.max_steps
    if schedule := _stages(args, rows):
        return schedule.steps
    if hasattr(args, "steps_per_rollout"):
        rollouts = -(-rows // (args.prompts_per_rollout * args.world_size))
        return int(rollouts * args.steps_per_rollout * args.num_train_epochs)
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return int(-(-rows // batch) * args.num_train_epochs)


def _describe_steps(args: Any, steps: int, rows: int) -> str:
    if stages := _stages(args, rows):
        return "; ".join(f"{each.steps} of {each.step_rows} rows on the easiest {each.rows}" for each in stages.stages)
    described = f"{steps}, of {args.per_device_train_batch_size * args.gradient_accumulation_steps} rows each"
    if (episodes := getattr(args, "total_episodes", None)) is None:
        return described
    sampled = steps // args.steps_per_rollout * args.responses_per_rollout * args.world_size
    rounded = f" (total_episodes is {episodes}, and rollouts are whole)" if sampled != episodes else ""
    return f"{described}; {sampled} responses are sampled{rounded}"


def _stages(args: Any, rows: int) -> Schedule | None:
    """Stages of a reward model's curriculum, if it has one."""
    if (values := getattr(args, "curriculum", None)) is None:
        return None
    curriculum = read_curriculum(values, batch=args.per_device_train_batch_size)
    return make_schedule(curriculum, rows, accumulation=args.gradient_accumulation_steps, processes=args.world_size)


def _disk(model: memory.Outline, args: Any, steps: int) -> float:
    """Bytes of the checkpoints kept at a time, and of the final model."""
    result = 4.0 * model.trained
    if args.save_strategy == "no":
        return result
    every = args.save_steps if args.save_steps >= 1 else max(1, round(args.save_steps * steps))
    checkpoints = min(args.save_total_limit or steps, max(1, int(steps // every)))
    if args.save_strategy == "epoch":
        checkpoints = min(args.save_total_limit or steps, max(1, int(args.num_train_epochs)))
    # A new checkpoint is written before the oldest is deleted.
    return result + (checkpoints + 1) * model.trained * (4.0 + memory.optimizer_bytes(str(args.optim.value)))


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.0f} MiB"


def _count(number: int) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
