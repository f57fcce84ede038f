"""PPO (Schulman et al. 2017; Ziegler et al. 2019) with a value head and adaptive KL, inside `Trainer.train`.

The loop is `RolloutTrainer`'s (rollouts/trainer.py); here are

collect                  a rollout: experience.collect
after_rollout            the KL controller's next coefficient, and warnings (health)
compute_loss             policy and values on a mini-batch, then loss.ppo_loss
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
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.evaluation.scorers import read_judge
from hf_align.layout.branches import Branches
from hf_align.models.policy import PolicyModel
from hf_align.models.quantized import Quantization
from hf_align.models.trainable import trainable_policy
from hf_align.models.value import PolicyWithValueHead
from hf_align.rewards import Reward
from hf_align.rl.running_statistics import RunningMeanStd
from hf_align.trainers.config import Callbacks
from hf_align.trainers.over_optimization import check_judge
from hf_align.trainers.ppo.checkpoint import check_baseline, load_controller
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.data import start_values
from hf_align.trainers.ppo.experience import Roles, collect, kept_row
from hf_align.trainers.ppo.health import Figures, Health
from hf_align.trainers.ppo.loss import ppo_loss
from hf_align.trainers.ppo.rollout import Rollout, ValuelessRollout
from hf_align.trainers.rollouts.data import Row
from hf_align.trainers.rollouts.processes import gather_rows, mean_everywhere
from hf_align.trainers.rollouts.trainer import RolloutTrainer

logger = logging.get_logger(__name__)

WATCHED = ("objective/kl", "response/length", "response/eos_share", "objective/entropy")
"""Figures of each response that `Health` watches."""


class PPOTrainer(RolloutTrainer):
    """Trains a policy to maximise a reward while staying close to its reference: PPO, RLOO, GRPO or REINFORCE.

    Every `num_ppo_epochs` x `num_mini_batches` steps the policy answers `rollout_batch_size` prompts per process, the
    reward scores the responses, and the steps until the next rollout train on them in shuffled mini-batches. All of it
    happens in `Trainer.train`: a checkpoint holds the rollout, so a run killed at any step and resumed ends with the
    weights of an uninterrupted one.

    `args.baseline` says what a return is compared with: a value head's values (PPO) or, without a value head, the
    returns of the prompt's other samples (RLOO; GRPO with `group_scaling`), or nothing (REINFORCE).

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
    response), `policy/approxkl_avg` and `policy/clipfrac_avg`, `loss/policy_avg`, with values `loss/value_avg`,
    `val/ratio` and `val/explained_variance`, `kl_coef`, `response/length` (tokens), `response/eos_share`,
    `time/generate`, `time/score` and `time/update` (shares; forward and backward), `episode` (responses of all
    processes), `rewards/NAME` of several; of an ensemble `ensemble/std` (deviation of its members' scores) and
    `ensemble/penalty` (what method "min" or "uncertainty_weighted" takes off their mean).
    With `sync_ref_model` `reference/moves`: how often the reference has moved.

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

    fixed_options = (*RolloutTrainer.fixed_options, "baseline", "value_model", "value_head", "kl_controller")
    args: PPOConfig  # type: ignore[assignment]
    config_class = PPOConfig
    state_file = "ppo_state.json"
    model: PolicyWithValueHead | PolicyModel  # type: ignore[assignment]
    reward: Reward

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
        self.reward = reward  # as given, until `set_up` prepares it
        self.eval_judge = read_judge(judge)  # likewise
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
        super().check_arguments(model, ref_model, data_collator)
        if self.reward is None:
            raise UserError(
                "reward is missing; give a function f(prompts, responses, **columns) -> list[float] or a reward model."
            )

    def load_model(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        peft_config: PeftConfig | None,
        quantization: Quantization,
    ) -> PolicyWithValueHead | PolicyModel:
        """A policy, with a value head if values are the baseline."""
        args, policy = self.args, trainable_policy(model, peft_config, quantization)
        if args.baseline != "value":
            return PolicyModel(policy)
        return PolicyWithValueHead(
            policy,
            value_model=args.value_model,
            head=args.value_head,
            detach_value_trunk=args.detach_value_trunk,
        )

    def set_up(self, ref_model: Any, peft_config: PeftConfig | None, quantization: Quantization) -> None:
        """Prepare reference, reward, value head and KL controller, and start without a rollout."""
        super().set_up(ref_model, peft_config, quantization)
        self.rollout_class = Rollout if self.args.baseline == "value" else ValuelessRollout
        if self.args.value_init == "reward":
            start_values(cast(PolicyWithValueHead, self.model), self.reward)
        self.kl_controller = self.args.make_kl_controller()
        self.score_statistics = RunningMeanStd()
        self.health = Health(None if self.args.kl_controller == "fixed" else self.args.target_kl)
        self._clipped: list[Tensor] = []

    # ---- the loss ----

    def mini_batch_sizes(self, rollout: Rollout) -> Tensor:
        """`[num_mini_batches]` tokens."""
        return rollout.lengths.view(self.args.num_mini_batches, -1).sum(1)

    def micro_batch(self, rollout: Rollout, rows: slice) -> dict[str, Any]:
        """The responses laid out, and the rollout's numbers for their tokens."""
        batch: dict[str, Any] = {"branches": self.lay_out(rollout, rows)}
        return batch | {name: rollout.flat(name, rows) for name in rollout.tokens}

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
            output = output if isinstance(output, dict) else {"logps": output}
        loss, metrics = ppo_loss(output, inputs, args, rollout.kl_coef)
        count = len(inputs["old_logps"])
        self._train_metrics.add(metrics)
        if args.policy_loss == "clip":
            self._clipped.append(metrics["policy/clipfrac_avg"].mean())
        self.note_log_ratios(metrics["policy/approxkl_avg"])
        # Gradients are averaged over processes, so multiply each process's share of the global sum by their number.
        loss = loss * (count / num_items_in_batch * self.accelerator.num_processes)
        return (loss, metrics) if return_outputs else loss

    # ---- rollouts ----

    def collect(self, model: nn.Module, rows: list[Row], number: int) -> tuple[Rollout, dict[str, Tensor]]:
        """Sample, score and compare with the values; see `experience.collect`."""
        return collect(
            rows,
            number,
            self.args,
            cast(Roles, self.roles(model)),
            kl_coef=self.kl_controller.coef,
            statistics=self.score_statistics,
            accelerator=self.accelerator,
            pad_token_id=self.pad_token_id,
            kept_start=kept_row(number, self.args, self.accelerator),
            timed=self._stopwatch.timed,
        )

    def after_rollout(self, rollout: Rollout, metrics: dict[str, Tensor]) -> None:
        """Update the KL coefficient for the next rollout, and warn about signs of trouble."""
        everyone = torch.cat(gather_rows(torch.stack([metrics[name] for name in WATCHED], 1), self.accelerator))
        kl = everyone[:, 0].contiguous()
        self.kl_controller.update(float(kl.mean()), len(kl))
        explained = metrics.get("val/explained_variance")
        self._watch(everyone, None if explained is None else float(explained))

    def _watch(self, everyone: Tensor, explained_variance: float | None) -> None:
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

    # ---- optimizer ----

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

    # ---- checkpoints ----

    def state_of_run(self) -> dict[str, Any]:
        """The baseline's name, and the state of KL controller, score statistics and watch."""
        return {
            "baseline": self.args.baseline,
            "kl_controller": self.kl_controller.state_dict(),
            "score_statistics": self.score_statistics.state_dict(),
            "health": self.health.state_dict(),
        }

    def load_state_of_run(self, state: dict[str, Any]) -> None:
        """Go on from what `state_of_run` gave."""
        load_controller(self.kl_controller, state["kl_controller"], self.args.kl_controller)
        self.score_statistics.load_state_dict(state["score_statistics"])
        if "health" in state:  # of older versions it isn't
            self.health.load_state_dict(state["health"])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        check_baseline(Path(resume_from_checkpoint) / self.state_file, self.args.baseline)
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def load_further_weights(self, checkpoint: str) -> None:
        """Load the value head, with its adapter or model, if there is one."""
        if self.args.baseline == "value":
            self.accelerator.unwrap_model(self.model).load_value(checkpoint)
