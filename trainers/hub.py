"""Model cards, `push_to_hub`, and pushes during training."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from huggingface_hub import CommitInfo, HfApi
from transformers import Trainer
from transformers.trainer_utils import HubStrategy
from transformers.utils import logging
from transformers.utils.hub import PushInProgress

from hf_align.hub.push import check_bases, check_repo_id, create_repo, stage_card, upload
from hf_align.hub.staging import base_models, name_bases, new_stage, stage_checkpoint, stage_model
from hf_align.model_cards import CardFacts, save_card
from hf_align.model_cards.collect import collect_facts
from hf_align.models.wrapper import unwrapped

logger = logging.get_logger(__name__)

LAST = "last-checkpoint"
HUB_BASE = "Hub id of the base model, for pushing an adapter trained on a local copy. None: its source."
"""Help of the `hub_base_model` field of all configs."""


class HubTrainer(Trainer):
    """A Trainer with full model cards, and with pushes that contain no local paths.

    Pushes are staged first and uploaded in one commit, so a failed push leaves both sides whole.
    """

    args: Any  # an AlignmentConfig, or SFTConfig
    _card_options: Mapping[str, Any] = MappingProxyType({})
    _last_api: HfApi | None = None

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
        *,
        evaluation: Any = None,
        samples: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        """Write README.md and its curves into `output_dir`; later saves and pushes use the same arguments.

        A README.md that you edited is kept: delete it to get a new one.

        Args:
            language: ISO code of the texts, such as "en".
            license: The Hub's identifier, such as "apache-2.0".
            tags: Further tags.
            model_name: Default: the last part of `hub_model_id`, else the name of the folder.
            finetuned_from: Hub id of the base model, if it was loaded from a local folder. Default: `hub_base_model`.
            tasks: Task identifiers. Default: "text-generation", or "text-classification" for a reward model.
            dataset_tags: Hub ids of the training data. Default: the id it was downloaded from.
            dataset: The training data in words.
            dataset_args: Its configuration.
            evaluation: Figures besides those of `evaluate()`: a dict of metric and value, or rows with `metric`,
                `value` and optionally `interval` (95%), `rows`, `dataset`, `dataset_id` and `split`.
            samples: Rows with `prompt`, `after`, and optionally `before` and `score`. Default: PPO's `eval_samples`.
        """
        given = {name: value for name, value in locals().items() if name != "self" and value is not None}
        self._card_options = {**self._card_options, **given}
        if self.is_world_process_zero():
            Path(self.args.output_dir).mkdir(parents=True, exist_ok=True)
            self._save_card(Path(self.args.output_dir), self._facts(Path(self.args.output_dir)))

    def _save_card(self, directory: Path, facts: CardFacts) -> None:
        """Write the card of the model just saved in `directory`."""
        save_card(directory, facts, self.state.log_history)

    def _facts(self, directory: Path, **options: Any) -> CardFacts:
        own_name = {} if self.args.hub_model_id else {"model_name": directory.resolve().name}
        return collect_facts(self, **{**own_name, **self._card_options, **options})

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Create the repository, and refuse now what would fail after training.

        Raises:
            UserError: The Hub refuses, or an adapter's base model is not on the Hub.
        """
        if not self.is_world_process_zero():
            return
        args = self.args
        name = args.hub_model_id or Path(args.output_dir).resolve().name
        check_repo_id(name)
        api = self._api(token)
        self._check_base(api)
        self.hub_model_id = create_repo(api, name, args.hub_private_repo if private is None else private)
        self.push_in_progress = None

    def _check_base(self, api: HfApi) -> None:
        """Stage only the adapter's settings, which determine whether others could load it."""
        model = unwrapped(self.accelerator.unwrap_model(self.model), keep_peft=True)
        configs = getattr(model, "peft_config", None)
        if not configs:
            return
        stage = new_stage(self.args.output_dir)
        try:
            configs[model.active_adapters[0]].save_pretrained(str(stage))
            name_bases(stage, Path(self.args.output_dir), self._base_model())
            check_bases(api, stage)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def _api(self, token: str | None = None) -> HfApi:
        """One client per token for all pushes, so that background pushes run one after another."""
        token = token or self.args.hub_token
        if self._last_api is None or self._last_api.token != token:
            self._last_api = HfApi(token=token)
        return self._last_api

    def _base_model(self) -> str | None:
        return self._card_options.get("finetuned_from") or self.args.hub_base_model

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Save the model and push it with its card to `hub_model_id`.

        Args:
            commit_message: Message of the commit.
            blocking: Whether to wait for the upload.
            token: Default: `hub_token`, else the one of `hf auth login` or HF_TOKEN.
            revision: Branch. Default: `hub_revision`, else main.
            private: Whether a new repository is private. Default: `hub_private_repo`, else the Hub's default.
            kwargs: Arguments of `create_model_card`.

        Returns:
            The commit's `CommitInfo`, or a future of it if not blocking; None on all processes but the first.

        Raises:
            UserError: The Hub or the connection fails: the saved model is whole, and the push can be repeated.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self._card_options = {**self._card_options, **kwargs}
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        push = self._staged_push(Path(self.args.output_dir), commit_message or "End of training", token, revision)
        return push() if blocking else self._api(token).run_as_future(push)

    def _staged_push(
        self,
        folder: Path,
        message: str,
        token: str | None = None,
        revision: str | None = None,
        checkpoint: str | None = None,
    ) -> Callable[[], CommitInfo]:
        """Stage the push; the returned function uploads it, directly or in a thread."""
        stage, repo_id = new_stage(self.args.output_dir), str(self.hub_model_id)
        try:
            stage_model(folder, stage, self._base_model())
            facts = self._facts(Path(self.args.output_dir))
            facts.base_model = base_models(stage).get(stage / "adapter_config.json") or facts.base_model
            stage_card(Path(self.args.output_dir), stage, facts, repo_id, self.state.log_history)
            if checkpoint is not None:
                stage_checkpoint(folder, stage / checkpoint, self._base_model())
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
        api, branch = self._api(token), revision or self.args.hub_revision
        replaced = [] if checkpoint is None else [f"{checkpoint}/*"]

        def push() -> CommitInfo:
            try:
                return upload(api, stage, repo_id, message, unchanged=folder, revision=branch, replaced=replaced)
            finally:
                shutil.rmtree(stage, ignore_errors=True)

        return push

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a checkpoint's model, and with `hub_strategy` "checkpoint" all of it, in the background."""
        strategy = self.args.hub_strategy
        if not self.is_world_process_zero() or strategy == HubStrategy.END:
            return
        running = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if running and not self.args.hub_always_push:
            return
        self._report_failed_pushes()
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        folder = Path(checkpoint_folder)
        names = {HubStrategy.CHECKPOINT: LAST, HubStrategy.ALL_CHECKPOINTS: folder.name}
        message = f"Training in progress, step {self.state.global_step}"
        try:
            push = self._staged_push(folder, message, checkpoint=names.get(strategy))
        except Exception as error:
            logger.warning(f"{folder} isn't pushed ({type(error).__name__}: {error}). Training continues.")
            return
        job = self._api().run_as_future(push)
        earlier = self.push_in_progress.jobs if running and self.push_in_progress is not None else []
        self.push_in_progress = PushInProgress([*earlier, job])  # type: ignore[arg-type]

    def _finish_current_push(self) -> None:
        """Wait for background pushes, and warn of failed ones: training continues without them."""
        super()._finish_current_push()
        self._report_failed_pushes()

    def _report_failed_pushes(self) -> None:
        current: Any = getattr(self, "push_in_progress", None)
        if current is None:
            return
        for job in list(current.jobs):
            if job.done():
                current.jobs.remove(job)
                if job.exception() is not None:
                    logger.warning(f"{job.exception()} Training continues; the next push catches up.")
