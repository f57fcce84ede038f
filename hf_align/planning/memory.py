"""Memory that training a model takes, from its architecture alone: only its config is loaded.

The model is built on torch's meta device, whose tensors have shapes and no data. Its weights are counted one by one,
and one forward pass of the largest batch is traced to add up what autograd would keep for the backward pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM

from hf_align.errors import UserError
from hf_align.losses.logprobs import DEFAULT_CHUNK_SIZE
from hf_align.models.classifier import classifier_class
from hf_align.models.loading import loading_arguments
from hf_align.models.precision import compute_dtype
from hf_align.models.sources import adapter_config, load_config, plain_folder

QUANTISED_BYTES = {"8bit": 1.0, "4bit": 0.5 + 1 / 64}
"""Bytes a weight; 4-bit weights have an 8-bit scale for each block of 64."""
CHUNK_BYTES = 2 * 4 * DEFAULT_CHUNK_SIZE
"""Bytes of logits held at a time for each entry of the vocabulary: two float32 buffers."""
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass
class Outline:
    """A model without data.

    Attributes:
        name: Its class.
        total: Number of weights, those of an adapter included.
        trained: Number of weights that are trained.
        base_bytes: The weights without an adapter's, as they are loaded.
        is_adapter: Whether an adapter is trained, and not all weights.
        model: On the meta device, in the dtype that it computes in.
    """

    name: str
    total: int
    trained: int
    base_bytes: float
    is_adapter: bool
    model: Any

    @property
    def text_config(self) -> Any:
        """The language model's config."""
        return self.model.config.get_text_config()


def outline(
    model_id: str, *, reward: bool = False, quantization: str | None = None, lora: PeftConfig | None = None
) -> Outline:
    """Build a model without data.

    Args:
        model_id: Hub id, folder, or adapter (with its base).
        reward: With a reward head in place of the LM head.
        quantization: As it would be loaded: "8bit", "4bit" or None.
        lora: The adapter to train. None trains the adapter that `model_id` is, or else all weights.

    Raises:
        UserError: There is no config to load, or the model has no layers that `lora` names.
    """
    adapter = adapter_config(plain_folder(model_id))
    config = load_config(model_id)
    loaded = loading_arguments(None, "auto", None)["dtype"]
    dtype = (config.dtype or torch.float32) if loaded == "auto" else loaded
    if reward:
        config.num_labels = 1
    make: Any = classifier_class(config)._from_config if reward else AutoModelForCausalLM.from_config
    with torch.device("meta"):
        model = make(config, dtype=compute_dtype())
        name, base_bytes = type(model).__name__, _loaded_bytes(model, quantization, dtype)
        if adapter is not None or lora is not None:
            trainable: Any = deepcopy(adapter or lora)
            trainable.task_type, trainable.inference_mode = "SEQ_CLS" if reward else "CAUSAL_LM", False
            try:
                model = get_peft_model(model, trainable, autocast_adapter_dtype=False)
            except ValueError as error:  # no such layers
                raise UserError(f"lora: {str(error).splitlines()[0]}") from None
    parameters = list(model.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in parameters)
    return Outline(name, total, trained, base_bytes, isinstance(model, PeftModel), model)


def training_bytes(trained: int, optimizer: str) -> float:
    """Float32 weights and gradients, the optimizer's state, and the 16-bit copy that autocast computes with."""
    copy = 0 if compute_dtype() == torch.float32 else 2
    return trained * (4 + 4 + optimizer_bytes(optimizer) + copy)


def optimizer_bytes(optimizer: str) -> float:
    """Bytes of state for each trained weight; an optimizer that isn't known counts as Adam."""
    # Adafactor keeps a row and a column for each matrix.
    return 0 if optimizer in ("sgd", "adafactor") else 2 if "8bit" in optimizer else 8


def activation_bytes(model: Any, rows: int, tokens: int, *, checkpointing: bool) -> float:
    """Bytes that autograd keeps of a batch `[rows, tokens]`, and the logits of one chunk.

    Args:
        model: An outline's model; changed if `checkpointing`.
        rows: Of the batch.
        tokens: Of a row, padding included.
        checkpointing: With gradient checkpointing: the layers' inputs, and one layer while it is recomputed.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    inner = base.get_decoder()
    vocabulary = base.config.get_text_config().vocab_size
    saved = _saved_bytes(model, inner, rows, tokens)
    if checkpointing:
        saved = saved / base.config.get_text_config().num_hidden_layers  # one layer, recomputed
        model.gradient_checkpointing_enable()
        base.enable_input_require_grads()
        model.train()
        saved += _saved_bytes(model, inner, rows, tokens)
    return saved + CHUNK_BYTES * vocabulary


def cache_bytes(config: Any, sequences: int, tokens: int) -> float:
    """Keys and values of `sequences` that are generated together, up to `tokens` each."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * size * sequences * tokens * compute_dtype().itemsize


def available_memory() -> tuple[str, int]:
    """Device that training would run on, and its free bytes."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(), torch.cuda.mem_get_info()[0]
    free = psutil.virtual_memory().available
    if CGROUP_LIMIT.exists() and (limit := CGROUP_LIMIT.read_text().strip()).isdigit():
        free = min(free, int(limit) - psutil.Process().memory_info().rss)
    return "CPU", free


def _loaded_bytes(model: nn.Module, quantization: str | None, dtype: torch.dtype) -> float:
    """All weights as they are loaded: bitsandbytes quantises the linear layers but the last."""
    last = {id(module) for module in (model.get_output_embeddings(), getattr(model, "score", None))}  # type: ignore[operator]
    total, seen = 0.0, set()
    for module in model.modules():
        quantised = quantization is not None and isinstance(module, nn.Linear) and id(module) not in last
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in seen:  # tied ones count once
                size = QUANTISED_BYTES[str(quantization)] if quantised and parameter.ndim == 2 else dtype.itemsize
                total += parameter.numel() * size
            seen.add(id(parameter))
    return total


def _saved_bytes(model: nn.Module, inner: Any, rows: int, tokens: int) -> float:
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved: dict[int, tuple[Any, int]] = {}  # storages are held so that none is counted under another's number

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            saved[storage._cdata] = (storage, storage.nbytes())
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.device("meta"), hooks, _fused_attention():
        ids, positions = torch.zeros(rows, tokens, dtype=torch.long), torch.zeros(rows, tokens, dtype=torch.long)
        mask = torch.ones(rows, 1, tokens, tokens, dtype=torch.bool)
        inner(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False)
    return float(sum(size for _, size in saved.values()))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, output)
        return output


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Attention keeps queries, keys, values and output, as fused kernels do; meta tensors get one that isn't fused."""

    def attention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        return _Attention.apply(query, key, value)  # type: ignore[return-value]

    original = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = attention  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = original
