"""Losses on pairs by name: TRL's, per row, and SimPO.

Each takes a `PreferenceBatch` and the options of the run (`DPOConfig`, or anything with its fields) and gives `[B]`.
h is the chosen log-ratio log(policy / reference) minus the rejected one, and each log-ratio of a difference becomes
`divergence_score` of it under another `f_divergence_type`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor
from torch.nn.functional import logsigmoid

from hf_align.losses.batch import PreferenceBatch, per_token
from hf_align.losses.divergence import divergence_score
from hf_align.losses.preference import smoothed_logistic

LossFunction = Callable[[PreferenceBatch, Any], Tensor]
"""What every loss is: a batch and the run's options to `[B]`; a function of the user's, too."""
DIVERGENCE = ("f_divergence_type", "f_alpha_divergence_coef")


@dataclass(frozen=True)
class PreferenceLoss:
    """A loss with what is said about it.

    Attributes:
        name: Its name in `PREFERENCE_LOSSES`.
        title: Name of the method, for cards.
        formula: The loss of a pair as text. r+ and r- are the log-ratios of chosen and rejected, h = r+ - r-, p+ and p-
            the log-probs, |y| a response's tokens.
        paper: Authors and year.
        arxiv: The paper's number.
        options: Fields of the config that it reads, besides `beta`.
        compute: The loss itself.
        reference_free: Whether it needs no reference.

    Example:
        >>> import torch
        >>> from hf_align import DPOConfig
        >>> from hf_align.losses import PREFERENCE_LOSSES, PreferenceBatch
        >>> batch = PreferenceBatch(
        ...     chosen_logps=torch.tensor([-4.0]),
        ...     rejected_logps=torch.tensor([-9.0]),
        ...     chosen_lengths=torch.tensor([4]),
        ...     rejected_lengths=torch.tensor([3]),
        ... )
        >>> simpo = PREFERENCE_LOSSES["simpo"]  # means -1 and -3, so the gap is 2 * 2 - 1
        >>> simpo(batch, DPOConfig("out", loss_type="simpo", beta=2.0, simpo_gamma=1.0))
        tensor([0.0486])
        >>> simpo.reference_free
        True
    """

    name: str
    title: str
    formula: str
    paper: str
    arxiv: str
    options: tuple[str, ...]
    compute: LossFunction
    reference_free: bool = False

    def __call__(self, batch: PreferenceBatch, config: Any) -> Tensor:
        """Loss of each pair, `[B]`."""
        return self.compute(batch, config)


# ---- of the difference of log-ratios ----


def _scores(batch: PreferenceBatch, config: Any) -> tuple[Tensor, Tensor]:
    """Scores `[B]` of chosen and rejected: log-ratios, as the divergence has them."""
    kind, alpha = config.f_divergence_type, config.f_alpha_divergence_coef
    return (
        divergence_score(batch.chosen_log_ratios, kind, alpha),
        divergence_score(batch.rejected_log_ratios, kind, alpha),
    )


def _gap(batch: PreferenceBatch, config: Any, *, by_token: bool = False) -> Tensor:
    """Difference `[B]` of the scores, or of the scores per token."""
    chosen, rejected = _scores(batch, config)
    if by_token:
        chosen, rejected = per_token(chosen, batch.chosen_lengths), per_token(rejected, batch.rejected_lengths)
    return chosen - rejected


def _sigmoid(batch: PreferenceBatch, config: Any) -> Tensor:
    return smoothed_logistic(
        config.beta * _gap(batch, config, by_token=config.length_normalize), config.label_smoothing
    )


def _sigmoid_norm(batch: PreferenceBatch, config: Any) -> Tensor:
    return smoothed_logistic(config.beta * _gap(batch, config, by_token=True), config.label_smoothing)


def _hinge(batch: PreferenceBatch, config: Any) -> Tensor:
    return (1 - config.beta * _gap(batch, config)).relu()


def _ipo(batch: PreferenceBatch, config: Any) -> Tensor:
    target = 0.5 / config.beta if config.ipo_target is None else config.ipo_target
    return (_gap(batch, config, by_token=config.ipo_reduction == "mean") - target).square()


def _robust(batch: PreferenceBatch, config: Any) -> Tensor:
    # Unbiased where a share s of labels is flipped: its mean over the flips is the loss of the true labels.
    gap, share = config.beta * _gap(batch, config), config.label_smoothing
    return (-(1 - share) * logsigmoid(gap) + share * logsigmoid(-gap)) / (1 - 2 * share)


def _exo_pair(batch: PreferenceBatch, config: Any) -> Tensor:
    gap = config.beta * _gap(batch, config)
    share = gap.new_tensor(config.label_smoothing)
    chosen = gap.sigmoid() * (logsigmoid(gap) - (-share).log1p())
    return chosen + (-gap).sigmoid() * (logsigmoid(-gap) - share.log())


def _discopop(batch: PreferenceBatch, config: Any) -> Tensor:
    gap = config.beta * _gap(batch, config)
    blend = gap / config.discopop_tau
    # The exponential part with its weight in one exponent: exp(-gap) alone overflows where its weight is 0.
    return (-blend).sigmoid() * -logsigmoid(gap) + (logsigmoid(blend) - gap).exp()


# ---- of each log-ratio by itself ----


def _rewards(batch: PreferenceBatch, config: Any) -> tuple[Tensor, Tensor]:
    """Implicit rewards `[B]` of chosen and rejected."""
    return config.beta * batch.chosen_log_ratios, config.beta * batch.rejected_log_ratios


def _nca_pair(batch: PreferenceBatch, config: Any) -> Tensor:
    chosen, rejected = _rewards(batch, config)
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def _bco_pair(batch: PreferenceBatch, config: Any) -> Tensor:
    chosen, rejected = _rewards(batch, config)
    return -logsigmoid(chosen) - logsigmoid(-rejected)


def _sppo_hard(batch: PreferenceBatch, config: Any) -> Tensor:
    target = 0.5 / config.beta
    return (batch.chosen_log_ratios - target).square() + (batch.rejected_log_ratios + target).square()


def _apo_zero(batch: PreferenceBatch, config: Any) -> Tensor:
    chosen, rejected = _rewards(batch, config)
    return (-chosen).sigmoid() + rejected.sigmoid()


def _apo_down(batch: PreferenceBatch, config: Any) -> Tensor:
    chosen, rejected = _rewards(batch, config)
    return chosen.sigmoid() + (rejected - chosen).sigmoid()


# ---- without a reference ----


def _sft(batch: PreferenceBatch, config: Any) -> Tensor:
    return -batch.chosen_means


def _simpo(batch: PreferenceBatch, config: Any) -> Tensor:
    gap = config.beta * (batch.chosen_means - batch.rejected_means) - config.simpo_gamma
    return smoothed_logistic(gap, config.label_smoothing)


LOSSES = (
    PreferenceLoss(
        "sigmoid",
        "DPO",
        "-log sigmoid(beta h)",
        "Rafailov et al. 2023",
        "2305.18290",
        ("label_smoothing", "length_normalize", "ld_alpha", *DIVERGENCE),
        _sigmoid,
    ),
    PreferenceLoss(
        "sigmoid_norm",
        "length-normalised DPO",
        "-log sigmoid(beta (r+ / |y+| - r- / |y-|))",
        "Lambert et al. 2024",
        "2411.15124",
        ("label_smoothing", "ld_alpha", *DIVERGENCE),
        _sigmoid_norm,
    ),
    PreferenceLoss(
        "hinge",
        "SLiC",
        "max(0, 1 - beta h)",
        "Zhao et al. 2023",
        "2305.10425",
        ("ld_alpha", *DIVERGENCE),
        _hinge,
    ),
    PreferenceLoss(
        "ipo",
        "IPO",
        "(r+ / |y+| - r- / |y-| - 1 / (2 beta))^2",
        "Azar et al. 2023",
        "2310.12036",
        ("ipo_target", "ipo_reduction", "ld_alpha", *DIVERGENCE),
        _ipo,
    ),
    PreferenceLoss(
        "robust",
        "robust DPO",
        "(-(1 - s) log sigmoid(beta h) + s log sigmoid(-beta h)) / (1 - 2 s)",
        "Chowdhury et al. 2024",
        "2403.00409",
        ("label_smoothing", "ld_alpha", *DIVERGENCE),
        _robust,
    ),
    PreferenceLoss(
        "exo_pair",
        "EXO",
        "KL((q, 1 - q) || (1 - s, s)), q = sigmoid(beta h)",
        "Ji et al. 2024",
        "2402.00856",
        ("label_smoothing", "ld_alpha", *DIVERGENCE),
        _exo_pair,
    ),
    PreferenceLoss(
        "discopop",
        "DiscoPOP",
        "-(1 - m) log sigmoid(beta h) + m exp(-beta h), m = sigmoid(beta h / tau)",
        "Lu et al. 2024",
        "2406.08414",
        ("discopop_tau", "ld_alpha", *DIVERGENCE),
        _discopop,
    ),
    PreferenceLoss(
        "nca_pair",
        "NCA",
        "-log sigmoid(beta r+) - log sigmoid(-beta r+) / 2 - log sigmoid(-beta r-) / 2",
        "Chen et al. 2024",
        "2402.05369",
        ("ld_alpha",),
        _nca_pair,
    ),
    PreferenceLoss(
        "bco_pair",
        "BCO",
        "-log sigmoid(beta r+) - log sigmoid(-beta r-)",
        "Jung et al. 2024",
        "2404.04656",
        ("ld_alpha",),
        _bco_pair,
    ),
    PreferenceLoss(
        "sppo_hard",
        "SPPO",
        "(r+ - 1 / (2 beta))^2 + (r- + 1 / (2 beta))^2",
        "Wu et al. 2024",
        "2405.00675",
        ("ld_alpha",),
        _sppo_hard,
    ),
    PreferenceLoss(
        "apo_zero",
        "APO-zero",
        "sigmoid(-beta r+) + sigmoid(beta r-)",
        "D'Oosterlinck et al. 2024",
        "2408.06266",
        ("ld_alpha",),
        _apo_zero,
    ),
    PreferenceLoss(
        "apo_down",
        "APO-down",
        "sigmoid(beta r+) + sigmoid(-beta h)",
        "D'Oosterlinck et al. 2024",
        "2408.06266",
        ("ld_alpha",),
        _apo_down,
    ),
    PreferenceLoss(
        "simpo",
        "SimPO",
        "-log sigmoid(beta (p+ / |y+| - p- / |y-|) - gamma)",
        "Meng et al. 2024",
        "2405.14734",
        ("simpo_gamma", "label_smoothing"),
        _simpo,
        reference_free=True,
    ),
    PreferenceLoss(
        "sft",
        "NLL",
        "-p+ / |y+|",
        "Pang et al. 2024",
        "2404.19733",
        (),
        _sft,
        reference_free=True,
    ),
)
PREFERENCE_LOSSES: Mapping[str, PreferenceLoss] = MappingProxyType({each.name: each for each in LOSSES})
"""Losses on pairs by name; `DPOConfig.loss_type` takes the names, and functions of the same form."""
NOT_OFFERED: Mapping[str, str] = MappingProxyType(
    {
        name: f"TRL's {name} sorts the log-ratios of a batch, so that a pair's loss depends on which others are in it"
        for name in ("aot", "aot_unpaired")
    }
)
"""Names of TRL that aren't losses of a pair, with the reason."""
EVERY_OPTION = tuple(dict.fromkeys(option for each in LOSSES for option in each.options))
"""Options that some loss reads."""
