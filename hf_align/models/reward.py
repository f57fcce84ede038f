"""Reward models: one score per response, from a head on a language model's hidden states."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from datasets import Dataset
from peft import PeftModel
from peft.utils import AuxiliaryTrainingWrapper
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.collators.tokenize import tokenize_preferences
from hf_align.errors import UserError
from hf_align.files import CONFIG, REWARD_FILES, REWARD_HEAD, whole_folder
from hf_align.layout.branches import Branches
from hf_align.models.adapters import Lora, active_adapter, evaluation_mode
from hf_align.models.classifier import is_ours
from hf_align.models.fingerprint import BaseDiffers, has_float32_base
from hf_align.models.heads import attention_part, head_dtype
from hf_align.models.length_penalty import length_slope
from hf_align.models.lora_targets import merged_into_base
from hf_align.models.normalization import Normalization, normalized, scale_reward
from hf_align.models.padding import set_distinct_pad_token
from hf_align.models.pooling import pool, pool_prefixes
from hf_align.models.quantized import Quantization
from hf_align.models.reward_config import RewardModelConfig, RewardOutputs
from hf_align.models.reward_files import Settings, add_code, read_head, renamed_head, takes_renamed_head
from hf_align.models.reward_loading import load_parts
from hf_align.models.scoring import Encoded, encode_texts, outputs_of
from hf_align.models.sources import plain_folder
from hf_align.models.vocabulary import check_token_ids
from hf_align.models.wrapper import BranchModel, unwrapped

logger = logging.get_logger(__name__)


class RewardModel(BranchModel):
    """A sequence-classification model (or its PeftModel) with one output, its tokenizer, and how it pools.

    Args:
        model: A model with `num_labels=1` and a head named `score`.
        tokenizer: Its tokenizer; gets a pad token other than EOS if needed: transformers pools the last token that
            isn't padding, so with pad = EOS the end of a response would never be scored.
        config: Default: linear head, last token.
        normalization: The reference set on which its scores are normalised; see `normalize`.

    Attributes:
        head_is_new: Whether its source had no reward head, so that scores mean nothing until it is trained.

    Example:
        >>> from hf_align import RewardModel
        >>> model = RewardModel.from_backbone("HuggingFaceTB/SmolLM2-135M-Instruct")
        >>> model.head_is_new
        True
        >>> len(model.score(["The film was", "The film was"], [" a joy.", " too long."]))
        2
    """

    head_is_new = False

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        config: RewardModelConfig | None = None,
        normalization: Normalization | None = None,
    ):
        super().__init__(model)
        if not hasattr(unwrapped(model), "score"):
            raise UserError(
                f"A reward model has a head called score, and a {type(unwrapped(model)).__name__} has none; give a "
                "language model by its folder or Hub id, as to RewardModel.from_backbone, which adds one."
            )
        if getattr(model.config, "num_labels", None) != 1:
            raise UserError(
                f"A reward model has num_labels=1; this one has {getattr(model.config, 'num_labels', None)}."
            )
        self.tokenizer = tokenizer
        self.reward_config, self.normalization = config or RewardModelConfig(), normalization
        if self.reward_config.pooling == "first":
            logger.warning(
                "pooling='first' is for models that read both ways: a decoder's first token sees no response, so all "
                "responses to a prompt get one score, and nothing is learned from pairs; use 'last' or 'mean'."
            )
        takes_renamed_head(unwrapped(model))
        set_distinct_pad_token(tokenizer, model.config)
        model.config.problem_type = "regression"  # so that pipeline("text-classification") returns the raw score

    @classmethod
    def from_backbone(
        cls, model_id: str | os.PathLike[str], config: RewardModelConfig | None = None, **kwargs: Any
    ) -> RewardModel:
        """Make a reward model with a new head on a language model.

        Args:
            model_id: Hub id or folder of the language model.
            config: Pooling and head.
            kwargs: `quantization`, `lora`, `dtype`, `device_map` as in `load_reward_model`.
        """
        return cls._load(str(model_id), Settings(config or RewardModelConfig()), new_head=True, **kwargs)

    @classmethod
    def from_pretrained(cls, path_or_hub_id: str | os.PathLike[str], **kwargs: Any) -> RewardModel:
        """Load a saved reward model or adapter, or any `num_labels=1` classifier; see `load_reward_model`."""
        path = plain_folder(path_or_hub_id)
        settings = Settings.read(path)
        if settings is None:
            return cls._load(path, Settings(), new_head=False, **kwargs)
        return cls._load(path, settings, head=read_head(path), new_head=False, **kwargs)

    @classmethod
    def _load(cls, path: str, settings: Settings, **kwargs: Any) -> RewardModel:
        parts = load_parts(path, settings.config, **kwargs)
        loaded = cls(parts.model, parts.tokenizer, settings.config, settings.normalization)
        loaded.head_is_new = parts.head_is_new
        return loaded

    @property
    def is_plain(self) -> bool:
        """Whether plain transformers loads it and computes the same scores; it may lack such a classifier."""
        return self.reward_config.is_plain and not is_ours(unwrapped(self))

    @property
    def head(self) -> nn.Module:
        """The module that turns a pooled hidden state `[., d]` into a score `[., 1]` and further outputs `[., C]`."""
        return unwrapped(self).score

    @property
    def offset(self) -> float:
        """What is added to the head's output: 0, or that of the normalisation."""
        return 0.0 if self.normalization is None else self.normalization.offset

    @property
    def log_odds(self) -> float:
        """What makes a difference of rewards log odds: 1, or the standard deviation that normalising divided by."""
        return 1.0 if self.normalization is None else self.normalization.std

    def forward(self, branches: Branches, *, every_token: bool = False) -> Tensor:
        """Rewards of all responses, and whatever else the model predicts; `split` names it.

        Args:
            branches: The batch.
            every_token: Give the outputs as if each response ended at each of its N tokens.

        Returns:
            `[S]` float32, in the order of `Branches.last`, or `[S, C]` with tasks or a projection; `[N]` or `[N, C]`
            with `every_token`.
        """
        head, original = self.head, self.head.forward
        config, offset = self.reward_config, self.offset
        return self.forward_to_head(
            branches,
            head,
            lambda hidden: head_outputs(hidden, branches, head, config, offset, original, every_token=every_token),
        )

    def base_states(self, branches: Branches) -> Tensor:
        """The last hidden states `[R, T, d]` of the backbone without adapter."""
        with active_adapter(self.model, None):
            return self.forward_to_head(branches, unwrapped(self).score, lambda hidden: hidden)

    def split(self, outputs: Tensor) -> RewardOutputs:
        """Name what `forward` returns: rewards, each task's outputs (logits, not probabilities) and embeddings.

        Example:
            >>> from hf_align import RewardModel, RewardModelConfig
            >>> from hf_align.layout import build_branches
            >>> config = RewardModelConfig(tasks={"safe": "binary", "tone": 3})
            >>> model = RewardModel.from_backbone("HuggingFaceTB/SmolLM2-135M-Instruct", config)
            >>> outputs = model.split(model(build_branches([([5, 6], [[7, 2], [8, 9, 2]])], pad_token_id=0)))
            >>> outputs.rewards.shape, outputs.tasks["safe"].shape, outputs.tasks["tone"].shape
            (torch.Size([2]), torch.Size([2]), torch.Size([2, 3]))
        """
        return self.reward_config.split(outputs)

    def score(
        self,
        prompts: Sequence[Any],
        responses: Sequence[Any],
        finished: Sequence[bool] | None = None,
        rows: Sequence[Mapping[str, Any]] | None = None,
        *,
        return_all: bool = False,
    ) -> list[Any]:
        """Score responses to prompts.

        Args:
            prompts: Strings, or lists of chat messages.
            responses: The same number of strings, or lists of assistant messages.
            finished: Whether each response is complete. A response cut by a length limit gets no end of turn (or EOS),
                so that its own last token is scored. Default: all are complete.
            rows: One for each response, with `tools` and `chat_template_kwargs` for the chat template, as in training.
                Default: none has any.
            return_all: Give the reward at every response token, the added end of turn (or EOS) included: the score of
                the response if it ended there. With `mean`, `max` and attention that is of the text so far.

        Returns:
            One raw score per response; higher is better. With `return_all` a list of them per response.
        """
        encoded = encode_texts(self, self.tokenizer, prompts, responses, finished, rows)
        return self._rewards(encoded, return_all=return_all)

    def score_ids(
        self,
        prompt_ids: Sequence[Sequence[int]],
        response_ids: Sequence[Sequence[int]],
        *,
        return_all: bool = False,
    ) -> list[Any]:
        """Score responses to prompts, given as token ids of `tokenizer`; nothing is added, not even an end."""
        return self._rewards(list(zip(prompt_ids, response_ids, strict=True)), return_all=return_all)

    def _rewards(self, encoded: Sequence[Encoded], *, return_all: bool) -> list[Any]:
        def rewards(branches: Branches) -> list[Any]:
            values = self.split(self(branches, every_token=return_all)).rewards
            if not return_all:
                return values.tolist()
            return [part.tolist() for part in values.split(branches.lengths().tolist())]

        with evaluation_mode(self):
            return outputs_of(self, encoded, self.tokenizer.pad_token_id, rewards)

    def score_tasks(
        self,
        prompts: Sequence[Any],
        responses: Sequence[Any],
        finished: Sequence[bool] | None = None,
        rows: Sequence[Mapping[str, Any]] | None = None,
    ) -> dict[str, list[Any]]:
        """Predict the auxiliary tasks for responses to prompts; arguments as in `score`.

        Returns:
            By the task's name, one prediction per response: a regression's value, a binary task's probability of 1,
            or a list of the probabilities of each class.

        Raises:
            UserError: The model has no tasks.

        Example:
            >>> from hf_align import RewardModel, RewardModelConfig
            >>> config = RewardModelConfig(tasks={"helpful": "regression", "tone": 3})
            >>> model = RewardModel.from_backbone("HuggingFaceTB/SmolLM2-135M-Instruct", config)
            >>> predicted = model.score_tasks(["The film was", "The film was"], [" a joy.", " too long."])
            >>> len(predicted["helpful"]), [len(probabilities) for probabilities in predicted["tone"]]
            (2, [3, 3])
        """
        kinds = self.reward_config.tasks
        if not kinds:
            raise UserError("This reward model has no tasks to predict; make one with RewardModelConfig(tasks={...}).")
        encoded = encode_texts(self, self.tokenizer, prompts, responses, finished, rows)
        with evaluation_mode(self):
            outputs = outputs_of(self, encoded, self.tokenizer.pad_token_id, lambda branches: [*self(branches)])
        if not outputs:
            return {name: [] for name in kinds}
        values = self.split(torch.stack(outputs)).tasks
        probabilities = {
            name: value if kinds[name] == "regression" else value.sigmoid() if value.ndim == 1 else value.softmax(-1)
            for name, value in values.items()
        }
        return {name: value.tolist() for name, value in probabilities.items()}

    def normalize(self, dataset: Dataset | list[dict[str, Any]], name: str) -> Normalization:
        """Give the rewards of a reference set mean 0 and standard deviation 1.

        The gain is folded into the head; the offset is kept in reward_config.json and applied here, in whatever uses
        this model, and where the model loads with its own code. transformers' own classifier and peft load a plain
        model without the offset. Order and accuracy stay the same. A difference of rewards is then in standard
        deviations: sigmoid of it times `std` is what training made a probability.

        Args:
            dataset: Rows as for `RewardTrainer`, or tokenised ones; the rewards of all their responses count alike.
            name: Name of the set, for readers of the card.

        Returns:
            The set's mean and standard deviation before.

        Raises:
            UserError: A row can't be used, all rewards are equal, or the head has an adapter in it.

        Example:
            >>> from hf_align import RewardModel
            >>> model = RewardModel.from_backbone("HuggingFaceTB/SmolLM2-135M-Instruct")
            >>> rows = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " too long."}]
            >>> normalization = model.normalize(rows, "two reviews")
            >>> scores = model.score(["The film was", "The film was"], [" a joy.", " too long."])
            >>> round(abs(scores[0]), 3), round(abs(scores[0] + scores[1]), 3)
            (1.0, 0.0)
        """
        measured = self.measure_normalization(dataset, name)
        self.set_normalization(measured)
        return measured

    def measure_normalization(self, dataset: Dataset | list[dict[str, Any]], name: str) -> Normalization:
        """The normalisation that `normalize` would give the rewards, without changing anything."""
        rows = self._tokenized(dataset)
        pairs = [(row["prompt_ids"], ids) for row in rows for ids in row["response_ids"]]
        return normalized(self._rewards(pairs, return_all=False), name, len(rows), self.normalization)

    def _tokenized(self, dataset: Dataset | list[dict[str, Any]]) -> Any:
        tokenized = isinstance(dataset, Dataset) and "response_ids" in dataset.column_names
        rows: Any = dataset if tokenized else tokenize_preferences(dataset, self.tokenizer, name="dataset")
        texts = ([*row["prompt_ids"], *ids] for row in rows for ids in row["response_ids"])
        check_token_ids(unwrapped(self), self.tokenizer, texts, "dataset")
        return rows

    def set_normalization(self, normalization: Normalization) -> None:
        """Fold a measured normalisation into the head and the length penalty, in place of the one before."""
        gain = (1.0 if self.normalization is None else self.normalization.std) / normalization.std
        scale_reward(self.head, gain)
        self.set_length_penalty(self.reward_config.length_penalty * gain)
        self.normalization = normalization

    def penalize_length(self, dataset: Dataset | list[dict[str, Any]], name: str = "dataset") -> float:
        """Subtract from the reward what a response's length adds to it at equal judgement.

        For a model that learnt "longer is better" from its labels. The penalty is a number per token of the response,
        fitted on rows that people judged with care (`length_penalty.length_slope`), and kept in reward_config.json.
        Whatever uses this model applies it; peft alone loads an adapter without it. A model normalised before has mean
        rewards other than 0 afterwards: normalise it again.

        Args:
            dataset: Rows as for `RewardTrainer`, or tokenised ones: a few hundred pairs.
            name: The set's name, for messages.

        Returns:
            The penalty per token, in place of the one before.

        Raises:
            UserError: A row can't be used, or the responses' lengths don't differ.

        Example:
            >>> from hf_align import RewardModel
            >>> model = RewardModel.from_backbone("HuggingFaceTB/SmolLM2-135M-Instruct")
            >>> rows = [
            ...     {"prompt": "The film was", "chosen": " a joy.", "rejected": " too long, and dull."},
            ...     {"prompt": "The film was", "chosen": " a joy from start to end.", "rejected": " too long."},
            ... ]
            >>> penalty = model.penalize_length(rows)
            >>> model.reward_config.length_penalty == penalty
            True
        """
        penalty = self.measure_length_penalty(dataset, name)
        self.set_length_penalty(penalty)
        return penalty

    def measure_length_penalty(self, dataset: Dataset | list[dict[str, Any]], name: str = "dataset") -> float:
        """The penalty that `penalize_length` would set, without changing anything."""
        rows = self._tokenized(dataset)
        pairs = [(row["prompt_ids"], ids) for row in rows for ids in row["response_ids"]]
        rewards = iter(self._rewards(pairs, return_all=False))
        of_rows = [[next(rewards) for _ in row["response_ids"]] for row in rows]
        return self.reward_config.length_penalty + length_slope(of_rows, rows, name)

    def set_length_penalty(self, penalty: float) -> None:
        """Subtract so much per token of a response."""
        self.reward_config = replace(self.reward_config, length_penalty=penalty)

    def save_pretrained(
        self, directory: str | Path, state_dict: dict[str, Tensor] | None = None, **kwargs: Any
    ) -> None:
        """Save model or adapter and tokenizer, and what `reward_files` describes."""
        folder = Path(directory)
        brings_code = not self.is_plain and not isinstance(self.model, PeftModel)
        head = None
        if brings_code:
            state_dict, head = renamed_head(self.state_dict() if state_dict is None else state_dict)
        elif not self.reward_config.is_plain and not isinstance(self.head, AuxiliaryTrainingWrapper):
            head = self.head.state_dict()  # peft saves a wrapped one with the adapter
        super().save_pretrained(folder, state_dict, **kwargs)
        self.save_settings(folder, head)
        if brings_code:
            add_code(folder, Settings(self.reward_config, self.normalization), self.tokenizer)

    def save_settings(self, folder: Path, head: dict[str, Tensor] | None) -> None:
        """Save tokenizer, pooling and normalisation, and the head where it has a file of its own."""
        self.tokenizer.save_pretrained(str(folder))
        for name in REWARD_FILES:
            (folder / name).unlink(missing_ok=True)  # of an earlier model
        if not self.is_plain or self.normalization is not None:
            Settings(self.reward_config, self.normalization).write(folder, own_class=is_ours(unwrapped(self)))
        if head is not None:
            save_file({name: weight.contiguous() for name, weight in head.items()}, folder / REWARD_HEAD)

    def merge_and_save(self, directory: str | Path) -> None:
        """Save a full float32 model with the adapter merged, for `AutoModelForSequenceClassification`.

        The folder appears whole or not at all.
        """
        check_target(Path(directory))
        with whole_folder(directory) as unfinished:
            self.merged().save_pretrained(unfinished)

    def merged(self, dtype: torch.dtype = torch.float32) -> RewardModel:
        """Add the adapter to the base in float32 and round the sum to `dtype`; without adapter, itself.

        A base that isn't in float32 is loaded again, unless it was changed in memory: merging into bfloat16 would move
        scores by some hundredths.

        Raises:
            UserError: A quantised base was changed in memory, so that what is loaded has other weights.
        """
        if not isinstance(self.model, PeftModel):
            return self
        if not has_float32_base(self.model):
            try:
                with TemporaryDirectory() as folder:
                    self.save_pretrained(folder)
                    return merge_saved(folder, dtype)
            except BaseDiffers as error:
                if getattr(self.model, "quantization_method", None) is not None:
                    raise UserError(
                        "The quantised base of this reward model was changed in memory, and merging needs it in full "
                        "precision; save the changed base with save_pretrained and train on that folder."
                    ) from error
        model = cast(Any, merged_into_base(cast(PeftModel, copy.deepcopy(self.model).float()))).to(dtype)
        return RewardModel(model, self.tokenizer, self.reward_config, self.normalization)


def head_outputs(
    hidden: Tensor,
    branches: Branches,
    head: nn.Module,
    config: RewardModelConfig,
    offset: float,
    compute: Callable[[Tensor], Tensor] | None = None,
    *,
    every_token: bool = False,
) -> Tensor:
    """What `RewardModel.forward` returns, from the backbone's states.

    Args:
        hidden: The states, `[R, T, d]`.
        branches: The batch.
        head: The head.
        config: Its pooling and length penalty.
        offset: Added to the rewards.
        compute: The head's forward, where another stands in its place. Default: the head.
        every_token: As in `RewardModel.forward`.
    """
    pooled_states = pool_prefixes if every_token else pool
    # The head is float32: differences of scores are small.
    with torch.autocast(hidden.device.type, enabled=False):
        pooled = pooled_states(hidden, branches, config.pooling, attention_part(head))
        outputs = (compute or head)(pooled.to(head_dtype(head))).float()
    rewards = outputs[:, 0] + offset
    if config.length_penalty:
        rewards = rewards - config.length_penalty * (branches.tokens_so_far() if every_token else branches.lengths())
    return rewards if outputs.shape[1] == 1 else torch.cat([rewards[:, None], outputs[:, 1:]], 1)


def load_reward_model(
    path_or_hub_id: str | os.PathLike[str],
    *,
    quantization: Quantization = None,
    lora: Lora = None,
    dtype: str | torch.dtype = "auto",
    device_map: Any = None,
) -> RewardModel:
    """Load a reward model, whether saved as a full model or as an adapter; arguments as in `load_policy`.

    A language model without a reward head gets a new one (see `RewardModelConfig`), with a warning.

    Example:
        >>> from hf_align import load_reward_model
        >>> load_reward_model("HuggingFaceTB/SmolLM2-135M-Instruct").head_is_new
        True
    """
    return RewardModel.from_pretrained(
        path_or_hub_id, quantization=quantization, lora=lora, dtype=dtype, device_map=device_map
    )


def check_target(folder: Path) -> None:
    """Refuse to replace a folder by a merged model unless it holds a model."""
    if folder.exists() and any(folder.iterdir()) and not (folder / CONFIG).exists():
        raise UserError(f"{folder} exists and is not a model folder; name a new folder to save the merged model in.")


def merge_saved(folder: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> RewardModel:
    """Load a saved reward adapter with its base in float32, merge the two and round the sum to `dtype`."""
    adapted = RewardModel.from_pretrained(folder, dtype=torch.float32)
    model = cast(Any, merged_into_base(cast(PeftModel, adapted.model))).to(dtype)
    return RewardModel(model, adapted.tokenizer, adapted.reward_config, adapted.normalization)
