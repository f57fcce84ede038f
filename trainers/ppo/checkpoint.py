"""What a resumed run must have in common with the saved one: its baseline and its KL controller."""

from __future__ import annotations

import json
from pathlib import Path

from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.rl.kl_controllers import FixedKLController

logger = logging.get_logger(__name__)


def check_baseline(path: Path, baseline: str) -> None:
    """Refuse to resume a run with another baseline: with a value head or without one.

    Args:
        path: The checkpoint's file of the run's state; that it exists is checked where it is read.
        baseline: Baseline of the run that resumes.

    Raises:
        UserError: The saved run had another one.
    """
    saved = json.loads(path.read_text()).get("baseline", "value") if path.exists() else baseline
    if saved != baseline:
        raise UserError(
            f"The checkpoint {path.parent} was saved with baseline={saved!r}, not {baseline!r}; resume with that."
        )


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
