"""Ensembles of reward models: one score of several members' scores, and how far they agree."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.files import AGGREGATOR, ENSEMBLE
from hf_align.hub.push import PushedFolder, push_model
from hf_align.models.aggregation import FITTED, aggregate, check_method
from hf_align.models.ensemble_files import (
    EnsembleSettings,
    ensemble_folder,
    load_aggregator,
    member_names,
    save_ensemble,
)
from hf_align.models.ensemble_members import load_members
from hf_align.models.ensemble_passes import Ids, Passes, PromptStates, Rows, Texts, prompt_states
from hf_align.models.error_correlation import ErrorCorrelation, correlate_errors
from hf_align.models.fitted_aggregation import DynamicSelector, Preferences, Stacking
from hf_align.models.normalization import Normalization, normalized
from hf_align.models.quantized import Quantization
from hf_align.models.reward import RewardModel
from hf_align.models.scoring import Encoded
from hf_align.models.uncertainty import DROPPED, PENALTY, RELATIVE, deviation, disagreement, dropout_scores, measures_of
from hf_align.models.weight_average import weight_average

logger = logging.get_logger(__name__)


class RewardEnsemble(nn.Module):
    """Several reward models that score as one; it goes wherever a reward model goes.

    Members with LoRA on the same base are adapters on one backbone, which is in memory once; members that are heads on
    one frozen base share its pass, too. Whether a base is the same is decided by its weights. Other members, of other
    bases or with other tokenizers, stay models of their own and read the same texts.

    Args:
        members: Reward models, or their folders or Hub ids.
        method: How their scores become one: "mean", "median", "trimmed_mean", "min" or "uncertainty_weighted" (see
            `hf_align.models.aggregation.aggregate`), "stacking" or "dynamic", which `fit` fits, or "weight_average",
            which scores with one model of averaged weights. What compares members needs all of them normalised on one
            set (`normalize`).
        weights: One for each member, for "mean" and "weight_average". Default: all alike.
        uncertainty_coef: Coefficient of the variance, for "uncertainty_weighted".
        trim: Share of the members left out at each end, for "trimmed_mean".
        quantization: As in `load_policy`, for members given as folders.
        dtype: As in `load_policy`, for members given as folders.
        device_map: As in `load_policy`, for members given as folders.

    Attributes:
        members: Each has `score`, `score_ids`, `tokenizer`, `reward_config`, `normalization` and `head` as a
            `RewardModel`, and scores as it would alone.
        aggregator: What `fit` fitted, None before.
        measured_errors: What `error_correlation` measured, None before.

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
        if isinstance(members, str | os.PathLike | RewardModel):
            raise UserError("members is a single reward model; give a list of them.")
        check_method(method, len(members), weights=weights, trim=trim, uncertainty_coef=uncertainty_coef)
        self.method, self.uncertainty_coef, self.trim = method, uncertainty_coef, trim
        self.weights = None if weights is None else [float(weight) for weight in weights]
        self.members = load_members(members, quantization=quantization, dtype=dtype, device_map=device_map)
        self.models = nn.ModuleList([member for member in self.members if isinstance(member, nn.Module)])
        self.aggregator: Stacking | DynamicSelector | None = None
        self.measured_errors: ErrorCorrelation | None = None
        self._passes = Passes(self.members)
        self._averaged: RewardModel | None = None
        self._states: PromptStates | None = None

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str],
        *,
        quantization: Quantization = None,
        dtype: str | torch.dtype = "auto",
        device_map: Any = None,
        place: Callable[[Path], Any] = lambda folder: folder,
    ) -> RewardEnsemble:
        """Load an ensemble that `save_pretrained` or `push_to_hub` wrote.

        Args:
            path_or_hub_id: Folder or Hub id.
            quantization: As in `load_policy`.
            dtype: As in `load_policy`.
            device_map: As in `load_policy`.
            place: Makes a member of its folder, such as an adapter on a policy's base. Default: it is loaded.

        Raises:
            UserError: There is no ensemble, or a member can't be loaded.
        """
        folder = ensemble_folder(path_or_hub_id)
        saved = EnsembleSettings.read(folder)
        ensemble = cls(
            [place(folder / name) for name in saved.members],
            saved.method,
            saved.weights,
            uncertainty_coef=saved.uncertainty_coef,
            trim=saved.trim,
            quantization=quantization,
            dtype=dtype,
            device_map=device_map,
        )
        if saved.fitted:
            ensemble.aggregator = load_aggregator(folder / AGGREGATOR, saved.method, len(ensemble.members))
        if saved.error_correlation is not None:
            ensemble.measured_errors = ErrorCorrelation.from_json(saved.error_correlation)
        return ensemble

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
        return self._passes.takes_ids

    @property
    def normalization(self) -> Normalization | None:
        """The reference set on which all members are normalised, as the first one has it; None without such a set."""
        sets = {None if n is None else (n.name, n.rows) for n in map(_normalization, self.members)}
        return _normalization(self.members[0]) if len(sets) == 1 else None

    @property
    def log_odds(self) -> float:
        """What makes a difference of scores log odds: as fitted, else the mean of the members' `log_odds`.

        Of another method than the mean or the weight average, and not fitted, that is an approximation.
        """
        if self.aggregator is not None:
            return self.aggregator.log_odds
        return fmean(map(_log_odds, self.members))

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
        texts = (prompts, responses, finished, rows)
        return self._passes.scores(self._passes.encode(texts), texts)

    def score(
        self,
        prompts: Sequence[Any],
        responses: Sequence[Any],
        finished: Sequence[bool] | None = None,
        rows: Sequence[Mapping[str, Any]] | None = None,
        *,
        return_uncertainty: bool | Iterable[str] = False,
    ) -> Any:
        """Score responses to prompts.

        Args:
            prompts: As in `RewardModel.score`.
            responses: As in `RewardModel.score`.
            finished: As in `RewardModel.score`.
            rows: As in `RewardModel.score`.
            return_uncertainty: Also return how unsure the score is, by measure: "std" of the members' scores,
                "entropy" and "variance_ratio" of whether they are above the reference set's mean, and "mc_dropout",
                the deviation of the ensemble's score over 10 networks drawn by dropout. True: all four; names: these.
                Beside them "penalty" has a name: what the method takes off the mean of the members' scores.

        Returns:
            One score per response; higher is better. With `return_uncertainty` also a dict of measure and one value per
            response.

        Raises:
            UserError: The method or a measure needs members that are normalised on one set, or the method must be
                fitted first.
        """
        texts = (prompts, responses, finished, rows)
        return self._score(self._passes.encode(texts), texts, return_uncertainty)

    def score_ids(
        self,
        prompt_ids: Sequence[Sequence[int]],
        response_ids: Sequence[Sequence[int]],
        *,
        return_uncertainty: bool | Iterable[str] = False,
    ) -> Any:
        """As `score`, of token ids of `tokenizer`; nothing is added, not even an end."""
        return self._score(self._passes.encoded(prompt_ids, response_ids), None, return_uncertainty)

    # ---- inside ----

    def _score(self, encoded: Ids, texts: Texts | None, asked: bool | Iterable[str]) -> Any:
        measures = measures_of(asked)
        self._check_scale(measures)
        if self.method == "weight_average":
            scores = torch.tensor(self.averaged.score_ids(*_unzipped(encoded[0])))
            members = self._passes.scores(encoded, texts) if set(measures) - {DROPPED} else None
        else:
            members = self._passes.scores(encoded, texts)
            scores = self._combine(members, encoded)
        if asked is False:
            return scores.tolist()
        uncertainty, log_odds = {}, [_log_odds(member) for member in self.members]
        for measure in measures:
            if measure == DROPPED:
                model = self.averaged if self.method == "weight_average" else self
                passes = dropout_scores(model, lambda: self._score(encoded, texts, False))
                uncertainty[measure] = deviation(passes).tolist()
            elif measure == PENALTY:
                uncertainty[measure] = (cast(Tensor, members).mean(0) - scores).tolist()
            else:
                uncertainty[measure] = disagreement(measure, cast(Tensor, members), log_odds).tolist()
        return scores.tolist(), uncertainty

    def _combine(self, scores: Tensor, encoded: Ids) -> Tensor:
        """One score `[R]` of the members' scores `[M, R]`."""
        if self.method not in FITTED:
            settings = {"weights": self.weights, "trim": self.trim, "uncertainty_coef": self.uncertainty_coef}
            return aggregate(scores, self.method, **cast(Any, settings))
        if self.aggregator is None:
            raise UserError(
                f"method={self.method!r} isn't fitted; call fit(dataset) with held-out pairs or rankings first."
            )
        states = (self._prompt_states(encoded),) if self.method == "dynamic" else ()
        return self.aggregator(scores, *states)

    def _prompt_states(self, encoded: Ids) -> Tensor:
        """States `[R, d]` of the prompts, of the first member's backbone without adapter."""
        first = self.members[0]
        if not hasattr(first, "base_states"):
            raise UserError(
                f"method='dynamic' reads the first member's hidden states, and a {type(first).__name__} has none; put "
                "a RewardModel first."
            )
        if self._states is None:
            self._states = PromptStates(first)
        return prompt_states(self._states, self.tokenizer, encoded[0])

    @property
    def averaged(self) -> RewardModel:
        """The reward model of the members' averaged weights, for method "weight_average"."""
        if self._averaged is None:
            self._averaged = weight_average(self.members, self.weights)
        return self._averaged

    def _check_scale(self, measures: Collection[str] = ()) -> None:
        """Refuse what compares the scores of members on different scales; for a mean, warn."""
        if len(self.members) == 1 or self.normalization is not None:
            return
        problem = "The members of this ensemble aren't normalised on one set, so their scores are on different scales"
        fix = "call normalize(rows, name) first"
        if self.method not in ("mean", "weight_average", "stacking"):
            raise UserError(f"{problem}, and method={self.method!r} compares them; {fix}.")
        if compared := [name for name in measures if name in RELATIVE]:
            raise UserError(f"{problem}, and {' and '.join(compared)} compare them with that set's mean; {fix}.")
        if self.method != "stacking":
            logger.warning_once(f"{problem}, and the members with the widest weigh most; {fix}.")
        if "std" in measures:
            logger.warning_once(f"{problem}, and std is of these scales more than of what members disagree on; {fix}.")

    # ---- held-out rows ----

    def normalize(self, dataset: Rows, name: str) -> list[Normalization]:
        """Normalise each member on a reference set, as `RewardModel.normalize` does; a fitted method must be refitted.

        Args:
            dataset: Pairs or rankings.
            name: Name of the set, for readers of the card.

        Returns:
            Each member's normalisation.

        Raises:
            UserError: A row can't be used, or a member's scores are all equal.
        """
        for number, member in enumerate(self.members):
            if not isinstance(member, RewardModel):
                raise UserError(f"Member {number} is a {type(member).__name__}; normalise it before it is a member.")
        rows, encoded, texts = self._passes.read(dataset)
        scores = self._passes.scores(encoded, texts).tolist()
        measured = [
            normalized(of_member, name, len(rows), member.normalization)
            for of_member, member in zip(scores, self.members, strict=True)
        ]
        for member, normalization in zip(self.members, measured, strict=True):
            member.set_normalization(normalization)
        self.aggregator = self._averaged = None
        return measured

    def fit(self, dataset: Rows) -> RewardEnsemble:
        """Fit method "stacking" or "dynamic" on held-out rows: rows that no member was trained on.

        Args:
            dataset: Pairs or rankings; labels may be soft.

        Returns:
            Itself.

        Raises:
            UserError: The method has nothing to fit, or the rows are too few.
        """
        if self.method not in FITTED:
            raise UserError(f"method={self.method!r} has nothing to fit; fit is for {' and '.join(FITTED)}.")
        self._check_scale()
        rows, encoded, texts = self._passes.read(dataset)
        scores, preferences = self._passes.scores(encoded, texts), Preferences.of(cast(Any, rows))
        if self.method == "stacking":
            self.aggregator = Stacking(len(self.members)).fit(scores, preferences)
        else:
            states = self._prompt_states(encoded)
            self.aggregator = DynamicSelector(states.shape[1], len(self.members)).fit(scores, preferences, states)
        return self

    def error_correlation(self, dataset: Rows, name: str = "held-out rows") -> ErrorCorrelation:
        """How far the members make the same errors on held-out rows; the card shows it from then on.

        Args:
            dataset: Pairs or rankings that no member was trained on.
            name: Their name, for readers of the card.

        Returns:
            The correlations. Above .9 there is a warning: such members add next to nothing to each other.
        """
        rows, encoded, texts = self._passes.read(dataset)
        measured = correlate_errors(self._passes.scores(encoded, texts), Preferences.of(cast(Any, rows)), name)
        if measured.high:
            two = ", ".join(f"{i} and {j} ({measured.matrix[i][j]:.2f})" for i, j in measured.high)
            logger.warning(
                f"Members make nearly the same errors on {name}: {two}. They add little to each other; vary their "
                "data, seeds, ranks, layers or bases."
            )
        self.measured_errors = measured
        return measured

    # ---- saving ----

    def save_pretrained(self, directory: str | os.PathLike[str], *, beside_others: bool = False) -> None:
        """Save the ensemble: a folder for each member, which loads alone, too, `ensemble.json` and a card.

        The folder appears whole or not at all. An older ensemble there is replaced; other files stay, as does a card
        that was edited by hand.

        Args:
            directory: The folder.
            beside_others: Save it into a folder that holds other files and no ensemble, too.

        Raises:
            UserError: The folder holds something else, or a member can't be saved.
        """
        target = Path(directory)
        if not beside_others and target.exists() and any(target.iterdir()) and not (target / ENSEMBLE).exists():
            raise UserError(f"{target} exists and holds no ensemble; name a new folder to save it in.")
        for number, member in enumerate(self.members):
            if not isinstance(member, RewardModel):
                raise UserError(
                    f"Member {number} is a {type(member).__name__}, which can't be saved with an ensemble; make one of "
                    "reward models or their folders."
                )
        save_ensemble(target, self.members, self._settings(), self.aggregator)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        base_model: str | None = None,
        private: bool | None = None,
        license: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload an ensemble with hf-align",
        token: str | None = None,
    ) -> PushedFolder:
        """Save the ensemble and push it into one repository, with one card; arguments as in `hf_align.hub.push_model`.

        Raises:
            UserError: A member can't be saved, its base isn't on the Hub, or the Hub or the connection fails.
        """
        with TemporaryDirectory(prefix="hf-align-ensemble-") as scratch:
            folder = Path(scratch, repo_id.split("/")[-1] or "ensemble")
            self.save_pretrained(folder)
            options = {"base_model": base_model, "private": private, "license": license, "revision": revision}
            return push_model(folder, repo_id, commit_message=commit_message, token=token, **cast(Any, options))

    def _settings(self) -> EnsembleSettings:
        return EnsembleSettings(
            method=self.method,
            weights=self.weights,
            uncertainty_coef=self.uncertainty_coef,
            trim=self.trim,
            members=member_names(len(self.members)),
            kind=self.kind,
            fitted=self.aggregator is not None,
            error_correlation=None if self.measured_errors is None else self.measured_errors.to_json(),
        )

    @property
    def kind(self) -> str:
        """What the members share: "adapters" or "heads" on one backbone, nothing ("models"), or "mixed"."""
        models = {id(member.model) for member in self.members if isinstance(member, RewardModel)}
        if len(models) == len(self.members):
            return "models"
        if len(models) > 1 or not all(isinstance(member, RewardModel) for member in self.members):
            return "mixed"
        return "adapters" if isinstance(self.members[0].model, PeftModel) else "heads"


def members_of(model: Any) -> Sequence[Any]:
    """An ensemble's members, or any other model as the only one."""
    return model.members if isinstance(model, RewardEnsemble) else [model]


def _unzipped(encoded: Sequence[Encoded]) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
    return [prompt for prompt, _ in encoded], [response for _, response in encoded]


def _normalization(member: Any) -> Normalization | None:
    return getattr(member, "normalization", None)


def _log_odds(member: Any) -> float:
    normalization = _normalization(member)
    return 1.0 if normalization is None else normalization.std
