"""PPO's KL controller when a run is resumed."""

from __future__ import annotations

from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.rl.kl_controllers import FixedKLController

logger = logging.get_logger(__name__)


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
