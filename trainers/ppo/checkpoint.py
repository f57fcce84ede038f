"""PPO's state in a checkpoint besides weights, optimizer and generators: the rollout, controller and statistics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.files import write_json
from hf_align.rl.kl_controllers import FixedKLController
from hf_align.trainers.ppo.rollout import Rollout

logger = logging.get_logger(__name__)

STATE_FILE, ROLLOUT_FILE = "ppo_state.json", "rollout_{}.safetensors"


def save_state(folder: Path, state: Mapping[str, Any] | None, rollout: Rollout | None, process: int) -> None:
    """Write the shared state and this process's rollout, where not None."""
    if rollout is not None:
        rollout.save(folder / ROLLOUT_FILE.format(process))
    if state is not None:
        write_json(folder / STATE_FILE, state)


def load_state(folder: Path, shape: Mapping[str, int]) -> dict[str, Any]:
    """Read the shared state that `save_state` wrote.

    Raises:
        UserError: The folder isn't a PPO checkpoint, or has other batch sizes than `shape`.
    """
    path = folder / STATE_FILE
    if not path.exists():
        raise UserError(f"{folder} is not a checkpoint of PPO: it has no {STATE_FILE}.")
    state = json.loads(path.read_text())
    for name, value in shape.items():
        if state["shape"][name] != value:
            raise UserError(
                f"The checkpoint was saved with {name}={state['shape'][name]}, not {value}; resume with that."
            )
    return state


def load_rollout(folder: Path, process: int) -> Rollout:
    """Read the rollout that `save_state` wrote for this process."""
    return Rollout.load(folder / ROLLOUT_FILE.format(process))


def load_controller(controller: FixedKLController, state: dict[str, float], name: str) -> None:
    """Let the controller continue as the saved one; warn if the options differ.

    Args:
        controller: Controller made from the options.
        state: State of the saved controller.
        name: The controller's name in the options, for the message.

    Raises:
        UserError: Another kind of controller was saved.
    """
    asked = {option: value for option, value in controller.state_dict().items() if option != "coef"}
    if asked.keys() | {"coef"} != state.keys():
        raise UserError(f"The checkpoint was saved with another kl_controller than '{name}'; resume with the same.")
    controller.load_state_dict(state)
    if changed := [f"{key} {state[key]:g}, not {value:g}" for key, value in asked.items() if state[key] != value]:
        logger.warning(f"The KL controller continues as saved, with {' and '.join(changed)}.")
