"""What a checkpoint holds besides weights, optimizer and generators: the rollout, and the state of its trainer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_align.errors import UserError
from hf_align.files import write_json
from hf_align.trainers.rollouts.rollout import Rollout

ROLLOUT_FILE = "rollout_{}.safetensors"


def save_state(path: Path, state: Mapping[str, Any] | None, rollout: Rollout | None, process: int) -> None:
    """Write the shared state to `path`, and this process's rollout beside it, where not None."""
    if rollout is not None:
        rollout.save(path.parent / ROLLOUT_FILE.format(process))
    if state is not None:
        write_json(path, state)


def load_state(path: Path, shape: Mapping[str, int], method: str) -> dict[str, Any]:
    """Read the shared state that `save_state` wrote.

    Raises:
        UserError: The folder isn't a checkpoint of the method, or has other batch sizes than `shape`.
    """
    if not path.exists():
        raise UserError(f"{path.parent} is not a checkpoint of {method}: it has no {path.name}.")
    state = json.loads(path.read_text())
    for name, value in shape.items():
        if state["shape"][name] != value:
            raise UserError(
                f"The checkpoint was saved with {name}={state['shape'][name]}, not {value}; resume with that."
            )
    return state
