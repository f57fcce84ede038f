"""Checkpoint folders to resume from."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from hf_align.errors import UserError
from hf_align.models.kinds import is_classifier

Kind = Literal["policy", "reward", "ppo"]
TRAINERS: dict[Kind, str] = {"policy": "DPO, IPO or SFT", "reward": "a reward model's training", "ppo": "PPO"}
RESUME = "resume_from_checkpoint"


def check_checkpoint(chosen: str | os.PathLike[str] | bool, args: Any, place: str = RESUME) -> Path:
    """Refuse to resume from a folder that this trainer didn't save.

    Args:
        chosen: A folder, or True for the newest in `output_dir`.
        args: The trainer's config, with `checkpoint_kind`.
        place: The option that named the folder, for messages.

    Returns:
        The folder.

    Raises:
        UserError: There is none, it isn't a checkpoint, or it is another trainer's.
    """
    folder = Path(_newest(str(args.output_dir), place) if isinstance(chosen, bool) else chosen)
    if not (folder / TRAINER_STATE_NAME).is_file():
        why = f"it has no {TRAINER_STATE_NAME}" if folder.is_dir() else "there is no such folder"
        raise UserError(
            f"{place}: {folder} is not a checkpoint folder, {why}; name a checkpoint-N folder of a run, or leave it "
            "out to start."
        )
    kind, asked = _kind_of(folder), args.checkpoint_kind
    if kind is not None and kind != asked:
        raise UserError(f"{place}: {folder} is a checkpoint of {TRAINERS[kind]}; name one of {TRAINERS[asked]}.")
    return folder


def _newest(output_dir: str, place: str) -> str:
    newest = get_last_checkpoint(output_dir) if os.path.isdir(output_dir) else None
    if newest is None:
        raise UserError(f"{place}: {output_dir} has no checkpoint yet; leave it out to start.")
    return newest


def _kind_of(folder: Path) -> Kind | None:
    """The kind of training of a checkpoint, or None if its files don't tell."""
    if any((folder / name).exists() for name in ("ppo_state.json", "value_head.safetensors")):
        return "ppo"
    classifier = is_classifier(folder)
    return None if classifier is None else "reward" if classifier else "policy"


def last_checkpoint(directory: Path) -> Path | None:
    """Find the newest finished `checkpoint-N` folder, or None."""
    numbers = [
        (int(match[1]), path)
        for path in directory.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)) and (path / "trainer_state.json").exists()
    ]
    return max(numbers)[1] if numbers else None
