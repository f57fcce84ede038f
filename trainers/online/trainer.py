"""Online DPO (Guo et al. 2024) and online IPO (Calandriello et al. 2024): pairs of the policy's own samples.

The loop is `RolloutTrainer`'s (rollouts/trainer.py); here are

collect                  a rollout with its pairs: collect.collect
compute_loss             the policy on a mini-batch, then loss.pair_losses
measure                  what an evaluation says: the reward's scores, or the judge's win rate over the reference
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.evaluation.scorers import read_judge
from hf_align.models.policy import PolicyModel
from hf_align.models.quantized import Quantization
from hf_align.models.trainable import trainable_policy
from hf_align.rewards import Judge, Reward
from hf_align.trainers.config import Callbacks
from hf_align.trainers.online.collect import collect
from hf_align.trainers.online.config import OnlineDPOConfig
from hf_align.trainers.online.labels import JudgeLabel, Label, RewardLabel, WinRate
from hf_align.trainers.online.loss import batch_of_pairs, pair_losses
from hf_align.trainers.online.rollout import PairRollout
from hf_align.trainers.over_optimization import check_judge
from hf_align.trainers.rollouts.data import Row
from hf_align.trainers.rollouts.evaluate import Measure
from hf_align.trainers.rollouts.roles import ModelRoles
from hf_align.trainers.rollouts.trainer import RolloutTrainer

logger = logging.get_logger(__name__)


class OnlineDPOTrainer(RolloutTrainer):
    """Trains a policy on pairs of its own samples, by the loss of DPO or IPO.

    Every `num_epochs` x `num_mini_batches` steps the policy answers `rollout_batch_size` prompts per process,
    `num_samples` times each; a reward's scores or a judge tell the better responses from the worse; and the steps until
    the next rollout train on the pairs. As with PPO all of it happens in `Trainer.train`, and a checkpoint holds the
    rollout: a run killed at any step and resumed ends with the weights of an uninterrupted one.

    Ties, pairs without an opinion and a response beside itself are left out, and counted in the metrics; no prompt is
    sampled again for them. A mini-batch without any pair, on all processes, takes no optimizer step, which its step
    counts as, and a rollout without any is warned of.

    Args:
        model: Hub id or folder of a language model or adapter, or a model object (trained in place).
        ref_model: The reference: an object, Hub id or folder. Default: the policy exactly as given.
        args: Default: `OnlineDPOConfig("trainer_output")`.
        data_collator: Must be None, since batches are laid out after sampling.
        train_dataset: Rows with `prompt`, text or messages; other columns are passed to the reward.
        eval_dataset: The same, or a dict of such data sets. `evaluate()` samples a response to each prompt.
        processing_class: The tokenizer. Default: the model's.
        compute_metrics: Gets predictions `[rows, 2]`: the score (by a judge: the preference) and the KL of each
            evaluated response.
        callbacks, optimizers, optimizer_cls_and_kwargs: As in `Trainer`.
        peft_config: A `LoraConfig` to train an adapter.
        quantization_config: "8bit", "4bit" or a `BitsAndBytesConfig`, for models given by name.
        reward: The reward, as PPO's: a reward model or ensemble, a function `f(prompts, responses, **columns) ->
            list[float]`, or a weighted list of them. Either this or `judge`.
        judge: A judge of pairs (`hf_align.rewards.Judge`), such as those of `hf_align.feedback`.
        eval_judge: A judge of evaluations' responses that the training never sees: "vader", or anything that `reward`
            may be. Each evaluation then has the metric `eval_judge`, and `OverOptimizationCallback` compares it with
            the reward (or win rate) along KL; `args.stop_on_over_optimization` lets it stop the training.

    Attributes:
        rollout: The current rollout, None before the first.
        rollout_engine: Sampling engine of training and evaluation: `args.rollout_engine`, or an `Engine` that you set.
        eval_samples: Prompt, response, reward (or win rate) and KL of the first rows of the last evaluation; the folder
            `eval_samples` in the output keeps those of every evaluation.
        eval_rows: Figures of each row of the last evaluation, by metric.
        over_optimization: The watch for over-optimisation, None without an `eval_judge`.

    Raises:
        UserError: On unusable rows or arguments, before anything is loaded or trained.

    Logs, besides Trainer's, means over the rollouts and steps since the last log: `objective/kl` (nats per response),
    `objective/entropy`, `response/length`, `response/eos_share`, with a reward `objective/scores`,
    `objective/rlhf_reward` (score, as shaped, minus beta times KL), `objective/scores_margin` (chosen minus rejected)
    and `rewards/NAME` and `ensemble/...` as PPO; `pairs/per_prompt`, and `pairs/ties` and `pairs/without_opinion`
    (shares left out); `rewards/chosen`, `rewards/rejected`, `rewards/accuracies`, `rewards/margins`, `logps/chosen` and
    `logps/rejected` as DPO; `policy/approxkl_avg`, `time/generate`, `time/score`, `time/update`, `episode`.
    With `sync_ref_model` `reference/moves`: how often the reference has moved.

    Example:
        >>> from peft import LoraConfig
        >>> from hf_align import OnlineDPOConfig, OnlineDPOTrainer
        >>> def long(prompts, responses):
        ...     return [float(len(response)) for response in responses]
        >>> trainer = OnlineDPOTrainer(
        ...     "HuggingFaceTB/SmolLM2-135M-Instruct",
        ...     args=OnlineDPOConfig("out", max_steps=1, per_device_train_batch_size=4, max_new_tokens=4),
        ...     train_dataset=[{"prompt": "The film was"}] * 2,
        ...     peft_config=LoraConfig(task_type="CAUSAL_LM"),
        ...     reward=long,
        ... )
        >>> trainer.train()
        >>> len(trainer.rollout.response_ids)
        4
    """

    args: OnlineDPOConfig  # type: ignore[assignment]
    config_class = OnlineDPOConfig
    state_file = "online_state.json"
    rollout_class = PairRollout
    trains_as_scored = False  # but on the responses of pairs alone
    model: PolicyModel  # type: ignore[assignment]
    reward: Reward | None

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        ref_model: str | PreTrainedModel | PeftModel | None = None,
        args: OnlineDPOConfig | None = None,
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
        judge: Judge | None = None,
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        eval_judge: Any = None,
    ):
        labels, trained_by = (reward, "reward") if judge is None else (judge, "judge")
        check_judge(eval_judge, labels, args, eval_dataset, "eval_judge", trained_by)
        self.reward = reward  # as given, until `set_up` prepares it
        self.judge = judge
        self.eval_judge = read_judge(eval_judge, "eval_judge")  # likewise
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
        """Refuse models that aren't policies, a collator, and anything but one reward or one judge."""
        super().check_arguments(model, ref_model, data_collator)
        check_label(self.reward, self.judge, self.args)
        if self.judge is not None and not isinstance(self.judge, Judge):
            raise UserError(
                f"judge is a {type(self.judge).__name__}; give a judge of pairs such as hf_align.feedback.RewardJudge "
                "or FunctionJudge, or what scores responses as reward."
            )

    def load_model(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        peft_config: PeftConfig | None,
        quantization: Quantization,
    ) -> PolicyModel:
        """A policy."""
        return PolicyModel(trainable_policy(model, peft_config, quantization))

    def set_up(self, ref_model: Any, peft_config: PeftConfig | None, quantization: Quantization) -> None:
        """Prepare reference and reward, and start without a rollout."""
        super().set_up(ref_model, peft_config, quantization)
        self.label: Label = (
            RewardLabel(self.reward, self.args) if self.judge is None else JudgeLabel(self.judge, self.args)  # type: ignore[arg-type]
        )

    def measure(self, roles: ModelRoles) -> Measure:
        """The reward's scores, or the judge's preference for the policy's responses over the reference's."""
        return super().measure(roles) if self.judge is None else WinRate(self.judge, roles)

    # ---- rollouts ----

    def collect(self, model: nn.Module, rows: list[Row], number: int) -> tuple[PairRollout, dict[str, Tensor]]:
        """Sample, ask for opinions and choose pairs; see `collect.collect`."""
        return collect(
            rows,
            number,
            self.args,
            self.roles(model),
            self.label,
            accelerator=self.accelerator,
            pad_token_id=self.pad_token_id,
            timed=self._stopwatch.timed,
        )

    def after_rollout(self, rollout: PairRollout, metrics: dict[str, Tensor]) -> None:
        """Warn of a rollout from which nothing is learnt."""
        names = ("pairs/per_prompt", "pairs/ties", "pairs/without_opinion")
        here = torch.cat([metrics[name] for name in names]).to(self.args.device)
        (pairs, prompts), (ties, looked_at), (without, _) = cast(Tensor, self.accelerator.reduce(here, "sum")).tolist()
        if not pairs and self.is_world_process_zero():
            logger.warning(
                f"Online DPO, step {self.state.global_step}: no pair among the responses to {prompts:.0f} prompts, so "
                f"nothing is learnt from them: of {looked_at:.0f} pairs {ties:.0f} are ties and {without:.0f} without "
                "an opinion. Raise num_samples or temperature, or give a reward or judge that tells more responses "
                "apart."
            )

    def mini_batch_sizes(self, rollout: PairRollout) -> Tensor:
        """`[num_mini_batches]` pairs."""
        each = len(rollout.response_ids) // self.args.num_mini_batches
        return torch.bincount(rollout.pairs[:, 0] // each, minlength=self.args.num_mini_batches)

    def micro_batch(self, rollout: PairRollout, rows: slice) -> dict[str, Any]:
        """The pairs' responses laid out, with the rollout's log-probs of their tokens."""
        used, of_rows = rollout.used(rows), rollout.pairs_of(rows)
        places = {number: place for place, number in enumerate(used)}
        pairs = [[places[number] for number in pair] for pair in rollout.pairs[of_rows].tolist()]
        kept = rollout.mask[used]  # [n, T]
        device = self.args.device
        return {
            "branches": rollout.branches_of(used, pad_token_id=self.pad_token_id, row_tokens=self.args.row_tokens),
            "old_logps": rollout.tokens["old_logps"][used][kept].to(device),  # [N]
            "ref_logps": rollout.tokens["ref_logps"][used][kept].to(device),  # [N]
            "pairs": torch.tensor(pairs, dtype=torch.long, device=device).view(-1, 2),  # [P, 2] places in the batch
            "labels": rollout.labels[of_rows].to(device),  # [P]
        }

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The micro-batch's share of the mean over the mini-batch's pairs of all processes."""
        branches, output = inputs["branches"], inputs.get("output")
        if output is None:
            output, _ = self.runner.run(model, branches, temperature=self.args.temperature)
        logps = output["logps"] if isinstance(output, dict) else output  # [N]
        pairs, with_tokens = inputs["pairs"], any(loss.is_users for loss in self.args.losses)
        batch = batch_of_pairs(logps, inputs["ref_logps"], branches, pairs, with_tokens=with_tokens)
        losses, metrics = pair_losses(batch, inputs["labels"], self.args)
        # Of responses that stand in for pairs, nothing is said.
        log_ratios = (logps - inputs["old_logps"]).detach() if len(pairs) else logps.new_zeros(0)
        metrics["policy/approxkl_avg"] = 0.5 * log_ratios.square()
        self._train_metrics.add(metrics)
        self.note_log_ratios(metrics["policy/approxkl_avg"])
        # Gradients are averaged over processes, so multiply each process's share of the global sum by their number. A
        # micro-batch without pairs has a gradient of zeros, which the other processes wait for.
        loss = losses.sum() if len(pairs) else 0.0 * logps.sum()
        loss = loss / num_items_in_batch * self.accelerator.num_processes
        return (loss, metrics) if return_outputs else loss


def check_label(reward: Any, judge: Any, args: Any) -> None:
    """Refuse anything but one reward or one judge, and options that the judge can't follow.

    Args:
        reward: As given to the trainer, or a recipe's value.
        judge: Likewise.
        args: The trainer's config.
    """
    if (reward is None) == (judge is None):
        given = "both are given" if judge is not None else "neither is"
        raise UserError(f"reward or judge says which responses are better, and {given}; give one of them.")
    if judge is not None and args.missing_eos_penalty is not None:
        raise UserError(
            "missing_eos_penalty is subtracted from scores, and a judge gives none; leave it out, or give a reward."
        )
