"""How many optimizer steps a run has."""

from __future__ import annotations

from typing import Any

from hf_align.trainers.curriculum import Schedule, make_schedule, read_curriculum


def steps_of(args: Any, rows: int) -> int:
    """Optimizer steps of a run on so many rows."""
    if args.max_steps > 0:
        return args.max_steps
    if schedule := stages_of(args, rows):
        return schedule.steps
    if hasattr(args, "steps_per_rollout"):
        rollouts = -(-rows // (args.prompts_per_rollout * args.world_size))
        return int(rollouts * args.steps_per_rollout * args.num_train_epochs)
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return int(-(-rows // batch) * args.num_train_epochs)


def describe_steps(args: Any, steps: int, rows: int) -> str:
    """They in words: how many rows each takes, and how many responses are sampled."""
    if stages := stages_of(args, rows):
        return "; ".join(f"{each.steps} of {each.step_rows} rows on the easiest {each.rows}" for each in stages.stages)
    described = f"{steps}, of {args.per_device_train_batch_size * args.gradient_accumulation_steps} rows each"
    if (episodes := getattr(args, "total_episodes", None)) is None:
        return described
    sampled = steps // args.steps_per_rollout * args.responses_per_rollout * args.world_size
    rounded = f" (total_episodes is {episodes}, and rollouts are whole)" if sampled != episodes else ""
    return f"{described}; {sampled} responses are sampled{rounded}"


def stages_of(args: Any, rows: int) -> Schedule | None:
    """Stages of a reward model's curriculum, if it has one."""
    if (values := getattr(args, "curriculum", None)) is None:
        return None
    curriculum = read_curriculum(values, batch=args.per_device_train_batch_size)
    return make_schedule(curriculum, rows, accumulation=args.gradient_accumulation_steps, processes=args.world_size)
