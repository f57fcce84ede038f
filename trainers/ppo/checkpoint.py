"""What PPO keeps in a checkpoint besides weights, optimizer and generators: the rollout and what was learnt from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.trainers.ppo.rollout import Rollout

if TYPE_CHECKING:
    from hf_align.trainers.ppo.trainer import PPOTrainer

logger = logging.get_logger(__name__)

STATE_FILE, ROLLOUT_FILE = "ppo_state.json", "rollout_{}.safetensors"


def save_state(trainer: PPOTrainer, folder: Path) -> None:
    """Write this process's rollout, if its steps aren't over, and the state that all processes share."""
    in_rollout = trainer.state.global_step % trainer.args.steps_per_rollout > 0
    if trainer.rollout is not None and in_rollout:
        trainer.rollout.save(folder / ROLLOUT_FILE.format(trainer.args.process_index))
    if trainer.args.should_save:
        state = {
            "shape": trainer.args.shape(),
            "kl_controller": trainer.kl_controller.state_dict(),
            "score_statistics": trainer.score_statistics.state_dict(),
        }
        (folder / STATE_FILE).write_text(json.dumps(state, indent=2) + "\n")


def load_state(trainer: PPOTrainer, folder: Path) -> None:
    """Take up what `save_state` wrote.

    Raises:
        UserError: If the folder is no checkpoint of PPO, or of another batch arithmetic.
    """
    path = folder / STATE_FILE
    if not path.exists():
        raise UserError(f"{folder} is no checkpoint of PPO: it has no {STATE_FILE}.")
    state = json.loads(path.read_text())
    for name, value in trainer.args.shape().items():
        if state["shape"][name] != value:
            raise UserError(
                f"The checkpoint was saved with {name}={state['shape'][name]}, not {value}; resume with that."
            )
    _load_controller(trainer, state["kl_controller"])
    trainer.score_statistics.load_state_dict(state["score_statistics"])
    trainer.rollout = None
    if trainer.state.global_step % trainer.args.steps_per_rollout:
        trainer.rollout = Rollout.load(folder / ROLLOUT_FILE.format(trainer.args.process_index))
        trainer.count_tokens(trainer.rollout)


def _load_controller(trainer: PPOTrainer, state: dict[str, float]) -> None:
    """Go on as the saved controller would have; say so where the options ask for something else."""
    asked = {name: value for name, value in trainer.kl_controller.state_dict().items() if name != "coef"}
    if asked.keys() | {"coef"} != state.keys():
        raise UserError(
            f"The checkpoint was saved with another kl_controller than '{trainer.args.kl_controller}'; resume with the "
            "same."
        )
    trainer.kl_controller.load_state_dict(state)
    if changed := [f"{name} {state[name]:g}, not {value:g}" for name, value in asked.items() if state[name] != value]:
        logger.warning(f"The KL controller goes on as it was saved, with {' and '.join(changed)}.")
