"""What the trainers on preference pairs share: data options, and data made ready before a model is loaded."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from accelerate import PartialState
from datasets import Dataset
from peft import PeftConfig, PeftModel, TaskType
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from hf_align.collators import PreferenceCollator, check_preferences, find_pad_token_id, tokenize_preferences
from hf_align.errors import UserError
from hf_align.models.adapters import disable_dropout, float32_trainable
from hf_align.models.branch_model import BranchModel
from hf_align.models.layout import Lengths
from hf_align.models.loading import Quantization, add_lora, keep_unpacked, load_tokenizer
from hf_align.rewards.heads import is_classifier
from hf_align.trainers.arguments import check_config_class, check_evaluation
from hf_align.trainers.base import AlignmentConfig, BranchTrainer
from hf_align.trainers.layouts import batches_of, spread_rows


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
    """A `BranchTrainer` on rows of prompt, chosen and rejected. Branch 0 is the chosen response, branch 1 the rejected.

    The whole data is checked and tokenised first; then `build_model` is called, so bad rows cost no model loading.
    """

    args: PreferenceConfig  # type: ignore[assignment]
    config_class: type[Any] = PreferenceConfig

    def __init__(
        self,
        build_model: Callable[[], BranchModel],
        args: PreferenceConfig,
        train_dataset: Any,
        eval_dataset: Any,
        processing_class: PreTrainedTokenizerBase,
        data_collator: Any = None,
        **kwargs: Any,
    ):
        if train_dataset is None and eval_dataset is None:
            raise UserError("train_dataset is missing; give a Dataset with prompt, chosen and rejected.")
        check_config_class(args, self.config_class)
        check_evaluation(args, eval_dataset)
        check_output_dir(args)
        with PartialState().main_process_first():
            train_dataset = _tokenized(train_dataset, processing_class, args, "train_dataset")
            eval_dataset = _tokenized(eval_dataset, processing_class, args, "eval_dataset")
        if data_collator is None:
            data_collator = PreferenceCollator(
                pad_token_id=find_pad_token_id(processing_class), row_tokens=args.row_tokens
            )
        model = build_model()
        _check_room(model, args, train_dataset, eval_dataset)
        if args.disable_dropout:
            disable_dropout(model)
        float32_trainable(model)
        super().__init__(
            model,
            args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )

    def sample_lengths(self) -> list[list[Lengths]]:
        """See `LayoutTrainer`."""
        training = self.train_dataset is not None
        data = parts_of([self.train_dataset if training else self.eval_dataset])[0]
        rows = data.select(spread_rows(len(data)))
        columns = (rows["prompt_ids"], rows["chosen_ids"], rows["rejected_ids"])
        documents: list[Lengths] = [(len(prompt), [len(c), len(r)]) for prompt, c, r in zip(*columns, strict=True)]
        args = self.args
        return batches_of(documents, args.per_device_train_batch_size if training else args.per_device_eval_batch_size)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """As Trainer's; rows as they were given are checked and tokenised first."""
        return super().get_eval_dataloader(self._ready(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """As Trainer's; rows as they were given are checked and tokenised first."""
        return super().get_test_dataloader(self._ready(test_dataset))

    def _ready(self, data: Any) -> Any:
        if data is None or isinstance(data, str) or "prompt_ids" in getattr(data, "column_names", ()):
            return data
        return _tokenized(data, cast(PreTrainedTokenizerBase, self.processing_class), self.args, "eval_dataset")


def tokenizer_of(model: Any) -> PreTrainedTokenizerBase:
    """The tokenizer saved with a model given by name, or with the one an object was loaded from."""
    if isinstance(model, str):
        return load_tokenizer(model)
    _check_is_model(model)
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    name = getattr(inner, "name_or_path", None)
    if not name:
        raise UserError(
            "processing_class is missing, and the model doesn't say where it came from; give its tokenizer."
        )
    return load_tokenizer(name)


def with_adapter(model: Any, peft_config: PeftConfig | bool | None, task_type: TaskType) -> PreTrainedModel | PeftModel:
    """The model object a user gave, with a new adapter if `peft_config` asks for one.

    Raises:
        UserError: If it has an adapter already, is quantised without any, trains nothing, or is a reward model in
            place of a policy.
    """
    _check_is_model(model)
    if task_type == TaskType.CAUSAL_LM:
        check_is_policy(model, "model")
    keep_unpacked(model)
    if isinstance(model, PeftModel):
        if peft_config:
            raise UserError("model already has an adapter and peft_config asks for another; leave one of them out.")
        if model.active_adapters != ["default"]:
            raise UserError(
                f"The adapter to train must be called 'default'; the active one is {model.active_adapters}."
            )
    elif peft_config:
        if not isinstance(peft_config, PeftConfig | bool):
            raise UserError(f"peft_config is a {type(peft_config).__name__}; give a LoraConfig.")
        model = add_lora(model, peft_config, task_type)  # type: ignore[arg-type]
    elif getattr(model, "is_quantized", False):
        raise UserError("A quantised model trains only through an adapter; give peft_config (lora).")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(
            "No weight of the model is trainable; load the adapter with is_trainable=True or give peft_config."
        )
    return model  # type: ignore[return-value]


def _check_is_model(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise UserError(f"model is a {type(model).__name__}; give a Hub id, a folder or a transformers/peft model.")


def check_is_policy(model: Any, name: str, *, ask_hub: bool = False) -> None:
    """Refuse a reward model where a language model is wanted: it would get an untrained LM head.

    Args:
        model: What the user gave: an object, a Hub id, a folder or None.
        name: The argument's name.
        ask_hub: Look at Hub ids, too, instead of leaving them until they are loaded.

    Raises:
        UserError: It is a sequence-classification model, or an adapter for one.
    """
    if isinstance(model, str) and not ask_hub and not os.path.isdir(model):
        return
    if model is not None and is_classifier(model):
        what = model if isinstance(model, str) else f"a {type(model).__name__}"
        raise UserError(
            f"{name}: {what} is a reward model (sequence classification), which can't write text; give a language "
            "model, such as the one it was trained from."
        )


def check_output_dir(args: Any) -> None:
    """Refuse an `output_dir` that can't be written to, before anything is loaded.

    Raises:
        UserError: It is a file, or a folder without the right to write.
    """
    directory = Path(args.output_dir)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UserError(f"output_dir: can't write to {directory}: {error.strerror}; name another folder.") from error


def parts_of(datasets: Iterable[Any]) -> list[Any]:
    """The data sets that there are, those of a dict one by one."""
    given = [data for data in datasets if data is not None]
    return [part for data in given for part in (data.values() if isinstance(data, dict) else [data])]


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


def only_with_path(model: Any, quantization_config: Quantization) -> None:
    """Refuse to quantise a model that is loaded already."""
    if quantization_config is not None and not isinstance(model, str):
        raise UserError(
            "quantization_config applies to a model given by name; load yours with load_policy(..., quantization=)."
        )


Callbacks = list[TrainerCallback] | None


def _tokenized(data: Any, tokenizer: PreTrainedTokenizerBase, args: PreferenceConfig, name: str) -> Any:
    if data is None:
        return None
    if isinstance(data, dict) and name != "train_dataset":
        return {key: _tokenized(part, tokenizer, args, f"{name}[{key!r}]") for key, part in data.items()}
    tokenized: Dataset = tokenize_preferences(
        check_preferences(data, name=name),
        tokenizer,
        max_length=args.max_length,
        max_prompt_length=args.max_prompt_length,
        truncation_mode=args.truncation_mode,
        num_proc=args.dataset_num_proc,
        name=name,
    )
    return tokenized
