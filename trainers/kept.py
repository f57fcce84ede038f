"""What comes after a training's last step can fail, and doesn't take the training with it: its weights come first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from transformers.utils import logging

from hf_align.model_cards import CardFacts, card_told
from hf_align.trainers.hub import HubTrainer
from hf_align.trainers.whole_checkpoints import WholeCheckpoints

logger = logging.get_logger(__name__)


class KeptTrainer(WholeCheckpoints, HubTrainer):
    """A Trainer that loses no finished training.

    A model is saved before its card, and a card that can't be written is told. If something else fails after the last
    step (an evaluation, a callback, what is measured for the model), a checkpoint is saved first.
    """

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as Trainer does; a checkpoint is saved if something fails after the last step."""
        try:
            return super().train(*args, **kwargs)
        except Exception as error:
            over = self.control.should_training_stop or self.state.global_step >= self.state.max_steps
            if self.is_in_train and over:
                self._keep_last_step(error)
            raise

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Save a checkpoint of the finished training if the block fails, so that a resumed run begins there."""
        try:
            yield
        except Exception as error:
            self._keep_last_step(error)
            raise

    def _keep_last_step(self, told: Exception) -> None:
        """Save a checkpoint of the last step, unless there is one, before an error is told."""
        step, best = self.state.global_step, self.args.load_best_model_at_end  # which is in a checkpoint
        folder = Path(self._get_output_dir(None)) / f"checkpoint-{step}"
        # In several processes one may have failed alone; it would wait for the others.
        if not step or best or folder.exists() or self.args.world_size > 1 or self.hp_search_backend is not None:
            return
        try:
            self._save_checkpoint(cast(Any, self.model), None)
        except Exception as error:
            if str(error) != str(told):  # which was about this checkpoint
                logger.warning(f"{folder}: the trained weights can't be saved either: {error}")
        else:
            logger.warning(f"The training is through: {folder} holds it, and a run that resumes there trains nothing.")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False, *, card: bool = True) -> None:
        """Save the model, then its card; what prevents the card is told in a warning.

        Args:
            output_dir: Default: the config's.
            card: Whether to write the card, too, and with `push_to_hub` to push both. False: `write_card` and
                `push_to_hub` follow.
        """
        super().save_model(output_dir, _internal_call=True)
        if not card or self._unfinished is not None:  # in a checkpoint
            return
        if self.args.should_save:
            self.write_card(output_dir or cast(str, self.args.output_dir))
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def write_card(self, folder: str | Path, **options: Any) -> CardFacts | None:
        """Write the card of the model saved in a folder; what prevents it is told in a warning.

        Args:
            folder: The model's folder.
            options: Arguments of `create_model_card` for this card.

        Returns:
            Its facts; None if there are none.
        """
        facts = None
        with card_told(folder):
            facts = self._facts(Path(folder), **options)
            self._save_card(Path(folder), facts)
        return facts
