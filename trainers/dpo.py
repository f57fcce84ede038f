"""DPO (Rafailov et al. 2023), IPO (Azar et al. 2023) and other losses on pairs: a policy without a reward model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from peft import PeftConfig
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.integrations.neftune import activate_neftune, deactivate_neftune

from hf_align.errors import UserError
from hf_align.layout.branches import Branches
from hf_align.layout.compare import ROUNDING
from hf_align.losses.batch import PreferenceBatch
from hf_align.models.policy import PolicyModel
from hf_align.models.quantized import Quantization
from hf_align.models.randomness import random_state_kept
from hf_align.models.trainable import trainable_policy
from hf_align.trainers.checks import check_policies
from hf_align.trainers.direct import DirectConfig, direct_loss, direct_metrics
from hf_align.trainers.pairs import PreferenceConfig, PreferenceTrainer
from hf_align.trainers.reference_logps import add_reference_logps
from hf_align.trainers.start_checks import agreement_bound, check_first_loss


@dataclass
class DPOConfig(DirectConfig, PreferenceConfig):
    """Options of `DPOTrainer` beyond `TrainingArguments`.

    Example:
        >>> from hf_align import DPOConfig
        >>> DPOConfig("out", beta=0.2, loss_type=["sigmoid", "ipo"], loss_weights=[1.0, 0.1]).loss_types
        ['sigmoid', 'ipo']
    """

    eval_metrics: ClassVar[tuple[str, ...]] = (
        "loss",
        "rewards/chosen",
        "rewards/rejected",
        "rewards/accuracies",
        "rewards/margins",
        "logps/chosen",
        "logps/rejected",
    )
    learning_rate: float = field(
        default=1e-6, metadata={"help": "Peak learning rate. 1e-6 suits full fine-tuning; use about 5e-5 with LoRA."}
    )
    ld_alpha: float | None = field(
        default=None,
        metadata={
            "range": "[0, 1]",
            "help": "Weight of the log-probs of the tokens by which a pair's longer response exceeds the shorter one "
            "(LD-DPO). None: 1.",
        },
    )
    precompute_ref_log_probs: bool = field(
        default=False,
        metadata={
            "help": "Score all rows with the reference once, before training, in length-sorted batches; keep them "
            "in the cache under a key of weights, tokens and layout. Scores in the training batches would differ by "
            "rounding: less than 1e-3 nats per response in float32; in bf16, 8-bit and 4-bit about 0.2, less than "
            "1 (short responses of a 135M model)."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precompute_ref_log_probs and self.neftune_noise_alpha is not None:
            raise UserError(
                "neftune_noise_alpha doesn't go with precompute_ref_log_probs: the reference would be scored without "
                "the noise that the policy sees; leave one of them out."
            )
        if self.precompute_ref_log_probs and self.sync_ref_model:
            raise UserError(
                "precompute_ref_log_probs scores all rows once, before training, and with sync_ref_model the reference "
                "changes; leave one of them out."
            )
        if self.precompute_ref_log_probs:
            check_reference(self, "precompute_ref_log_probs")
        if self.sync_ref_model:
            check_reference(self, "sync_ref_model")

    @property
    def needs_reference(self) -> bool:
        """Whether the rows are scored by a reference."""
        return not self.reference_free


@dataclass
class IPOConfig(DPOConfig):
    """`DPOConfig` with the IPO loss.

    Example:
        >>> from hf_align import IPOConfig
        >>> IPOConfig("out", beta=0.2).loss_types
        ['ipo']
    """

    loss_type: str | Callable | list[str | Callable] = field(default="ipo", metadata={"help": "Fixed to 'ipo'."})

    def __post_init__(self) -> None:
        if self.loss_type not in ("ipo", ["ipo"]):
            raise UserError(f"loss_type is {self.loss_type!r}; IPOConfig fixes it to 'ipo'. Use DPOConfig for others.")
        super().__post_init__()


def check_reference(args: DPOConfig, given: str) -> None:
    """Refuse the argument or option `given` if no loss needs the reference that it is about.

    Raises:
        UserError: No loss does.
    """
    if args.reference_free:
        raise UserError(
            f"{given} is given, and no reference is scored with loss_type {' and '.join(map(repr, args.loss_types))}; "
            "leave it out, or use a loss that needs one, such as 'sigmoid'."
        )


class DPOTrainer(PreferenceTrainer):
    """Trains a policy to prefer `chosen` to `rejected` by more than its reference does.

    Args:
        model: Hub id or folder of a language model or adapter, or a model object (trained in place).
        ref_model: The reference: an object, Hub id or folder. Default: the policy exactly as given, which is the base
            with adapters off if `peft_config` makes a new one, a frozen copy of an adapter that came with the model,
            or for full fine-tuning a snapshot of the weights in memory. Losses without a reference (`simpo`, `sft`)
            have none: nothing is loaded, copied or scored, and this must be None.
        args: Default: `DPOConfig("trainer_output")`.
        data_collator: Default: `PreferenceCollator`.
        train_dataset: Rows with `chosen` and `rejected`, usually `prompt`, and optionally `weight`; text or messages.
        eval_dataset: The same, or a dict of such data sets.
        processing_class: The tokenizer. Default: the model's.
        compute_metrics: Gets predictions `[rows, 2]`, the implicit rewards of chosen and rejected.
        callbacks: As in `Trainer`.
        model_init: In place of `model`, a function that returns one, for `hyperparameter_search`: each training starts
            anew, with a new adapter and reference. It may take the trial.
        optimizers, optimizer_cls_and_kwargs: As in `Trainer`. An optimizer made beforehand lacks the adapter or head
            that is made here, which is an error: give its class.
        peft_config: A `LoraConfig` to train an adapter.
        quantization_config: "8bit", "4bit" or a `BitsAndBytesConfig`, for models given by name.

    Raises:
        UserError: On unusable rows or arguments, before anything is loaded or trained.

    Logs, besides Trainer's: `rewards/chosen` and `rewards/rejected` (beta times the log-ratio to the reference; without
    a reference, times the mean log-prob of the response's tokens), `rewards/accuracies`, `rewards/margins`,
    `logps/chosen`, `logps/rejected` (sums over a response's tokens).
    With `sync_ref_model` `reference/moves`: how often the reference has moved.

    Example:
        >>> from peft import LoraConfig
        >>> from hf_align import DPOConfig, DPOTrainer
        >>> rows = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " too long."}]
        >>> config = DPOConfig("out", max_steps=1, learning_rate=5e-5)
        >>> model = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> trainer = DPOTrainer(model, args=config, train_dataset=rows, peft_config=LoraConfig(task_type="CAUSAL_LM"))
        >>> trainer.train()
        >>> trainer.save_model()
    """

    args: DPOConfig  # type: ignore[assignment]
    model: PolicyModel  # type: ignore[assignment]
    config_class: type[DPOConfig] = DPOConfig

    def check_arguments(self, model: Any, ref_model: Any, data_collator: Any) -> None:
        """Refuse models that aren't policies, and a reference that no loss needs."""
        check_policies(model, ref_model)
        if ref_model is not None:
            check_reference(self.args, "ref_model")

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
        """Make the reference if a loss needs it, and score the rows with it if its log-probs are precomputed."""
        if self.args.reference_free:
            return
        precompute = self.args.precompute_ref_log_probs
        self.reference = self.make_reference(ref_model, peft_config, quantization, snapshot=not precompute)
        if precompute:
            self._precompute_reference()

    def _precompute_reference(self) -> None:
        args = self.args
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise UserError(
                "precompute_ref_log_probs doesn't work with sharded weights (FSDP, DeepSpeed); switch it off."
            )
        layout = f"{args.layout} {args.row_tokens} {args.per_device_eval_batch_size}"
        layout += "" if args.ld_alpha is None else f" {args.ld_alpha}"
        options: dict[str, Any] = {
            "key": f"{args.bf16} {args.fp16} {self.reference.weights_key()} {layout}",
            "size": args.per_device_eval_batch_size,
            "accelerator": self.accelerator,
            "quiet": args.disable_tqdm,
        }
        self.train_dataset, self.eval_dataset = map(_without_logps, (self.train_dataset, self.eval_dataset))
        training = self.model.training
        self.model.train()  # the policy's mode when it is scored
        with self.accelerated("score"):  # as the policy will be
            self.train_dataset = add_reference_logps(self.train_dataset, self._score_reference, **options)
            self.eval_dataset = add_reference_logps(self.eval_dataset, self._score_reference, **options)
        self.model.train(training)

    def _score_reference(self, rows: list[dict[str, Any]]) -> Tensor:
        inputs: dict[str, Any] = self._prepare_inputs(self.data_collator(rows))
        with self.accelerator.autocast():
            return self.reference_logps(self.model, inputs["branches"])

    def token_logps(self, model: nn.Module, branches: Branches) -> Tensor:
        """Log-probs of the response tokens under `model`: `[N]`."""
        logps, _ = self.runner.run(model, branches)
        return logps

    def response_logps(self, token_logps: Tensor, branches: Branches) -> Tensor:
        """Sums `[S]` of log-probs `[N]` over each response, weighted by `ld_alpha` beyond the pair's shorter one."""
        if (alpha := self.args.ld_alpha) is not None:
            shared = branches.lengths().view(-1, 2).amin(1).repeat_interleave(2)  # [S]
            beyond = branches.tokens_so_far() > shared[branches.token_branch]  # [N]
            token_logps = torch.where(beyond, alpha * token_logps, token_logps)
        return branches.sum_by_branch(token_logps)

    @torch.no_grad()
    def reference_logps(self, model: nn.Module, branches: Branches) -> Tensor:
        """`response_logps` of the reference: `[S]`.

        Args:
            model: The policy as in the training step (possibly wrapped for DDP or FSDP).
            branches: The batch, on which the policy is scored, too.
        """
        with self.reference.scored_as(model) as scorer:
            return self.response_logps(self.token_logps(scorer, branches), branches)

    def row_losses(
        self, model: nn.Module, inputs: dict[str, Any], branches: Branches
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the losses in `loss_type`."""
        # The reference runs first, in the same mode, batch and layout: at step 0 it equals the policy exactly.
        ref_logps = None if self.args.reference_free else self._ref_logps_of(model, inputs, branches)
        tokens = self.token_logps(model, branches)
        logps, lengths = (x.view(-1, 2) for x in (self.response_logps(tokens, branches), branches.lengths()))  # [B, 2]
        if ref_logps is not None and self._is_fresh and model.training:
            self._is_fresh = False
            self._check_first_loss(logps, ref_logps, lengths)
        batch = PreferenceBatch(
            *logps.unbind(1),
            *lengths.unbind(1),
            *((None, None) if ref_logps is None else ref_logps.unbind(1)),
            flat_token_logps=tokens,
        )
        return direct_loss(batch, self.args), direct_metrics(batch, self.args)

    def _ref_logps_of(self, model: nn.Module, inputs: dict[str, Any], branches: Branches) -> Tensor:
        """The reference's log-probs of a batch's responses, as scored before or scored now: `[B, 2]`."""
        ref_logps = inputs.get("ref_logps")
        if ref_logps is None:
            if self.args.precompute_ref_log_probs and not self.reference.is_kept:
                raise UserError(
                    "precompute_ref_log_probs keeps no copy of the reference when all weights are trained, so it can't "
                    "score new rows; give them as eval_dataset to the trainer, or switch it off."
                )
            with self._same_noise(model):
                ref_logps = self.reference_logps(model, branches)
        return ref_logps.view(-1, 2)

    @contextmanager
    def _same_noise(self, model: nn.Module) -> Iterator[None]:
        """Give the reference the policy's NEFTune noise, drawn from the same state of generators."""
        alpha, module = self.args.neftune_noise_alpha, self.reference.module
        if alpha is None or not model.training:
            yield
            return
        handle = None if module is None else activate_neftune(module, alpha)  # Trainer does the policy's embeddings
        try:
            with random_state_kept(self.args.device):
                yield
        finally:
            if module is not None:
                deactivate_neftune(module, handle)

    def _check_first_loss(self, logps: Tensor, ref_logps: Tensor, lengths: Tensor) -> None:
        """Refuse a reference that should equal the initial policy and doesn't, unless randomness is wanted."""
        args = self.args
        if not (self.reference.is_as_given and args.disable_dropout):
            return
        exact = self.runner.is_exact(self.model)
        apart = args.precompute_ref_log_probs and not exact  # in other batches, which round differently
        bound = ROUNDING if apart else agreement_bound(exact=exact)
        check_first_loss(logps.detach(), ref_logps, lengths, bound, self.accelerator)


def _without_logps(data: Any) -> Any:
    """Rows, or a dict of data sets, without the reference's log-probs of a trial before."""
    if isinstance(data, dict):
        return {name: _without_logps(part) for name, part in data.items()}
    return data.remove_columns("ref_logps") if data is not None and "ref_logps" in data.column_names else data


class IPOTrainer(DPOTrainer):
    """`DPOTrainer` with the IPO loss (h - 1/(2*beta))^2, h the difference of mean log-ratios (Azar et al. 2023).

    Example:
        >>> from peft import LoraConfig
        >>> from hf_align import IPOConfig, IPOTrainer
        >>> rows = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " too long."}]
        >>> config = IPOConfig("out", max_steps=1, learning_rate=5e-5)
        >>> model = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> trainer = IPOTrainer(model, args=config, train_dataset=rows, peft_config=LoraConfig(task_type="CAUSAL_LM"))
        >>> trainer.train()
        >>> trainer.save_model()
    """

    args: IPOConfig  # type: ignore[assignment]
    config_class = IPOConfig
