"""Checkpoint folders to resume from."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Literal

from peft import PeftModel
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, logging

from hf_align.broken_files import broken_file
from hf_align.errors import UserError
from hf_align.fields import as_written
from hf_align.files import ADAPTER_CONFIG
from hf_align.models.kinds import is_classifier
from hf_align.trainers.same_run import read_settings

logger = logging.get_logger(__name__)

Kind = Literal["policy", "reward", "ppo", "online"]
TRAINERS: dict[Kind, str] = {
    "policy": "DPO, IPO or SFT",
    "reward": "a reward model's training",
    "ppo": "PPO",
    "online": "online DPO or IPO",
}
RESUME = "resume_from_checkpoint"
OPTIMIZERS = ("optimizer", "global_step")
"""Beginnings of the names of files or folders in which a checkpoint has the optimizer; the latter is DeepSpeed's."""
ADAPTER_SHAPE = (
    *("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "bias", "rank_pattern", "alpha_pattern"),
    *("target_modules", "modules_to_save"),
)
"""Fields of an adapter's config that its weights are meant for."""


def check_checkpoint(chosen: str | os.PathLike[str] | bool, args: Any, place: str = RESUME) -> Path:
    """Refuse to resume from a folder that this trainer didn't save.

    Args:
        chosen: A folder, or True for the newest in `output_dir` that is whole.
        args: The trainer's config, with `checkpoint_kind`.
        place: The option that named the folder, for messages.

    Returns:
        The folder.

    Raises:
        UserError: There is none, it isn't a checkpoint or not whole, or it is another trainer's.
    """
    folder = _newest(Path(str(args.output_dir)), place) if isinstance(chosen, bool) else Path(chosen)
    if not (folder / TRAINER_STATE_NAME).is_file():
        why = f"it has no {TRAINER_STATE_NAME}" if folder.is_dir() else "there is no such folder"
        raise UserError(
            f"{place}: {folder} is not a checkpoint folder, {why}; name a checkpoint-N folder of a run, or leave it "
            "out to start."
        )
    kind, asked = _kind_of(folder), args.checkpoint_kind
    if kind is not None and kind != asked:
        raise UserError(f"{place}: {folder} is a checkpoint of {TRAINERS[kind]}; name one of {TRAINERS[asked]}.")
    if (problem := checkpoint_problem(folder)) is not None:
        raise UserError(
            f"{place}: {folder} is broken: {problem}; name an earlier checkpoint-N folder, or give True for the newest "
            "that is whole."
        )
    if not any(path.name.startswith(OPTIMIZERS) for path in folder.iterdir()):
        raise UserError(
            f"{place}: {folder} has no optimizer, as save_only_model leaves it out, so its run can't go on; give the "
            "folder as the model to train on from its weights."
        )
    return folder


def check_is_not_start(folder: Path, model: str) -> None:
    """Refuse to resume from the folder that the model was loaded from too: its reference is the half-trained policy.

    Raises:
        UserError: They are the same folder.
    """
    if folder.resolve() == Path(model).resolve():
        raise UserError(
            f"{RESUME}: {folder} is also the model, so the half-trained policy would be the reference; give the model "
            "that the run started with."
        )


def check_adapter(model: Any, folder: str | os.PathLike[str]) -> None:
    """Refuse a checkpoint of another adapter than the model's, or of one where the other has none.

    Args:
        model: The model to train, without our wrapper.
        folder: The checkpoint.

    Raises:
        UserError: Names what differs.
    """
    place, file = f"{RESUME}: {folder}", Path(folder) / ADAPTER_CONFIG
    whole = any((Path(folder) / name).is_file() for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME))
    if not isinstance(model, PeftModel):
        if file.is_file():
            raise UserError(f"{place} has an adapter, and the model to train has none; resume with its peft_config.")
        return
    if not file.is_file():
        if whole:
            raise UserError(f"{place} has a whole model, and the one to train an adapter; leave peft_config out.")
        return
    saved, config = json.loads(file.read_text(encoding="utf-8")), model.peft_config["default"].to_dict()
    for name in ADAPTER_SHAPE:
        theirs, ours = (_comparable(values.get(name)) for values in (saved, config))
        if name in saved and theirs != ours:
            raise UserError(
                f"{place} has an adapter with {name}={theirs!r}, and the one to train has {ours!r}; resume with the "
                "peft_config that it was trained with."
            )


def _comparable(value: Any) -> Any:
    """A value of an adapter's config, whether read from JSON or not; lists of modules are sets."""
    return sorted(value, key=str) if isinstance(value, list | set | tuple) else as_written(value) or None


def _newest(output_dir: Path, place: str) -> Path:
    newest = last_checkpoint(output_dir)
    if newest is not None:
        return newest
    broken = next(reversed(checkpoints_in(output_dir)), None)
    if broken is None:
        raise UserError(f"{place}: {output_dir} has no checkpoint yet; leave it out to start.")
    raise UserError(
        f"{place}: {output_dir} has no checkpoint that is whole; the newest, {broken.name}, is broken: "
        f"{checkpoint_problem(broken)}. Start anew in another output_dir."
    )


def _kind_of(folder: Path) -> Kind | None:
    """The kind of training of a checkpoint, or None if its files don't tell."""
    if any((folder / name).exists() for name in ("ppo_state.json", "value_head.safetensors")):
        return "ppo"
    if (folder / "online_state.json").exists():
        return "online"
    classifier = is_classifier(folder)
    return None if classifier is None else "reward" if classifier else "policy"


def checkpoints_in(directory: Path) -> list[Path]:
    """The `checkpoint-N` folders of a run, whole or not, the newest last."""
    numbers = [
        (int(match[1]), path)
        for path in directory.glob("checkpoint-*")
        if path.is_dir() and (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    ]
    return [path for _, path in sorted(numbers)]


def last_checkpoint(directory: Path) -> Path | None:
    """The newest `checkpoint-N` folder that is whole, or None; newer ones that aren't are warned of."""
    for folder in reversed(checkpoints_in(directory)):
        if (problem := checkpoint_problem(folder)) is None:
            return folder
        logger.warning(f"{folder} is not resumed from: it is broken, {problem}. The one before it is looked at.")
    return None


def checkpoint_problem(folder: Path) -> str | None:
    """What is missing in a checkpoint or cut off, in words, or None if it is whole.

    Names and headers are looked at, not all content: it takes milliseconds, however large the weights are.
    """
    if not (folder / TRAINER_STATE_NAME).is_file():
        return f"it has no {TRAINER_STATE_NAME}"
    if (broken := broken_file(folder)) is not None:
        path, problem = broken
        return f"{path.relative_to(folder)}: {problem}"
    settings = read_settings(folder)
    missing = [name for name in (settings or {}).get("files", ()) if not (folder / name).is_file()]
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file():
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        missing += [name for name in sorted(set(shards)) if not (folder / name).is_file()]
    return f"{missing[0]} is missing" if missing else None
