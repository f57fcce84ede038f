"""Training on responses that the policy samples itself, inside `Trainer.train`: what PPO and online DPO share.

training_step            every micro-batch
    make_rollout         the first of a rollout's steps: the subclass's `collect`
    train_on             the rollout that the steps to come train on
    mini_batch_of        which of its mini-batches this step takes (schedule)
    compute_loss         the subclass's loss on it
evaluate                 held-out prompts: evaluate.evaluate_policy, whose figures go to the watch for over-optimisation
_save_rng_state          the rollout goes into the checkpoint: checkpoint
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from datasets import Dataset
from peft import PeftConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from hf_align.collators import find_pad_token_id
from hf_align.errors import UserError
from hf_align.layout.branches import Branches, Document, build_branches
from hf_align.layout.compare import ROUNDING
from hf_align.layout.cost import Lengths
from hf_align.models.quantized import Quantization
from hf_align.models.randomness import random_state_kept
from hf_align.models.wrapper import BranchModel
from hf_align.rewards import Reward
from hf_align.rewards.reward import check_functions
from hf_align.rollouts import Engine, warn_of_open_turns
from hf_align.trainers.base import BranchTrainer
from hf_align.trainers.checks import check_policies
from hf_align.trainers.data import batches_of, check_tokens, parts_of
from hf_align.trainers.over_optimization import OverOptimizationCallback
from hf_align.trainers.rollouts.checkpoint import ROLLOUT_FILE, load_state, save_state
from hf_align.trainers.rollouts.config import RolloutConfig
from hf_align.trainers.rollouts.data import OWN_COLUMNS, Row, check_room, evaluation_rows, prompts_of, ready_scores
from hf_align.trainers.rollouts.evaluate import KL, KL_FROM_START, Measure, RewardMeasure, evaluate_policy
from hf_align.trainers.rollouts.processes import mean_everywhere
from hf_align.trainers.rollouts.roles import ModelRoles
from hf_align.trainers.rollouts.rollout import Rollout
from hf_align.trainers.rollouts.samples import report_samples
from hf_align.trainers.rollouts.schedule import Purpose, micro_batch_rows, mini_batch_of, prompt_numbers, seed_of
from hf_align.trainers.rollouts.stopwatch import Stopwatch
from hf_align.trainers.start_checks import agreement_bound, check_first_ratio, check_passes

logger = logging.get_logger(__name__)

PHASES = ("generate", "score", "update")


class RolloutTrainer(BranchTrainer):
    """A `BranchTrainer` whose rows are prompts and whose responses are sampled in the training step.

    A subclass fills in `collect`, `mini_batch_sizes`, `micro_batch` and `compute_loss`; it may add to `set_up`,
    `after_rollout`, `state_of_run`, `load_state_of_run` and `load_further_weights`. Its constructor sets `reward` and
    `eval_judge` first.

    Attributes:
        state_file: File of a checkpoint with the run's state besides the rollout.
        rollout_class: Class of its rollouts.
        trains_as_scored: Whether a micro-batch is one of the batches in which the rollout was scored. In another batch
            16-bit and quantised models round otherwise.
        reward: Scores responses, in training and evaluation: a `Reward`, or None where a judge does it instead;
            subclasses declare which.
        eval_judge: Scores the responses of evaluations for the watch for over-optimisation, or None.
        rollout: The current rollout, None before the first.
        rollout_engine: Sampling engine of training and evaluation: `args.rollout_engine`, or an `Engine` that you set.
        eval_samples: Prompt, response, reward and KL of the first rows of the last evaluation (of several data sets,
            of the last one); the folder `eval_samples` in the output keeps those of every evaluation.
        eval_rows: Figures of each row of the last evaluation, by metric.
    """

    args: RolloutConfig  # type: ignore[assignment]
    columns = "prompt"
    state_file: ClassVar[str]
    per_process: ClassVar[bool] = True  # rollouts, as are the shapes:
    fixed_options = ("num_ppo_epochs", "num_epochs", "num_mini_batches", "num_samples", "rollout_batch_size")
    rollout_class: type[Rollout] = Rollout
    trains_as_scored: ClassVar[bool] = True
    model: BranchModel  # type: ignore[assignment]
    reward: Any
    eval_judge: Reward | None
    rollout: Any

    # ---- steps that subclasses fill in ----

    def collect(self, model: nn.Module, rows: list[Row], number: int) -> tuple[Rollout, dict[str, Tensor]]:
        """Make rollout `number` from prompts of this process, and its metrics for `RowMetrics`."""
        raise NotImplementedError

    def after_rollout(self, rollout: Any, metrics: dict[str, Tensor]) -> None:
        """Learn from a rollout whose numbers are finite, before it is trained on."""

    def mini_batch_sizes(self, rollout: Any) -> Tensor:
        """`[num_mini_batches]` what each mini-batch's loss is a mean over, of this process."""
        raise NotImplementedError

    def micro_batch(self, rollout: Any, rows: slice) -> dict[str, Any]:
        """Inputs of `compute_loss` for these responses, with `branches` and their `old_logps` `[N]`."""
        raise NotImplementedError

    def state_of_run(self) -> dict[str, Any]:
        """What a checkpoint is to hold besides, as JSON."""
        return {}

    def load_state_of_run(self, state: dict[str, Any]) -> None:
        """Go on from what `state_of_run` gave."""

    def load_further_weights(self, checkpoint: str) -> None:
        """Load the weights that a checkpoint has beside the policy's."""

    # ---- set-up ----

    def hyperparameter_search(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse it: a trial would need its own reward, sampler and rollouts.

        Raises:
            UserError: Always.
        """
        raise UserError(
            f"{self.args.method} has no hyperparameter_search, since its reward, its reference and its rollouts belong "
            "to one run; make a trainer for each set of options (hf-align runs compares them)."
        )

    def check_arguments(self, model: Any, ref_model: Any, data_collator: Any) -> None:
        """Refuse models that aren't policies and a collator."""
        check_policies(model, ref_model)
        if data_collator is not None:
            raise UserError(f"data_collator must be None: {self.args.method} lays out its batches after sampling.")

    def prepare_rows(self, data: Any, tokenizer: PreTrainedTokenizerBase, name: str) -> Any:
        """Check and tokenise prompts; keep the columns that the reward asks for."""
        rows = prompts_of(data, self.reward, tokenizer, self.args, name)
        if self.eval_judge is not None and name == "eval_dataset":
            check_functions(self.eval_judge, [column for column in rows.column_names if column not in OWN_COLUMNS])
        return rows

    def default_collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[Any]], Any]:
        """Nothing to do: batches are laid out after sampling."""
        return list

    def check_room(self, model: BranchModel, *datasets: Any) -> None:
        """Refuse prompts that leave no room for a response."""
        check_room(model, self.args, *datasets)

    def set_up(self, ref_model: Any, peft_config: PeftConfig | None, quantization: Quantization) -> None:
        """Prepare reference and rewards, and start without a rollout."""
        args, tokenizer = self.args, cast(PreTrainedTokenizerBase, self.processing_class)
        if self.is_fsdp_enabled or is_deepspeed_zero3_enabled():
            raise UserError(
                f"{args.method} generates from whole weights: FSDP and ZeRO-3 shard them; use DDP, with LoRA and "
                "quantisation."
            )
        self.owns_attention = False  # sampling doesn't support the choice of attention
        self.pad_token_id = find_pad_token_id(tokenizer)
        if any(isinstance(part[0]["prompt"], list) for part in parts_of([self.train_dataset, self.eval_dataset])):
            warn_of_open_turns(self.model, tokenizer, args.stop_strings or ())
        self.reference = self.make_reference(ref_model, peft_config, quantization)
        self.reference.keep_start()
        self.reward = self.ready(self.reward)
        if self.eval_judge is not None:
            self.eval_judge = self.ready(self.eval_judge)
            self.add_callback(OverOptimizationCallback(args.stop_on_over_optimization, args.over_optimization_patience))
        self.rollout = None
        self.rollout_engine: str | Engine = args.rollout_engine
        self.eval_samples: list[dict[str, Any]] = []
        self.eval_rows: dict[str, Any] = {}
        self._start_loop()

    def ready(self, reward: Any) -> Any:
        """A reward with its models on the training device; None stays None."""
        if reward is None:
            return None
        tokenizer = cast(PreTrainedTokenizerBase, self.processing_class)
        return ready_scores(reward, self.model, tokenizer, self.args, lambda: self.accelerator.autocast())

    def _start_loop(self) -> None:
        self._micro = 0
        self._log_ratios: list[Tensor] = []
        self._stopwatch = Stopwatch(*PHASES)

    # ---- the loop: data of each step ----

    def get_train_dataloader(self) -> DataLoader:
        """Dummy batches, one per micro-batch of a pass over the prompts.

        Accelerate fetches batches ahead of the step that uses them, so rollouts are made in the training step.
        """
        args = self.args
        if self.train_dataset is None:
            raise UserError("train_dataset is missing; give a Dataset with prompt.")
        self._start_loop()  # a new run; an earlier one may have ended within a step
        rollouts = math.ceil(len(cast(Dataset, self.train_dataset)) / (args.prompts_per_rollout * args.world_size))
        micro_batches = rollouts * args.steps_per_rollout * args.gradient_accumulation_steps
        ticks = range(micro_batches * args.per_device_train_batch_size * args.world_size)
        loader = DataLoader(ticks, batch_size=args.per_device_train_batch_size, collate_fn=lambda ticks: {})  # type: ignore[arg-type]
        return self.accelerator.prepare(loader)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> None:
        return None  # unknown until the step's rollout exists

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Train on the next micro-batch; the first step of a rollout makes the rollout."""
        number, step = divmod(self.state.global_step, self.args.steps_per_rollout)
        micro, last = self._micro, self.accelerator.sync_gradients
        self._micro = 0 if last else micro + 1
        if step == 0 and micro == 0:
            self.train_on(self.make_rollout(model, number))
        rollout = self.rollout
        assert rollout is not None
        mini_batch = mini_batch_of(step, number, self.args)
        if rollout.stopped or self._is_empty[mini_batch]:
            # No gradients and no optimizer step: with zero gradients Adam would still move, and a scaler would raise.
            self.accelerator.gradient_state._set_sync_gradients(False)
            if last and (rollout.nonfinite or not rollout.stopped):
                self.leave_out_of_means()
            return torch.zeros((), device=self.args.device)
        batch = self.micro_batch(rollout, micro_batch_rows(mini_batch, micro, self.args))
        if rollout.first_output is not None:
            batch["output"], rollout.first_output = rollout.first_output, None
        with self._stopwatch.timed("update"):
            loss = super().training_step(model, batch, self._sizes[mini_batch])
        if last and self.args.early_stop_kl is not None:
            rollout.stopped = mean_everywhere(torch.cat(self._log_ratios), self.accelerator) > self.args.early_stop_kl
            self._log_ratios = []
        return loss

    def note_log_ratios(self, half_squares: Tensor) -> None:
        """Take the micro-batch's halved squared log-ratios to the rollout policy `[N]`, for `early_stop_kl`."""
        if self.args.early_stop_kl is not None:
            self._log_ratios.append(half_squares)

    def check_start(self, model: nn.Module, inputs: dict[str, Any]) -> None:
        """Refuse to train if a fresh pass gives the first update other log-probs than the rollout holds."""
        if not self._is_fresh:  # ratios are 1 before a rollout's first step only
            return
        if not self.args.disable_dropout:
            logger.info("start-up check: disable_dropout=False keeps dropout, so the first ratio isn't looked at.")
            return
        with torch.no_grad(), random_state_kept(self.args.device):
            logps = self.roles(model).policy(inputs["branches"])["logps"]
        check_first_ratio(logps, inputs["old_logps"], self.ratio_bound(model), self.accelerator)

    def ratio_bound(self, model: nn.Module) -> float:
        """Mean difference per token, in nats, that rounding may cause between a rollout and its first update."""
        exact = self.runner.is_exact(model)
        return agreement_bound(exact=exact) if exact or self.trains_as_scored else ROUNDING

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        # Not synchronised: the step is skipped.
        return super()._get_grad_norm(model, grad_norm=grad_norm) if self.accelerator.sync_gradients else 0.0

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        return super()._clip_grad_norm(model) if self.accelerator.sync_gradients else torch.zeros(())

    # ---- rollouts ----

    def make_rollout(self, model: nn.Module, number: int) -> Rollout:
        """Make rollout `number`, ready for training."""
        model.train()  # scored in training mode
        rollout, metrics = self.collect(model, self.rows_of(number), number)
        if rollout.nonfinite:
            self.meet_nonfinite(list(rollout.nonfinite), f"rollout {number}", rollout.reward_error)
            return rollout
        self._train_metrics.add(metrics)
        self.after_rollout(rollout, metrics)
        return rollout

    def rows_of(self, number: int) -> list[Row]:
        """This process's prompts of rollout `number`, in an order by `data_seed`, or else `seed`."""
        args, data = self.args, cast(Dataset, self.train_dataset)
        count = args.prompts_per_rollout
        first = (number * args.world_size + args.process_index) * count
        seed = seed_of(args.order_seed, Purpose.PROMPTS)
        return [data[row] for row in prompt_numbers(first, count, len(data), seed)]

    def train_on(self, rollout: Rollout) -> None:
        """Use this rollout in the steps until the next one, whatever its origin."""
        self.rollout = rollout
        # Of each mini-batch over all processes, to weight its micro-batches.
        sizes = self.mini_batch_sizes(rollout).to(self.args.device, torch.float32)
        self._sizes = cast(Tensor, self.accelerator.reduce(sizes, "sum"))
        self._is_empty = (self._sizes == 0).tolist()

    def roles(self, model: nn.Module) -> ModelRoles:
        """Roles for making rollouts, with `model` the policy as in the training step."""
        engine, tokenizer = self.rollout_engine, cast(PreTrainedTokenizerBase, self.processing_class)
        return ModelRoles(model, self.reference, self.reward, engine, tokenizer, self.runner)

    def lay_out(self, rollout: Rollout, rows: slice) -> Branches:
        """The rows' responses as one batch for the model."""
        return rollout.branches(rows, pad_token_id=self.pad_token_id, row_tokens=self.args.row_tokens)

    def batch_lengths(self, rows: Any, size: int, *, training: bool) -> list[list[Lengths]]:
        """Lengths with responses of maximum length, laid out as in `Rollout.branches`."""
        together = math.gcd(size, self.args.num_samples) if training else 1
        responses = [self.args.max_new_tokens] * together
        return batches_of([(len(ids), responses) for ids in rows["prompt_ids"]], size // together)

    def document_of(self, row: dict[str, Any]) -> Document:
        """A prompt with responses as long as they may be, of the prompt's own tokens: what lengths are checked on."""
        ids, length = list(row["prompt_ids"]), self.args.max_new_tokens
        response = (ids * (length // len(ids) + 1))[:length]
        return ids, [response, response[::-1]][: self.args.num_samples]

    # ---- logs ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the metrics since the last log."""
        if "loss" in logs:
            logs.update({f"time/{name}": share for name, share in self._stopwatch.shares().items()})
            rollouts = -(-self.state.global_step // self.args.steps_per_rollout)
            logs["episode"] = rollouts * self.args.responses_per_rollout * self.args.world_size
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """6 operations per parameter and token; generation and scoring are not counted."""
        rollout = self.rollout
        if rollout is None or rollout.stopped:
            return 0
        tokens = sum(len(ids) for ids in (*rollout.prompt_ids, *rollout.response_ids))
        micro_batches = self.args.num_mini_batches * self.args.gradient_accumulation_steps
        return 6 * tokens // micro_batches * sum(p.numel() for p in self.model.parameters())

    # ---- evaluation ----

    def measure(self, roles: ModelRoles) -> Measure:
        """What an evaluation says of responses: by default the reward's scores."""
        return RewardMeasure(self.reward)

    @property
    def over_optimization(self) -> OverOptimizationCallback | None:
        """The watch for over-optimisation; Trainer may replace it when a run is resumed."""
        callbacks = self.callback_handler.callbacks
        return next((each for each in callbacks if isinstance(each, OverOptimizationCallback)), None)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Sample a response to each prompt: reward, KL, length and EOS share, and `eval_samples` shown and reported.

        Args:
            eval_dataset: Rows as in `eval_dataset` of the trainer, or a dict of such data sets. Default: the trainer's.
            ignore_keys: Not used.
            metric_key_prefix: Prefix of the metrics' names.
        """
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        data = self.eval_dataset if eval_dataset is None else eval_dataset
        # For a dict, this was called for each data set.
        if not isinstance(data, dict) and self.eval_samples and self.is_world_process_zero():
            folder, callbacks = Path(cast(str, self.args.output_dir)), self.callback_handler.callbacks
            report_samples(self.eval_samples, folder, metric_key_prefix, self.state.global_step, callbacks)
        return metrics

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Sample a response to each prompt and score it; the samples are the same at every evaluation."""
        data: Any = dataloader.dataset
        if not any(data is part for part in parts_of([self.eval_dataset])):
            tokenizer = cast(PreTrainedTokenizerBase, self.processing_class)
            data = evaluation_rows(data, self.reward, tokenizer, self.args)
            check_room(self.model, self.args, data)
            check_tokens(self.model, tokenizer, eval_dataset=data)
        self._evaluated, longest = data, self.longest_of(data)
        self.runner.expect(longest)
        model = cast(nn.Module, self.model_wrapped)

        def after_batch() -> None:
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)

        training = model.training
        model.train()  # scored as in training: without dropout the mode only affects quantised kernels
        if self.args.disable_dropout and not self._has_trained:  # else the start of the training has looked
            check_passes(self.runner, [model], build_branches(longest, pad_token_id=0).to(self.args.device))
        roles = self.roles(model)
        measure = self.measure(roles)
        evaluated = evaluate_policy(
            data,
            self.args,
            roles,
            measure,
            judge=self.eval_judge,
            start=roles.start if self.reference.keeps_start else None,
            accelerator=self.accelerator,
            pad_token_id=self.pad_token_id,
            prefix=metric_key_prefix,
            compute_metrics=self._user_metrics,
            after_batch=after_batch,
        )
        model.train(training)
        self.eval_samples, self.eval_rows = evaluated.samples, evaluated.rows
        if (watch := self.over_optimization) is not None and self.is_in_train and data is self.eval_dataset:
            kl = KL_FROM_START if self.reference.keeps_start else KL
            figures = [self.eval_rows[name] for name in (kl, measure.names[0], "judge")]
            watch.record(self.state.global_step, *figures)
        return evaluated.output

    # ---- checkpoints ----

    def _save_rng_state(self, output_dir: str) -> None:
        """Save this process's state besides weights and optimizer."""
        super()._save_rng_state(output_dir)
        args = self.args
        state = {"shape": args.shape(), **self.state_of_run()} if args.should_save else None
        rollout = self.rollout if self._in_rollout else None
        save_state(Path(output_dir) / self.state_file, state, rollout, args.process_index)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        folder, args = Path(checkpoint), self.args
        self.load_state_of_run(load_state(folder / self.state_file, args.shape(), args.method))
        self.rollout = None
        if self._in_rollout:
            self.train_on(self.rollout_class.load(folder / ROLLOUT_FILE.format(args.process_index)))

    @property
    def _in_rollout(self) -> bool:
        """Whether the last rollout has steps left."""
        return self.state.global_step % self.args.steps_per_rollout > 0

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        trained = {name: parameter.requires_grad for name, parameter in self.model.named_parameters()}
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.load_further_weights(resume_from_checkpoint)
        for name, parameter in self.model.named_parameters():  # peft freezes all adapters except the last one loaded
            parameter.requires_grad_(trained[name])
