"""Memory that training a model needs, from its architecture: only the config is loaded.

The model is built on torch's meta device, whose tensors have shapes and no data. Its weights are counted one by one,
and one forward pass of the largest batch is traced to sum the tensors that autograd saves for the backward pass.
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
from hf_align.models.decoders import check_decoder_config
from hf_align.models.freezing import adapter_above, freeze_layers
from hf_align.models.lora_targets import without_unfit
from hf_align.models.precision import compute_dtype
from hf_align.models.sources import adapter_config, load_config, plain_folder

QUANTISED_BYTES = {"8bit": 1.0, "4bit": 0.5 + 1 / 64}
"""Bytes per weight; 4-bit weights have an 8-bit scale per block of 64."""
CHUNK_BYTES = 2 * 4 * DEFAULT_CHUNK_SIZE
"""Bytes of logits held at a time per vocabulary entry: two float32 buffers."""
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass
class Outline:
    """A model without data.

    Attributes:
        name: Name of its class.
        total: Number of weights, including an adapter's.
        trained: Number of trained weights.
        base_bytes: Bytes of the weights as loaded, without an adapter's.
        is_adapter: Whether an adapter is trained instead of all weights.
        dtype: The compute dtype.
        model: The model on the meta device, in `dtype`.
    """

    name: str
    total: int
    trained: int
    base_bytes: float
    is_adapter: bool
    dtype: torch.dtype
    model: Any

    @property
    def text_config(self) -> Any:
        """The language model's config."""
        return self.model.config.get_text_config()


def outline(
    model_id: str,
    *,
    reward: bool = False,
    quantization: str | None = None,
    lora: PeftConfig | None = None,
    dtype: torch.dtype | None = None,
    frozen_layers: int = 0,
) -> Outline:
    """Build a model without data.

    Args:
        model_id: Hub id, folder, or adapter (with its base).
        reward: Whether a reward head replaces the LM head.
        quantization: Quantisation on loading: "8bit", "4bit" or None.
        lora: The adapter to train. None: the adapter in `model_id`, or else all weights.
        dtype: The compute dtype. Default: this machine's fast one.
        frozen_layers: Number of first layers that aren't trained.

    Raises:
        UserError: There is no config to load, no layers match `lora`, or there are fewer than `frozen_layers`.
    """
    adapter = adapter_config(plain_folder(model_id))
    config = load_config(model_id)
    check_decoder_config(config, model_id)
    dtype = dtype or compute_dtype()
    stored = torch.float32 if dtype == torch.float32 else config.dtype or torch.float32  # as `load_policy` has it
    with torch.device("meta"):
        if reward:
            config.num_labels = 1
            model: Any = classifier_class(config)._from_config(config, dtype=dtype)
        else:
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False, dtype=dtype)
        name, base_bytes = type(model).__name__, _loaded_bytes(model, quantization, stored)
        if adapter is not None or lora is not None:
            trainable: Any = deepcopy(adapter or adapter_above(lora, model, frozen_layers))
            trainable.task_type, trainable.inference_mode = "SEQ_CLS" if reward else "CAUSAL_LM", False
            try:
                model = get_peft_model(model, without_unfit(trainable, model), autocast_adapter_dtype=False)
            except ValueError as error:  # no layers match
                raise UserError(f"lora: {str(error).splitlines()[0]}") from None
        if frozen_layers:
            freeze_layers(model, frozen_layers)
    parameters = list(model.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in parameters)
    return Outline(name, total, trained, base_bytes, isinstance(model, PeftModel), dtype, model)


def training_bytes(trained: int, optimizer: str, dtype: torch.dtype) -> float:
    """Bytes of float32 weights and gradients, the optimizer's state, and the copy in `dtype` that autocast uses."""
    copy = 0 if dtype == torch.float32 else dtype.itemsize
    return trained * (4 + 4 + optimizer_bytes(optimizer) + copy)


def optimizer_bytes(optimizer: str) -> float:
    """Bytes of optimizer state per trained weight; an unknown optimizer counts as Adam."""
    # Adafactor keeps a row and a column per matrix.
    return 0 if optimizer in ("sgd", "adafactor") else 2 if "8bit" in optimizer else 8


def activation_bytes(model: Any, rows: int, tokens: int, *, checkpointing: bool) -> float:
    """Bytes that autograd saves for a batch `[rows, tokens]`, plus the logits of one chunk.

    Args:
        model: An outline's model; modified if `checkpointing`.
        rows: Rows of the batch.
        tokens: Tokens per row, padding included.
        checkpointing: With gradient checkpointing: the layers' inputs, plus one layer while it is recomputed.
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


def cache_bytes(config: Any, sequences: int, tokens: int, dtype: torch.dtype) -> float:
    """Bytes of keys and values in `dtype` of `sequences` generated together, up to `tokens` each."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * size * sequences * tokens * dtype.itemsize


def available_memory() -> tuple[str, int]:
    """The device that training would use, and its free bytes."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(), torch.cuda.mem_get_info()[0]
    free = psutil.virtual_memory().available
    if CGROUP_LIMIT.exists() and (limit := CGROUP_LIMIT.read_text().strip()).isdigit():
        free = min(free, int(limit) - psutil.Process().memory_info().rss)
    return "CPU", free


def _loaded_bytes(model: nn.Module, quantization: str | None, dtype: torch.dtype) -> float:
    """Bytes of all weights as loaded: bitsandbytes quantises all linear layers except the last."""
    last = {id(module) for module in (model.get_output_embeddings(), getattr(model, "score", None))}  # type: ignore[operator]
    total, seen = 0.0, set()
    for module in model.modules():
        quantised = quantization is not None and isinstance(module, nn.Linear) and id(module) not in last
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in seen:  # tied weights count once
                size = QUANTISED_BYTES[str(quantization)] if quantised and parameter.ndim == 2 else dtype.itemsize
                total += parameter.numel() * size
            seen.add(id(parameter))
    return total


def _saved_bytes(model: nn.Module, inner: Any, rows: int, tokens: int) -> float:
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved: dict[int, tuple[Any, int]] = {}  # holds the storages, so that no id is reused

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
    """Make attention save queries, keys, values and output, as fused kernels do; on meta tensors it isn't fused."""

    def attention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        return _Attention.apply(query, key, value)  # type: ignore[return-value]

    original = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = attention  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = original
