"""PPO (Schulman et al. 2017; Ziegler et al. 2019) with a value head and adaptive KL, inside `Trainer.train`.

training_step            every micro-batch
    make_rollout         the first of a rollout's steps: experience.collect
    train_on             the rollout that the steps to come train on
    mini_batch_of        which of its mini-batches this step takes (schedule)
    compute_loss         policy and values on it, then loss.ppo_loss
evaluate                 held-out prompts: evaluate.evaluate_policy, whose figures go to the watch for over-optimisation
_save_rng_state          the rollout goes into the checkpoint: checkpoint
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from hf_align.collators import find_pad_token_id
from hf_align.errors import UserError
from hf_align.evaluation.scorers import read_judge
from hf_align.layout.branches import Branches, Document, build_branches
from hf_align.layout.cost import Lengths
from hf_align.models.quantized import Quantization
from hf_align.models.randomness import random_state_kept
from hf_align.models.trainable import trainable_policy
from hf_align.models.value import PolicyWithValueHead
from hf_align.models.wrapper import BranchModel
from hf_align.rewards import Reward
from hf_align.rewards.reward import check_functions
from hf_align.rl.running_statistics import RunningMeanStd
from hf_align.rollouts import Engine, warn_of_open_turns
from hf_align.trainers.base import BranchTrainer
from hf_align.trainers.checks import check_policies
from hf_align.trainers.config import Callbacks
from hf_align.trainers.data import batches_of, check_tokens, parts_of
from hf_align.trainers.over_optimization import OverOptimizationCallback, check_judge
from hf_align.trainers.ppo.checkpoint import load_controller, load_rollout, load_state, save_state
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.data import (
    OWN_COLUMNS,
    check_room,
    evaluation_rows,
    prompts_of,
    ready_reward,
    ready_scores,
)
from hf_align.trainers.ppo.evaluate import evaluate_policy
from hf_align.trainers.ppo.experience import collect, kept_row
from hf_align.trainers.ppo.health import Figures, Health
from hf_align.trainers.ppo.loss import ppo_loss
from hf_align.trainers.ppo.processes import gather_rows, mean_everywhere
from hf_align.trainers.ppo.roles import ModelRoles
from hf_align.trainers.ppo.rollout import Rollout
from hf_align.trainers.ppo.samples import report_samples
from hf_align.trainers.ppo.schedule import Purpose, micro_batch_rows, mini_batch_of, prompt_numbers, seed_of
from hf_align.trainers.ppo.stopwatch import Stopwatch
from hf_align.trainers.start_checks import agreement_bound, check_first_ratio, check_passes

logger = logging.get_logger(__name__)

PHASES = ("generate", "score", "update")
WATCHED = ("objective/kl", "response/length", "response/eos_share", "objective/entropy")
"""Figures of each response that `Health` watches."""


class PPOTrainer(BranchTrainer):
    """Trains a policy to maximise a reward while staying close to its reference.

    Every `num_ppo_epochs` x `num_mini_batches` steps the policy answers `rollout_batch_size` prompts per process, the
    reward scores the responses, and the steps until the next rollout train on them in shuffled mini-batches. All of it
    happens in `Trainer.train`: a checkpoint holds the rollout, so a run killed at any step and resumed ends with the
    weights of an uninterrupted one.

    Args:
        model: Hub id or folder of a language model or adapter, or a model object (trained in place).
        ref_model: The reference: an object, Hub id or folder. Default: the policy exactly as given.
        args: Default: `PPOConfig("trainer_output")`.
        data_collator: Must be None, since batches are laid out after sampling.
        train_dataset: Rows with `prompt`, text or messages; other columns are passed to the reward.
        eval_dataset: The same, or a dict of such data sets. `evaluate()` samples a response to each prompt.
        processing_class: The tokenizer. Default: the model's.
        compute_metrics: Gets predictions `[rows, 2]`: the score and the KL of each evaluated response.
        callbacks, optimizers, optimizer_cls_and_kwargs: As in `Trainer`.
        peft_config: A `LoraConfig` to train an adapter.
        quantization_config: "8bit", "4bit" or a `BitsAndBytesConfig`, for models given by name.
        reward: The reward: a reward model or ensemble, a function `f(prompts, responses, **columns) -> list[float]`, or
            a weighted list of them; see `hf_align.rewards.as_reward`. A `RewardModel` is moved to the training device,
            unless it is quantised.
        judge: A judge of evaluations' responses that isn't the reward: "vader", or anything that `reward` may be. Each
            evaluation then has the metric `eval_judge`, and `OverOptimizationCallback` compares it with the reward
            along KL; `args.stop_on_over_optimization` lets it stop the training.

    Attributes:
        rollout: The current rollout, None before the first.
        rollout_engine: Sampling engine of training and evaluation: `args.rollout_engine`, or an `Engine` that you set.
        kl_controller: Sets the KL coefficient of the next rollout.
        health: Watches the rollouts; `health.said` has its warnings so far.
        eval_samples: Prompt, response, reward and KL of the first rows of the last evaluation (of several data sets,
            of the last one); the folder `eval_samples` in the output keeps those of every evaluation.
        eval_rows: Figures of each row of the last evaluation, by metric.
        over_optimization: The watch for over-optimisation, None without a judge.

    Raises:
        UserError: On unusable rows or arguments, before anything is loaded or trained.

    Logs, besides Trainer's, means over the rollouts and steps since the last log: `objective/kl` (nats per response),
    `objective/scores`, `objective/rlhf_reward` (score, as shaped, minus KL penalty), `objective/entropy` (nats per
    response), `policy/approxkl_avg` and `policy/clipfrac_avg`, `loss/policy_avg`, `loss/value_avg`, `val/ratio`,
    `val/explained_variance`, `kl_coef`, `response/length` (tokens), `response/eos_share`, `time/generate`, `time/score`
    and `time/update` (shares; forward and backward), `episode` (responses of all processes), `rewards/NAME` of several;
    of an ensemble `ensemble/std` (deviation of its members' scores) and `ensemble/penalty` (what method "min" or
    "uncertainty_weighted" takes off their mean).

    Example:
        >>> from peft import LoraConfig
        >>> from hf_align import PPOConfig, PPOTrainer
        >>> def cheerful(prompts, responses):
        ...     return [float(response.count("!")) for response in responses]
        >>> trainer = PPOTrainer(
        ...     "HuggingFaceTB/SmolLM2-135M-Instruct",
        ...     args=PPOConfig("out", max_steps=1, per_device_train_batch_size=4, max_new_tokens=4),
        ...     train_dataset=[{"prompt": "The film was"}] * 4,
        ...     peft_config=LoraConfig(task_type="CAUSAL_LM"),
        ...     reward=cheerful,
        ... )
        >>> trainer.train()
        >>> len(trainer.rollout.scores)
        4
    """

    args: PPOConfig  # type: ignore[assignment]
    config_class = PPOConfig
    columns = "prompt"
    model: PolicyWithValueHead  # type: ignore[assignment]

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        ref_model: str | PreTrainedModel | PeftModel | None = None,
        args: PPOConfig | None = None,
        data_collator: None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        callbacks: Callbacks = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: PeftConfig | None = None,
        quantization_config: Quantization = None,
        reward: Any = None,
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        judge: Any = None,
    ):
        check_judge(judge, reward, args, eval_dataset)
        self.reward: Reward = reward  # as given, until `set_up` prepares it
        self.judge: Reward | None = read_judge(judge)  # likewise
        super().__init__(
            model,
            ref_model,
            args,
            data_collator,
            train_dataset,
            eval_dataset,
            processing_class,
            compute_metrics,
            callbacks,
            optimizers,
            peft_config,
            quantization_config,
            optimizer_cls_and_kwargs,
        )

    def check_arguments(self, model: Any, ref_model: Any, data_collator: Any) -> None:
        """Refuse models that aren't policies, a missing reward and a collator."""
        check_policies(model, ref_model)
        if self.reward is None:
            raise UserError(
                "reward is missing; give a function f(prompts, responses, **columns) -> list[float] or a reward model."
            )
        if data_collator is not None:
            raise UserError("data_collator must be None: PPO lays out its batches after sampling.")

    def prepare_rows(self, data: Any, tokenizer: PreTrainedTokenizerBase, name: str) -> Any:
        """Check and tokenise prompts; keep the columns that the reward asks for."""
        rows = prompts_of(data, self.reward, tokenizer, self.args, name)
        if self.judge is not None and name == "eval_dataset":
            check_functions(self.judge, [column for column in rows.column_names if column not in OWN_COLUMNS])
        return rows

    def default_collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[Any]], Any]:
        """Nothing to do: batches are laid out after sampling."""
        return list

    def load_model(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        peft_config: PeftConfig | None,
        quantization: Quantization,
    ) -> PolicyWithValueHead:
        """A policy with a value head."""
        args = self.args
        return PolicyWithValueHead(
            trainable_policy(model, peft_config, quantization),
            value_model=args.value_model,
            head=args.value_head,
            detach_value_trunk=args.detach_value_trunk,
        )

    def check_room(self, model: BranchModel, *datasets: Any) -> None:
        """Refuse prompts that leave no room for a response."""
        check_room(model, self.args, *datasets)

    def set_up(self, ref_model: Any, peft_config: PeftConfig | None, quantization: Quantization) -> None:
        """Prepare reference and reward, and start without a rollout."""
        if self.is_fsdp_enabled or is_deepspeed_zero3_enabled():
            raise UserError(
                "PPO generates from whole weights: FSDP and ZeRO-3 shard them; use DDP, with LoRA and quantisation."
            )
        args, tokenizer = self.args, cast(PreTrainedTokenizerBase, self.processing_class)
        self.owns_attention = False  # sampling doesn't support the choice of attention
        self.pad_token_id = find_pad_token_id(tokenizer)
        if any(isinstance(part[0]["prompt"], list) for part in parts_of([self.train_dataset, self.eval_dataset])):
            warn_of_open_turns(self.model, tokenizer, args.stop_strings or ())
        self.reference = self.make_reference(ref_model, peft_config, quantization)
        self.reward = ready_reward(self.reward, self.model, tokenizer, args, lambda: self.accelerator.autocast())
        if self.judge is not None:
            self.judge = ready_scores(self.judge, self.model, tokenizer, args, lambda: self.accelerator.autocast())
            self.add_callback(OverOptimizationCallback(args.stop_on_over_optimization, args.over_optimization_patience))
        self.kl_controller = args.make_kl_controller()
        self.score_statistics = RunningMeanStd()
        self.health = Health(None if args.kl_controller == "fixed" else args.target_kl)
        self._clipped: list[Tensor] = []
        self.rollout: Rollout | None = None
        self.rollout_engine: str | Engine = args.rollout_engine
        self.eval_samples: list[dict[str, Any]] = []
        self.eval_rows: dict[str, Any] = {}
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
        self._micro, self._log_ratios = 0, []  # a new run; an earlier one may have ended within a step
        self._stopwatch = Stopwatch(*PHASES)
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
        if rollout.stopped:
            # No gradients and no optimizer step: with zero gradients Adam would still move, and a scaler would raise.
            self.accelerator.gradient_state._set_sync_gradients(False)
            if last and rollout.nonfinite:
                self.leave_out_of_means()
            return torch.zeros((), device=self.args.device)
        mini_batch = mini_batch_of(step, number, self.args)
        rows = micro_batch_rows(mini_batch, micro, self.args)
        batch: dict[str, Any] = {"branches": self.lay_out(rollout, rows)}
        batch |= {name: rollout.flat(name, rows) for name in rollout.tokens}
        if rollout.first_output is not None:
            batch["output"], rollout.first_output = rollout.first_output, None
        with self._stopwatch.timed("update"):
            loss = super().training_step(model, batch, self._mini_batch_tokens[mini_batch])
        if last and self.args.early_stop_kl is not None:
            rollout.stopped = mean_everywhere(torch.cat(self._log_ratios), self.accelerator) > self.args.early_stop_kl
            self._log_ratios = []
        return loss

    def check_start(self, model: nn.Module, inputs: dict[str, Any]) -> None:
        """Refuse to train if a fresh pass gives the first update other log-probs than the rollout holds."""
        if not self._is_fresh:  # ratios are 1 before a rollout's first step only
            return
        if not self.args.disable_dropout:
            logger.info("start-up check: disable_dropout=False keeps dropout, so the first ratio isn't looked at.")
            return
        with torch.no_grad(), random_state_kept(self.args.device):
            logps = self.roles(model).policy(inputs["branches"])["logps"]
        bound = agreement_bound(exact=self.runner.is_exact(model))
        check_first_ratio(logps, inputs["old_logps"], bound, self.accelerator)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        # Not synchronised: the step is skipped.
        return super()._get_grad_norm(model, grad_norm=grad_norm) if self.accelerator.sync_gradients else 0.0

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        return super()._clip_grad_norm(model) if self.accelerator.sync_gradients else torch.zeros(())

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The micro-batch's share of the mean over the mini-batch's tokens of all processes."""
        args, rollout, output = self.args, self.rollout, inputs.get("output")
        assert rollout is not None
        if output is None:
            branches: Branches = inputs["branches"]
            options: dict[str, Any] = {"return_entropy": True, "entropy_grad": True} if args.entropy_coef else {}
            if args.kl_kind == "full":
                options["reference"] = self.roles(model).reference_head(branches)
            output, _ = self.runner.run(model, branches, temperature=args.temperature, **options)
        loss, metrics = ppo_loss(output, inputs, args, rollout.kl_coef)
        count = len(inputs["old_logps"])
        self._train_metrics.add(metrics)
        if args.policy_loss == "clip":
            self._clipped.append(metrics["policy/clipfrac_avg"].mean())
        if args.early_stop_kl is not None:
            self._log_ratios.append(metrics["policy/approxkl_avg"])
        # Gradients are averaged over processes, so multiply each process's share of the global sum by their number.
        loss = loss * (count / num_items_in_batch * self.accelerator.num_processes)
        return (loss, metrics) if return_outputs else loss

    # ---- rollouts ----

    def make_rollout(self, model: nn.Module, number: int) -> Rollout:
        """Make rollout `number`, ready for training; update the KL coefficient for the next."""
        args = self.args
        model.train()  # scored in training mode
        data = cast(Dataset, self.train_dataset)
        count = args.prompts_per_rollout
        first = (number * args.world_size + args.process_index) * count
        numbers = prompt_numbers(first, count, len(data), seed_of(args.seed, Purpose.PROMPTS))
        rollout, metrics = collect(
            [data[row] for row in numbers],
            number,
            args,
            self.roles(model),
            kl_coef=self.kl_controller.coef,
            statistics=self.score_statistics,
            accelerator=self.accelerator,
            pad_token_id=self.pad_token_id,
            kept_start=kept_row(number, args, self.accelerator),
            timed=self._stopwatch.timed,
        )
        if rollout.nonfinite:
            self.meet_nonfinite(list(rollout.nonfinite), f"rollout {number}", rollout.reward_error)
            return rollout
        self._train_metrics.add(metrics)
        everyone = torch.cat(gather_rows(torch.stack([metrics[name] for name in WATCHED], 1), self.accelerator))
        kl = everyone[:, 0].contiguous()
        self.kl_controller.update(float(kl.mean()), len(kl))
        self._watch(everyone, float(metrics["val/explained_variance"]))
        return rollout

    def _watch(self, everyone: Tensor, explained_variance: float) -> None:
        """Warn about signs of trouble; `everyone` are the `WATCHED` figures `[S, 4]` of all processes' responses."""
        clipped = mean_everywhere(torch.stack(self._clipped), self.accelerator) if self._clipped else math.nan
        self._clipped = []
        kl, length, eos_share, entropy = everyone.double().mean(0).tolist()
        clip_fraction = clipped if math.isfinite(clipped) else None
        figures = Figures(len(everyone), kl, length, eos_share, entropy / length, explained_variance, clip_fraction)
        for kind, text in self.health.watch(figures).items():
            self.log({f"health/{kind}": 1.0})
            if self.is_world_process_zero():
                logger.warning(f"PPO, step {self.state.global_step}: {text}")

    def train_on(self, rollout: Rollout) -> None:
        """Use this rollout in the steps until the next one, whatever its origin."""
        self.rollout = rollout
        # Tokens of each mini-batch over all processes, to weight its micro-batches.
        sums = rollout.lengths.view(self.args.num_mini_batches, -1).sum(1).to(self.args.device, torch.float32)
        self._mini_batch_tokens = self.accelerator.reduce(sums, "sum")

    def roles(self, model: nn.Module) -> ModelRoles:
        """Roles for making experience, with `model` the policy as in the training step."""
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

    # ---- optimizer and logs ----

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make Trainer's optimizer; parameters trained only for the values get `value_learning_rate`."""
        created = self.optimizer is None
        optimizer = super().create_optimizer(model)
        rate = self.args.value_learning_rate
        if not created or rate is None:
            return optimizer
        of_value = {id(parameter) for parameter in self.accelerator.unwrap_model(self.model).value_parameters()}
        for group in list(optimizer.param_groups):
            if moved := [parameter for parameter in group["params"] if id(parameter) in of_value]:
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in of_value]
                optimizer.add_param_group({**group, "params": moved, "lr": rate})
        return optimizer

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
        evaluated = evaluate_policy(
            data,
            self.args,
            self.roles(model),
            judge=self.judge,
            accelerator=self.accelerator,
            pad_token_id=self.pad_token_id,
            prefix=metric_key_prefix,
            compute_metrics=self._user_metrics,
            after_batch=after_batch,
        )
        model.train(training)
        self.eval_samples, self.eval_rows = evaluated.samples, evaluated.rows
        if (watch := self.over_optimization) is not None and self.is_in_train and data is self.eval_dataset:
            figures = [self.eval_rows[name] for name in ("objective/kl", "reward", "judge")]
            watch.record(self.state.global_step, *figures)
        return evaluated.output

    # ---- checkpoints ----

    def _save_rng_state(self, output_dir: str) -> None:
        """Save this process's state besides weights and optimizer."""
        super()._save_rng_state(output_dir)
        args = self.args
        state = {
            "shape": args.shape(),
            "kl_controller": self.kl_controller.state_dict(),
            "score_statistics": self.score_statistics.state_dict(),
            "health": self.health.state_dict(),
        }
        rollout = self.rollout if self._in_rollout else None
        save_state(Path(output_dir), state if args.should_save else None, rollout, args.process_index)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        state = load_state(Path(checkpoint), self.args.shape())
        load_controller(self.kl_controller, state["kl_controller"], self.args.kl_controller)
        self.score_statistics.load_state_dict(state["score_statistics"])
        if "health" in state:  # of older versions it isn't
            self.health.load_state_dict(state["health"])
        self.rollout = None
        if self._in_rollout:
            self.train_on(load_rollout(Path(checkpoint), self.args.process_index))

    @property
    def _in_rollout(self) -> bool:
        """Whether the last rollout has steps left."""
        return self.state.global_step % self.args.steps_per_rollout > 0

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        trained = {name: parameter.requires_grad for name, parameter in self.model.named_parameters()}
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.accelerator.unwrap_model(self.model).load_value(resume_from_checkpoint)
        for name, parameter in self.model.named_parameters():  # peft freezes all adapters except the last one loaded
            parameter.requires_grad_(trained[name])
