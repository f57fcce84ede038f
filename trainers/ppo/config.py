"""Options of `PPOTrainer`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.fields import check_fields
from hf_align.rl.kl_controllers import FixedKLController, ProportionalKLController, ThresholdKLController
from hf_align.trainers.arguments.cells import Column
from hf_align.trainers.checkpoints import Kind
from hf_align.trainers.rollouts.config import RolloutConfig

logger = logging.get_logger(__name__)

OF_VALUES = (
    *("value_clip_range", "value_coef", "value_learning_rate", "value_model", "value_head"),
    *("detach_value_trunk", "value_init", "lam"),
)
"""Options that mean nothing without values."""


@dataclass
class PPOConfig(RolloutConfig):
    """Options of `PPOTrainer` beyond `TrainingArguments`.

    A step is the optimizer step on one mini-batch. Every `num_ppo_epochs` x `num_mini_batches` steps new responses are
    generated: a rollout. `per_device_train_batch_size` counts responses, and
    `rollout_batch_size x num_samples = num_mini_batches x per_device_train_batch_size x gradient_accumulation_steps`.

    Example:
        >>> from hf_align import PPOConfig
        >>> config = PPOConfig("out", per_device_train_batch_size=8, num_samples=2, target_kl=6.0)
        >>> config.rollout_batch_size * config.num_samples == config.num_mini_batches * 8
        True
    """

    eval_metrics: ClassVar[tuple[str, ...]] = (
        "reward",
        "objective/kl",
        "response/length",
        "response/eos_share",
        "judge",
    )
    checkpoint_kind: ClassVar[Kind] = "ppo"
    column: ClassVar[Column] = "ppo"
    epochs_option: ClassVar[str] = "num_ppo_epochs"
    method: ClassVar[str] = "PPO"
    learning_rate: float = field(
        default=1e-5,
        metadata={"help": "Peak learning rate. 1e-5 suits full fine-tuning of small models; use 1e-4 with LoRA."},
    )
    num_ppo_epochs: int | None = field(
        default=None,
        metadata={"range": "[1, inf)", "help": "Passes over each rollout. None: 4, or 1 with policy_loss='reinforce'."},
    )
    policy_loss: Literal["clip", "reinforce"] = field(
        default="clip",
        metadata={
            "help": "'clip' is PPO's clipped surrogate, 'reinforce' is -mean(logp * advantage), for one pass over a "
            "rollout in one mini-batch."
        },
    )
    baseline: Literal["value", "group", "none"] = field(
        default="value",
        metadata={
            "help": "What advantages compare returns with: a value head ('value', GAE), the mean return of the "
            "prompt's other samples ('group', RLOO; num_samples of 2 or more), or nothing ('none'). Without values no "
            "value head is made, and options of values are refused."
        },
    )
    group_scaling: bool = field(
        default=False,
        metadata={
            "help": "With baseline='group': divide by the standard deviation (n - 1) of the group's returns plus 1e-4 "
            "(GRPO). Prompts then count alike, however far their returns are apart, which changes the objective."
        },
    )
    clip_range: float = field(
        default=0.2,
        metadata={"range": "(0, inf)", "help": "Range of a token's probability ratio with a gradient: 1 +- this."},
    )
    value_clip_range: float | None = field(
        default=0.2,
        metadata={
            "range": "(0, inf)",
            "help": "Range around a value's rollout value with a gradient, in units of the return. None: off.",
        },
    )
    value_coef: float = field(default=0.1, metadata={"range": "[0, inf)", "help": "Weight of the value loss."})
    value_learning_rate: float | None = field(
        default=None,
        metadata={
            "range": "(0, inf)",
            "help": "Peak learning rate of the value head (and its adapter or model). None: learning_rate.",
        },
    )
    value_model: Literal["shared", "adapter", "separate"] = field(
        default="shared",
        metadata={
            "help": "Hidden states for the value head: those of the policy ('shared'), of a separate adapter on the "
            "policy's base ('adapter'), or of a copy of the model ('separate')."
        },
    )
    value_head: Literal["linear", "mlp"] = field(
        default="linear",
        metadata={"help": "The head that turns a hidden state into a value: 'mlp' has a hidden layer."},
    )
    detach_value_trunk: bool = field(
        default=False,
        metadata={"help": "With value_model='shared': the value loss trains only the head, not the policy's trunk."},
    )
    value_init: Literal["zero", "reward"] = field(
        default="zero",
        metadata={
            "help": "Initial values: 0, or ('reward') the output of the reward model's head, which must then be the "
            "only reward, on the value model's hidden states. With value_model='adapter' and a reward adapter of "
            "the same shape these are its scores of the unfinished responses."
        },
    )
    entropy_coef: float = field(default=0.0, metadata={"range": "[0, inf)", "help": "Weight of the entropy bonus."})
    gamma: float = field(default=1.0, metadata={"range": "[0, 1]", "help": "Discount per token."})
    lam: float = field(
        default=0.95,
        metadata={"range": "[0, 1]", "help": "GAE's lambda: 0 one-step advantages, 1 returns minus values."},
    )
    whiten_advantages: bool | Literal["trajectory"] | None = field(
        default=None,
        metadata={
            "help": "Shift and scale advantages to mean 0, variance 1: of a rollout's tokens, over all processes "
            "(True), or of each response's ('trajectory', where a response of one token gets 0). None: True with "
            "values, False without."
        },
    )
    whiten_rewards: bool = field(
        default=False, metadata={"help": "Scale the tokens' rewards of a rollout, over all processes, to variance 1."}
    )
    scale_rewards: bool | Literal["shift"] = field(
        default=False,
        metadata={
            "help": "Divide scores by the running standard deviation of all scores so far; 'shift': subtract their "
            "mean first."
        },
    )
    reward_clip: float | None = field(
        default=None, metadata={"range": "(0, inf)", "help": "Clip scores to +- this, after scaling. None: off."}
    )
    kl_coef: float = field(
        default=0.05, metadata={"range": "[0, inf)", "help": "Initial weight of the KL from the reference."}
    )
    kl_controller: Literal["proportional", "threshold", "fixed"] = field(
        default="proportional",
        metadata={
            "help": "How kl_coef changes after each rollout: 'proportional' to the KL's relative error (Ziegler et al. "
            "2019), by a factor once the KL is far off ('threshold'), or never ('fixed')."
        },
    )
    target_kl: float = field(
        default=6.0,
        metadata={
            "range": "(0, inf)",
            "help": "Target KL of the 'proportional' and 'threshold' controllers, in nats per response.",
        },
    )
    kl_horizon: float = field(
        default=1000.0,
        metadata={
            "range": "(0, inf)",
            "help": "Episodes in which 'proportional' moves kl_coef by about 20% at most. Ziegler et al. used 10,000, "
            "with which it hardly moves in a run of 1,000 episodes.",
        },
    )
    kl_estimator: Literal["k1", "k2", "k3", "full"] | None = field(
        default=None,
        metadata={
            "help": "Estimator of the tokens' KL. None: k1 in the reward, whose gradient is that of the response's KL, "
            "and k2 in the loss. 'full' is the exact KL over the vocabulary, in the loss only. There the gradients of "
            "k2 and 'full' are those of each token's own KL: correct only for responses of one token."
        },
    )
    kl_in: Literal["reward", "terminal", "loss"] = field(
        default="reward",
        metadata={
            "help": "Where the KL goes: it is subtracted from each token's reward, or the whole response's (k1) from "
            "its last token's ('terminal'), or it is added to the loss. In the loss a token's KL doesn't affect the "
            "tokens before it, which changes the optimum (docs/closed-form.md)."
        },
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.detach_value_trunk and self.value_model != "shared":
            raise UserError(
                "detach_value_trunk is True; it must be False with value_model="
                f"{self.value_model!r}, which has a separate trunk."
            )
        self._check_kl()
        self._check_passes()
        self._check_baseline()
        super().__post_init__()

    @property
    def kl_kind(self) -> Literal["k1", "k2", "k3", "full"]:
        """`kl_estimator`, or its default for `kl_in`."""
        return self.kl_estimator or ("k2" if self.kl_in == "loss" else "k1")

    @property
    def idle_options(self) -> tuple[str, ...]:
        """Options that mean nothing with the others as they are; cards leave them out."""
        of_values = () if self.baseline == "value" else OF_VALUES
        return of_values if self.policy_loss == "clip" else (*of_values, "clip_range")

    def make_kl_controller(self) -> FixedKLController:
        """A new controller of the kind `kl_controller`."""
        if self.kl_controller == "fixed":
            return FixedKLController(self.kl_coef)
        if self.kl_controller == "threshold":
            return ThresholdKLController(self.kl_coef, self.target_kl)
        return ProportionalKLController(self.kl_coef, self.target_kl, self.kl_horizon)

    def _check_kl(self) -> None:
        lowest, highest = ThresholdKLController.min_coef, ThresholdKLController.max_coef  # the other one's, too
        if self.kl_controller != "fixed" and not lowest <= self.kl_coef <= highest:
            raise UserError(
                f"kl_coef is {self.kl_coef}; kl_controller={self.kl_controller!r} keeps it between {lowest:g} and "
                f"{highest:g}, so start there or set kl_controller='fixed'."
            )
        if self.kl_in == "loss" and self.kl_estimator == "k1":
            raise UserError(
                "kl_estimator='k1' does nothing in the loss: its expected gradient is 0; use 'k2' or 'full' there."
            )
        if self.kl_in == "reward" and self.kl_estimator == "full":
            raise UserError("kl_estimator='full' works in the loss only; set kl_in='loss', or 'k1' for the reward.")
        if self.kl_in == "terminal" and self.kl_kind != "k1":
            raise UserError(
                f"kl_estimator='{self.kl_estimator}' doesn't add up over a response's tokens to its log-ratio, which "
                "kl_in='terminal' subtracts; use 'k1' there."
            )
        biased = {"reward": ("k2", "k3"), "terminal": (), "loss": ("k3",)}
        if self.kl_estimator in biased[self.kl_in]:
            better = "k1" if self.kl_in == "reward" else "k2"
            logger.warning(
                f"kl_estimator='{self.kl_estimator}' in the {self.kl_in} has a biased gradient, so training ends at "
                f"another policy than the KL-regularised optimum; use '{better}' there."
            )

    def _check_passes(self) -> None:
        """Fill in `num_ppo_epochs`, and refuse updates that REINFORCE can't make."""
        reinforce = self.policy_loss == "reinforce"
        if self.num_ppo_epochs is None:
            self.num_ppo_epochs = 1 if reinforce else 4
        for name in ("num_ppo_epochs", "num_mini_batches"):
            if reinforce and getattr(self, name) != 1:
                raise UserError(
                    f"{name} is {getattr(self, name)}, and policy_loss='reinforce' takes one step on a rollout: after "
                    "it, the responses are those of an older policy, which only the ratio of 'clip' makes up for."
                )
        if reinforce and self.clip_range != PPOConfig.__dataclass_fields__["clip_range"].default:
            raise UserError(
                f"clip_range is {self.clip_range}, and policy_loss='reinforce' has no ratio to clip; leave it out."
            )

    def _check_baseline(self) -> None:
        """Refuse options that mean nothing with this baseline, and fill in `whiten_advantages`."""
        if self.baseline == "group" and self.num_samples < 2:
            raise UserError(
                "baseline='group' compares the samples of a prompt with each other, and num_samples is 1; set it to 2 "
                "or more."
            )
        if self.group_scaling and self.baseline != "group":
            raise UserError(f"group_scaling is for baseline='group', not for {self.baseline!r}; leave it out.")
        if self.baseline != "value":
            defaults = {each.name: each.default for each in fields(self)}
            for name in OF_VALUES:
                if getattr(self, name) != defaults[name]:
                    raise UserError(
                        f"{name} is {getattr(self, name)!r}, and with baseline={self.baseline!r} there are no values; "
                        "leave it out."
                    )
        if self.whiten_advantages is None:
            self.whiten_advantages = self.baseline == "value"
        same_for_all_tokens = self.baseline == "group" or (
            self.gamma == 1 and (self.baseline == "none" or self.lam == 1)
        )
        if self.whiten_advantages == "trajectory" and same_for_all_tokens:
            raise UserError(
                "whiten_advantages='trajectory' would take the score away, which all tokens of a response share with "
                f"baseline={self.baseline!r}, gamma={self.gamma:g} and lam={self.lam:g}; use True, or, with values or "
                "'none', gamma below 1."
            )
