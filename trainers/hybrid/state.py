"""What a hybrid run has done so far: `hybrid.json`, written whole before and after each stage."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import nn

from hf_align.data.fingerprint import fingerprints_of
from hf_align.data.parts import digest
from hf_align.errors import UserError
from hf_align.fields import as_written
from hf_align.files import ADAPTER_CONFIG, CONFIG, ENSEMBLE, write_json
from hf_align.models.fingerprint import fingerprint_of
from hf_align.trainers.checkpoints import RESUME, last_checkpoint
from hf_align.trainers.hybrid.config import HybridConfig, Shared
from hf_align.trainers.hybrid.plan import Planned
from hf_align.trainers.settings import options_of, plain, scorer_name

STATE = "hybrid.json"
RUNNING, DONE, LEFT_OUT = "running", "done", "left out"
OF_CONFIG = ("seed", "kl_budget", "kl_every", "kl_prompts", "kl_max_new_tokens")


class State:
    """The content of `hybrid.json`.

    Attributes:
        path: The file.
        content: `settings` (what the weights depend on), `stages` (a record of each that has begun: `number`,
            `algorithm`, `folder`, `status`, `hand_over`, and when it is done `steps`, `ended`, `evaluation`, ...) and
            `finished`.
    """

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path, self.content = path, content

    @classmethod
    def open(cls, folder: Path, settings: Mapping[str, Any], *, resume: bool) -> State:
        """Begin a run in a folder, or go on with the one in it.

        Raises:
            UserError: The folder holds another run, or none to go on with, or one with other settings.
        """
        path, settings = folder / STATE, json.loads(json.dumps(settings))
        if not path.exists():
            if resume:
                raise UserError(f"{RESUME}: {folder} has no hybrid run yet; leave it out to start.")
            results = any((folder / name).exists() for name in (ADAPTER_CONFIG, CONFIG, ENSEMBLE))
            if results or (folder.is_dir() and last_checkpoint(folder) is not None):
                raise UserError(f"output_dir: {folder} already holds a training run; choose another folder")
            state = cls(path, {"settings": settings, "stages": [], "finished": False})
            state.write()
            return state
        if not resume:
            raise UserError(
                f"output_dir: {folder} already holds a hybrid run; choose another folder, or resume it with "
                f"{RESUME}=True (--{RESUME} true)"
            )
        state = cls(path, json.loads(path.read_text(encoding="utf-8")))
        _check_same(state.content["settings"], settings, folder)
        return state

    def write(self) -> None:
        """Write the file, whole."""
        write_json(self.path, self.content)

    def record_of(self, number: int) -> dict[str, Any] | None:
        """The record of a stage that has begun, or None."""
        return next((each for each in self.content["stages"] if each["number"] == number), None)

    def put(self, record: dict[str, Any]) -> None:
        """Store a stage's record in place of its earlier one."""
        others = [each for each in self.content["stages"] if each["number"] != record["number"]]
        self.content["stages"] = sorted([*others, record], key=lambda each: each["number"])
        self.write()

    def check_start(self, model: nn.Module) -> None:
        """Note the weights that the run starts from, or refuse others than those that it began with."""
        found = start_digest(model)
        if self.content.setdefault("start", found) != found:
            raise UserError(f"{RESUME}: {_differs('model', None, None, self.path.parent)}")
        self.write()

    def finish(self) -> None:
        """Say that all is done."""
        self.content["finished"] = True
        self.write()

    @property
    def finished(self) -> bool:
        """Whether all is done."""
        return self.content["finished"]


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with other settings than those that a run began with."""
    stages, others = before["stages"], now["stages"]
    names = [[each["algorithm"] for each in each_of] for each_of in (stages, others)]
    if names[0] != names[1]:
        raise UserError(
            f"{RESUME}: the run in {folder} has the stages {', '.join(names[0])}, not {', '.join(names[1])}"
        )
    for key in before.keys() | now.keys():
        if key != "stages" and before.get(key) != now.get(key):
            raise UserError(f"{RESUME}: {_differs(key, before.get(key), now.get(key), folder)}")
    for number, (one, other) in enumerate(zip(stages, others, strict=True), start=1):
        flat, new = ({**each, **each["options"]} for each in (one, other))
        for key in sorted(flat.keys() | new.keys()):
            if key != "options" and flat.get(key) != new.get(key):
                place = f"stage {number} ({one['algorithm']})"
                raise UserError(f"{RESUME}: {place}: {_differs(key, flat.get(key), new.get(key), folder)}")


def _differs(key: str, before: Any, now: Any, folder: Path) -> str:
    if key in ("train_dataset", "eval_dataset", "model"):
        what = "weights" if key == "model" else "rows"
        return (
            f"{key} has other {what} than when the run in {folder} began; give the same, or choose another output_dir"
        )
    return f"the run in {folder} has {key} {before!r}, not {now!r}; give the same, or choose another output_dir"


def settings_of(config: HybridConfig, planned: Sequence[Planned], shared: Shared) -> dict[str, Any]:
    """What the weights of a run depend on, as JSON has it; rows by digest."""
    seen: dict[int, Any] = {}
    model = shared.model if isinstance(shared.model, str) else type(shared.model).__name__
    return {
        **{name: getattr(config, name) for name in OF_CONFIG},
        "model_name": model,
        "quantization": None if shared.quantization is None else str(shared.quantization),
        "peft_config": _adapter_settings(shared.peft_config),
        "stages": [_stage_settings(each, seen) for each in planned],
    }


def _stage_settings(each: Planned, seen: dict[int, Any]) -> dict[str, Any]:
    hand_over = each.hand_over
    return {
        "algorithm": each.algorithm.name,
        "options": options_of(each.args),
        "reference": hand_over.reference,
        "adapter": each.stage.adapter,
        "until": None if each.until is None else dataclasses.asdict(each.until),
        "lora": _adapter_settings(each.peft_config),
        **{name: _fingerprint(rows, seen) for name, rows in each.rows.items()},
        "scored_by": {name: scorer_name(value) for name, value in each.scoring.items()},
    }


def _adapter_settings(config: Any) -> Any:
    if config is None:
        return None
    values = {name: plain(as_written(value)) for name, value in config.to_dict().items()}
    return {name: value for name, value in values.items() if value not in (None, False, {}, [])}


def start_digest(model: nn.Module) -> str:
    """Digest of samples of a model's weights, and of all of its adapter's."""
    adapter: dict[str, str] = {}
    if isinstance(model, PeftModel):
        for name, tensor in get_peft_model_state_dict(model).items():
            content = tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            adapter[name] = hashlib.sha256(content).hexdigest()
    return digest([fingerprint_of(model).digest, adapter])


def _fingerprint(data: Any, seen: dict[int, Any]) -> Any:
    """Fingerprint of a data set; `seen` has those of data sets that other stages have, too."""
    if id(data) not in seen:
        seen[id(data)] = fingerprints_of(rows=data)
    return seen[id(data)]
