"""Data options and data handling of the trainers on preference pairs: all is ready before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, cast

from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from hf_align.collators import PreferenceCollator, check_preferences, find_pad_token_id, tokenize_preferences
from hf_align.errors import UserError
from hf_align.layout.cost import Lengths
from hf_align.models.wrapper import BranchModel
from hf_align.trainers.base import BranchTrainer
from hf_align.trainers.config import AlignmentConfig
from hf_align.trainers.data import batches_of, parts_of


@dataclass
class PreferenceConfig(AlignmentConfig):
    """Options of all trainers on pairs of a chosen and a rejected response."""

    max_length: int | None = field(
        default=1024,
        metadata={
            "help": "Most tokens of a prompt with one response. A longer prompt is cut first, then the response; "
            "no response is ever removed. None: no limit."
        },
    )
    max_prompt_length: int | None = field(
        default=None, metadata={"help": "Most tokens of a prompt. None: whatever max_length leaves to it."}
    )
    truncation_mode: Literal["keep_end", "keep_start"] = field(
        default="keep_end", metadata={"help": "Which part of a prompt that is too long to keep."}
    )
    dataset_num_proc: int | None = field(
        default=None, metadata={"help": "Processes that tokenise the data. None: one."}
    )


class PreferenceTrainer(BranchTrainer):
    """A `BranchTrainer` on rows of prompt, chosen and rejected: branch 0 is the chosen response, 1 the rejected."""

    args: PreferenceConfig  # type: ignore[assignment]
    config_class: type[Any] = PreferenceConfig
    columns = "prompt, chosen and rejected"

    def prepare_rows(self, data: Any, tokenizer: PreTrainedTokenizerBase, name: str) -> Any:
        """Check and tokenise pairs."""
        return tokenized_pairs(data, tokenizer, self.args, name)

    def default_collator(self, tokenizer: PreTrainedTokenizerBase) -> PreferenceCollator:
        """A collator of pairs."""
        return PreferenceCollator(pad_token_id=find_pad_token_id(tokenizer), row_tokens=self.args.row_tokens)

    def check_room(self, model: BranchModel, *datasets: Any) -> None:
        """Refuse pairs with more tokens than the model has positions."""
        _check_room(model, self.args, *datasets)

    def batch_lengths(self, rows: Any, size: int, *, training: bool) -> list[list[Lengths]]:
        """Lengths of the rows' prompts with their two responses."""
        columns = (rows["prompt_ids"], rows["chosen_ids"], rows["rejected_ids"])
        documents: list[Lengths] = [(len(prompt), [len(c), len(r)]) for prompt, c, r in zip(*columns, strict=True)]
        return batches_of(documents, size)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """As Trainer's; rows as they were given are checked and tokenised first."""
        return super().get_eval_dataloader(self._ready(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """As Trainer's; rows as they were given are checked and tokenised first."""
        return super().get_test_dataloader(self._ready(test_dataset))

    def _ready(self, data: Any) -> Any:
        if data is None or isinstance(data, str) or "prompt_ids" in getattr(data, "column_names", ()):
            return data
        return tokenized_pairs(data, cast(PreTrainedTokenizerBase, self.processing_class), self.args, "eval_dataset")


def _check_room(model: BranchModel, args: PreferenceConfig, *datasets: Any) -> None:
    """Refuse rows with more tokens than the model has positions: some fail on them, the others compute nonsense."""
    room = getattr(cast(Any, model.model).config.get_text_config(), "max_position_embeddings", None)
    if room is None or (args.max_length is not None and args.max_length <= room):
        return
    longest = max(
        len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        for part in parts_of(datasets)
        for row in part
    )
    if longest > room:
        raise UserError(
            f"The longest row has {longest} tokens, more than the {room} positions of the model; set max_length to at "
            f"most {room}."
        )


def tokenized_pairs(data: Any, tokenizer: PreTrainedTokenizerBase, args: PreferenceConfig, name: str) -> Any:
    """Check and tokenise a data set, or a dict of them, as `args` says; None stays None."""
    if data is None:
        return None
    if isinstance(data, dict) and name != "train_dataset":
        return {key: tokenized_pairs(part, tokenizer, args, f"{name}[{key!r}]") for key, part in data.items()}
    return tokenize_preferences(
        check_preferences(data, name=name),
        tokenizer,
        max_length=args.max_length,
        max_prompt_length=args.max_prompt_length,
        truncation_mode=args.truncation_mode,
        num_proc=args.dataset_num_proc,
        name=name,
    )
