"""Ensembles of reward models: one score of several members' scores, and how far they agree."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.files import ENSEMBLE, whole_folder
from hf_align.models.aggregation import RULES, aggregate, check_method
from hf_align.models.ensemble_files import EnsembleSettings, ensemble_folder, member_names
from hf_align.models.ensemble_members import Pass, load_members, passes_of
from hf_align.models.normalization import Normalization
from hf_align.models.quantized import Quantization
from hf_align.models.reward import RewardModel
from hf_align.models.scoring import encode_texts
from hf_align.models.sources import is_ensemble as is_ensemble
from hf_align.models.wrapper import BranchModel

logger = logging.get_logger(__name__)


class RewardEnsemble(nn.Module):
    """Several reward models that score as one; it goes wherever a reward model goes.

    Members with LoRA on the same base are adapters on one backbone, which is in memory once; members that are heads on
    one frozen base share its pass, too. Whether a base is the same is decided by its weights. Other members, of other
    bases or with other tokenizers, stay models of their own and read the same texts.

    Args:
        members: Reward models, or their folders or Hub ids.
        method: How their scores become one; see `hf_align.models.aggregation.aggregate`. All but "mean" compare
            members, so theirs have to be normalised on one set (`normalize`).
        weights: One for each member, for "mean" and "weight_average". Default: all alike.
        uncertainty_coef: Coefficient of the variance, for "uncertainty_weighted".
        trim: Share of the members left out at each end, for "trimmed_mean".
        quantization: As in `load_policy`, for members given as folders.
        dtype: As in `load_policy`, for members given as folders.
        device_map: As in `load_policy`, for members given as folders.

    Attributes:
        members: Each has `score`, `score_ids`, `tokenizer`, `reward_config`, `normalization` and `head` as a
            `RewardModel`, and scores as it would alone.
        tokenizer: The first member's.

    Raises:
        UserError: A member can't be loaded, or the settings don't fit.

    Example:
        >>> from hf_align import RewardEnsemble, RewardModel
        >>> base = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> ensemble = RewardEnsemble([RewardModel.from_backbone(base, lora=True) for _ in range(2)])
        >>> prompts, responses = ["The film was", "The film was"], [" a joy.", " too long."]
        >>> ensemble.member_scores(prompts, responses).shape
        torch.Size([2, 2])
        >>> len(ensemble.score(prompts, responses))
        2
    """

    def __init__(
        self,
        members: Sequence[RewardModel | str | os.PathLike[str] | Any],
        method: str = "mean",
        weights: Sequence[float] | None = None,
        *,
        uncertainty_coef: float = 1.0,
        trim: float = 0.2,
        quantization: Quantization = None,
        dtype: str | torch.dtype = "auto",
        device_map: Any = None,
    ):
        super().__init__()
        check_method(method, len(members), weights=weights, trim=trim, uncertainty_coef=uncertainty_coef)
        self.method, self.uncertainty_coef, self.trim = method, uncertainty_coef, trim
        self.weights = None if weights is None else [float(weight) for weight in weights]
        self.members = load_members(members, quantization=quantization, dtype=dtype, device_map=device_map)
        self.models = nn.ModuleList([member for member in self.members if isinstance(member, nn.Module)])
        self._passes: list[Pass] = passes_of(self.members)

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str],
        *,
        quantization: Quantization = None,
        dtype: str | torch.dtype = "auto",
        device_map: Any = None,
    ) -> RewardEnsemble:
        """Load an ensemble that `save_pretrained` or `push_to_hub` wrote.

        Args:
            path_or_hub_id: Folder or Hub id.
            quantization: As in `load_policy`.
            dtype: As in `load_policy`.
            device_map: As in `load_policy`.

        Raises:
            UserError: There is no ensemble, or a member can't be loaded.
        """
        folder = ensemble_folder(path_or_hub_id)
        saved = EnsembleSettings.read(folder)
        return cls(
            [folder / name for name in saved.members],
            saved.method,
            saved.weights,
            uncertainty_coef=saved.uncertainty_coef,
            trim=saved.trim,
            quantization=quantization,
            dtype=dtype,
            device_map=device_map,
        )

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The first member's tokenizer."""
        return self.members[0].tokenizer

    @property
    def device(self) -> torch.device:
        """Where the first member computes."""
        return self.members[0].device

    @property
    def takes_ids(self) -> bool:
        """Whether all members read the same token ids, those of `tokenizer`."""
        return all(each.takes_ids and each.encoding == self._passes[0].encoding for each in self._passes)

    @property
    def normalization(self) -> Normalization | None:
        """The reference set on which all members are normalised, as the first one has it; None without such a set."""
        sets = {None if n is None else (n.name, n.rows) for n in map(_normalization, self.members)}
        return _normalization(self.members[0]) if len(sets) == 1 else None

    def member_scores(
        self,
        prompts: Sequence[Any],
        responses: Sequence[Any],
        finished: Sequence[bool] | None = None,
        rows: Sequence[Mapping[str, Any]] | None = None,
    ) -> Tensor:
        """Each member's scores of R responses; arguments as in `RewardModel.score`.

        Returns:
            `[M, R]` float32, on the CPU.
        """
        encoded: dict[int, Any] = {}
        scores = torch.zeros(len(self.members), len(responses))
        for each in self._passes:
            if not isinstance(each.scorer, BranchModel):  # it may read texts in another way
                scores[each.numbers] = torch.tensor(each.scorer.score(prompts, responses, finished, rows))
                continue
            if each.encoding not in encoded:
                encoded[each.encoding] = encode_texts(each.scorer, each.tokenizer, prompts, responses, finished, rows)
            scores[each.numbers] = each.score_ids(encoded[each.encoding])
        return scores

    def member_score_ids(self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]]) -> Tensor:
        """As `member_scores`, of token ids of `tokenizer`; nothing is added, not even an end.

        Raises:
            UserError: The members don't read the same ids (`takes_ids`).
        """
        if not self.takes_ids:
            raise UserError(
                "The members of this ensemble have different tokenizers; score texts (score) instead of ids."
            )
        encoded = list(zip(prompt_ids, response_ids, strict=True))
        scores = torch.zeros(len(self.members), len(encoded))
        for each in self._passes:
            scores[each.numbers] = each.score_ids(encoded)
        return scores

    def score(
        self,
        prompts: Sequence[Any],
        responses: Sequence[Any],
        finished: Sequence[bool] | None = None,
        rows: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[float]:
        """Score responses to prompts; arguments as in `RewardModel.score`."""
        return self.combine(self.member_scores(prompts, responses, finished, rows)).tolist()

    def score_ids(self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]]) -> list[float]:
        """Score token ids, as `RewardModel.score_ids`."""
        return self.combine(self.member_score_ids(prompt_ids, response_ids)).tolist()

    def combine(self, scores: Tensor) -> Tensor:
        """One score `[R]` of the members' scores `[M, R]`.

        Raises:
            UserError: The method compares members, and they aren't normalised on one set.
        """
        self._check_scale()
        return aggregate(
            scores,
            self.method,
            weights=self.weights,
            trim=self.trim,
            uncertainty_coef=self.uncertainty_coef,
        )

    def _check_scale(self) -> None:
        """Refuse, or for the mean warn about, members whose scores are on different scales."""
        if len(self.members) == 1 or self.normalization is not None or self.method not in RULES:
            return
        problem = "The members of this ensemble aren't normalised on one set, so their scores are on different scales"
        fix = "call normalize(rows, name) first"
        if self.method != "mean":
            raise UserError(f"{problem}, and method={self.method!r} compares them; {fix}.")
        logger.warning_once(f"{problem}, and the mean depends most on the members with the widest; {fix}.")

    def normalize(self, dataset: Dataset | list[dict[str, Any]], name: str) -> list[Normalization]:
        """Normalise each member on a reference set, as `RewardModel.normalize`.

        Returns:
            For each member the set's mean and standard deviation before.
        """
        return [member.normalize(dataset, name) for member in self.members]

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Save the ensemble: a folder for each member, which loads alone, too, and `ensemble.json`.

        The folder appears whole or not at all; an older ensemble there is replaced.

        Raises:
            UserError: The folder holds something else, or a member can't be saved.
        """
        target = Path(directory)
        if target.exists() and any(target.iterdir()) and not (target / ENSEMBLE).exists():
            raise UserError(f"{target} exists and holds no ensemble; name a new folder to save it in.")
        for number, member in enumerate(self.members):
            if not isinstance(member, RewardModel):
                raise UserError(
                    f"Member {number} is a {type(member).__name__}, which can't be saved with an ensemble; load its "
                    "folder as a member of its own."
                )
        names = member_names(len(self.members))
        with whole_folder(target) as unfinished:
            for name, member in zip(names, self.members, strict=True):
                member.save_pretrained(unfinished / name)
                (unfinished / name / "README.md").unlink(missing_ok=True)  # peft's
            self._settings(names).write(unfinished)

    def _settings(self, names: list[str]) -> EnsembleSettings:
        return EnsembleSettings(
            method=self.method,
            weights=self.weights,
            uncertainty_coef=self.uncertainty_coef,
            trim=self.trim,
            members=names,
            kind=self.kind,
            fitted=False,
        )

    @property
    def kind(self) -> str:
        """What the members share: "adapters" or "heads" on one backbone, nothing ("models"), or "mixed"."""
        models = {id(member.model) for member in self.members if isinstance(member, RewardModel)}
        if len(models) == len(self.members):
            return "models"
        if len(models) > 1 or not all(isinstance(member, RewardModel) for member in self.members):
            return "mixed"
        return "adapters" if isinstance(cast(Any, self.members[0]).model, PeftModel) else "heads"


def _normalization(member: Any) -> Normalization | None:
    return getattr(member, "normalization", None)
