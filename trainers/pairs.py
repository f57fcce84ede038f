"""Data options and data handling of the trainers on preference pairs, before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, Literal, cast

from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from hf_align.collators import PreferenceCollator, check_preferences, find_pad_token_id, tokenize_preferences
from hf_align.collators.blocks import BlockReader, Rows
from hf_align.collators.checks import as_preferences
from hf_align.collators.encoding import PairEncoder
from hf_align.collators.labels import Tasks
from hf_align.collators.truncation import Limits
from hf_align.data.augment import refuse_augmented
from hf_align.data.layouts.recognition import trained_rows
from hf_align.errors import UserError
from hf_align.models.decoders import positions_of
from hf_align.models.vocabulary import check_token_ids
from hf_align.models.wrapper import BranchModel, unwrapped
from hf_align.trainers.base import BranchTrainer
from hf_align.trainers.config import AlignmentConfig
from hf_align.trainers.converted_stream import read_as_preferences
from hf_align.trainers.data import check_tokens, parts_of
from hf_align.trainers.stream import RowStream, check_stream_options, first_rows, is_stream
from hf_align.trainers.streaming import StreamingTrainer


@dataclass
class PreferenceConfig(AlignmentConfig):
    """Options of all trainers on pairs of a chosen and a rejected response."""

    # Whether rows are plain pairs, without soft labels or more responses.
    plain_pairs: ClassVar[bool] = True

    max_length: int | None = field(
        default=1024,
        metadata={
            "help": "Maximum tokens of a prompt with one response. The prompt is cut first, then the response; "
            "no response is ever removed. None: no limit."
        },
    )
    max_prompt_length: int | None = field(
        default=None, metadata={"help": "Maximum tokens of a prompt. None: limited by max_length only."}
    )
    truncation_mode: Literal["keep_end", "keep_start"] = field(
        default="keep_end", metadata={"help": "Part of a too long prompt to keep."}
    )
    dataset_num_proc: int | None = field(
        default=None, metadata={"help": "Number of processes to tokenise with. None: one."}
    )


class PreferenceTrainer(StreamingTrainer, BranchTrainer):
    """A `BranchTrainer` on rows of prompt, chosen and rejected: branch 0 is the chosen response, 1 the rejected.

    The rows to train on may be a stream; its first rows are prepared as a data set is.
    """

    args: PreferenceConfig  # type: ignore[assignment]
    config_class: type[Any] = PreferenceConfig
    columns = "prompt, chosen and rejected"

    def check_data(self, train_dataset: Any) -> None:
        """Refuse a stream where an option needs all rows at once, or without `max_steps`."""
        if is_stream(train_dataset):
            check_stream_options(self.args)

    def prepare_training(self, data: Any, tokenizer: PreTrainedTokenizerBase) -> Any:
        """Check and tokenise the training rows, of a stream the first ones."""
        if not is_stream(data):
            return super().prepare_training(data, tokenizer)
        read, args = first_rows(data), self.args
        stream = read_as_preferences(data, read, "train_dataset", plain=args.plain_pairs)
        if stream is not data:
            data, read = stream, first_rows(stream)
        as_preferences(read, "train_dataset", plain=args.plain_pairs)
        first = self.prepare_rows(read, tokenizer, "train_dataset")
        reader = BlockReader(
            tuple(dict.fromkeys(column for row in read for column in row)),
            PairEncoder(tokenizer),
            Limits(args.max_length, args.max_prompt_length, args.truncation_mode),
            tasks=self.tasks_of_rows,
            plain=args.plain_pairs,
            problem_of=self.row_problem,
        )
        return RowStream(data, first, read, reader, indexed="index" in first.column_names)

    @property
    def tasks_of_rows(self) -> Tasks:
        """Auxiliary tasks whose labels the rows may have."""
        return {}

    def row_problem(self, row: Mapping[str, Any]) -> str:
        """Say why a tokenised row can't be trained on, worded to follow "1 row has"; "" if it can."""
        return ""

    def check_later_rows(self, rows: Rows, numbers: Sequence[int]) -> None:
        """Refuse rows of a stream with more tokens than the model has positions, or with tokens unknown to it."""
        model, tokenizer = self.accelerator.unwrap_model(self.model), cast(Any, self.processing_class)
        room = _room_of(model, self.args)
        for row, number in zip(rows, numbers, strict=True):
            if room is not None and (length := _length(row)) > room:
                raise UserError(
                    f"train_dataset: row {number} has {length} tokens, more than the {room} positions of the model; "
                    f"set max_length to at most {room}."
                )
        ids = (chain(row["prompt_ids"], *row["response_ids"]) for row in rows)
        check_token_ids(unwrapped(model), tokenizer, ids, "train_dataset", numbers)

    def prepare_rows(self, data: Any, tokenizer: PreTrainedTokenizerBase, name: str) -> Any:
        """Check and tokenise pairs."""
        return tokenized_pairs(data, tokenizer, self.args, name)

    def default_collator(self, tokenizer: PreTrainedTokenizerBase) -> PreferenceCollator:
        """A collator of pairs."""
        return PreferenceCollator(pad_token_id=find_pad_token_id(tokenizer), row_tokens=self.args.row_tokens)

    def check_room(self, model: BranchModel, *datasets: Any) -> None:
        """Refuse pairs with more tokens than the model has positions."""
        _check_room(model, self.args, *datasets)

    def check_responses(self, place: str, count: int, *, ranked: bool) -> None:
        """Refuse a number of responses to the prompt that `place` names; `ranked` says whether they have ranks."""
        check_pair(place, count)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Compute the loss as `BranchTrainer` does, of rows with as many responses as the trainer compares.

        Raises:
            UserError: A prompt has another number of them: a collator's mistake.
        """
        for number, count in enumerate(inputs["branches"].num_responses):
            self.check_responses(f"Prompt {number} of a batch", count, ranked="ranks" in inputs)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Do as Trainer does; rows as they were given are checked and tokenised first."""
        return super().get_eval_dataloader(self._ready(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Do as Trainer does; rows as they were given are checked and tokenised first."""
        return super().get_test_dataloader(self._ready(test_dataset))

    def _ready(self, data: Any) -> Any:
        if data is None or isinstance(data, str):
            return data
        columns = set(getattr(data, "column_names", ()))
        if columns >= {"prompt_ids", "response_ids"} and not columns & {"chosen", "rejected", "responses"}:
            for number, responses in enumerate(data["response_ids"]):
                self.check_responses(f"Row {number} of eval_dataset", len(responses), ranked="ranks" in columns)
            return data
        tokenizer = cast(PreTrainedTokenizerBase, self.processing_class)
        rows = self.prepare_rows(data, tokenizer, "eval_dataset")
        check_tokens(self.model, tokenizer, eval_dataset=rows)
        return rows


def check_pair(place: str, count: int) -> None:
    """Refuse any number of responses to a prompt but two; `place` names the prompt."""
    if count != 2:
        raise UserError(
            f"{place} has {count} response{'' if count == 1 else 's'}, and this trainer compares pairs: give every "
            "prompt two responses, the better one first."
        )


def _check_room(model: BranchModel, args: PreferenceConfig, *datasets: Any) -> None:
    """Refuse rows with more tokens than the model has positions: models fail on them or compute nonsense."""
    room = _room_of(model, args)
    if room is None:
        return
    longest = max(_length(row) for part in parts_of(datasets) for row in part)
    if longest > room:
        raise UserError(
            f"The longest row has {longest} tokens, more than the {room} positions of the model; set max_length to at "
            f"most {room}."
        )


def _room_of(model: BranchModel, args: PreferenceConfig) -> int | None:
    """Positions of the model; None if it has no limit, or `max_length` keeps rows below it."""
    room = positions_of(cast(Any, model.model).config)
    return None if room is None or (args.max_length is not None and args.max_length <= room) else room


def _length(row: Mapping[str, Any]) -> int:
    """Tokens of the prompt with its longest response."""
    return len(row["prompt_ids"]) + max(map(len, row["response_ids"]))


def tokenized_pairs(
    data: Any, tokenizer: PreTrainedTokenizerBase, args: PreferenceConfig, name: str, tasks: Tasks | None = None
) -> Any:
    """Check and tokenise a data set of any known layout, or a dict of them, according to `args`; None stays None."""
    if data is None:
        return None
    if isinstance(data, dict) and name != "train_dataset":
        return {key: tokenized_pairs(part, tokenizer, args, f"{name}[{key!r}]", tasks) for key, part in data.items()}
    if name != "train_dataset":
        refuse_augmented(data, name)
    data = trained_rows(data, name, plain=args.plain_pairs)
    weights = getattr(args, "margin_mode", None) == "weight" and getattr(args, "loss_type", None) == "bradley_terry"
    return tokenize_preferences(
        check_preferences(data, name=name, margin_weights=weights, tasks=tasks, plain=args.plain_pairs),
        tokenizer,
        max_length=args.max_length,
        max_prompt_length=args.max_prompt_length,
        truncation_mode=args.truncation_mode,
        num_proc=args.dataset_num_proc,
        name=name,
        tasks=tasks,
        plain=args.plain_pairs,
    )
