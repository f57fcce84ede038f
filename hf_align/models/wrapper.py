"""The module that trainers train: one `forward(branches)` around a Hugging Face or PEFT model.

DDP, FSDP and gradient checkpointing hook into a module's `forward`, so everything a loss needs (log-probs, rewards) is
returned by this one call, and no code accesses a backbone or a head's weight from outside.

The trick is `forward_replaced`: inside the model's own forward, where it calls its head on `[R, T, d]` hidden states,
we compute only the needed positions. Sharding hooks, LoRA on the head and tied weights keep working, and no `[R, T,
vocab]` matrix ever exists.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn

from hf_align.acceleration.attention import attach_plan, attends_by_blocks
from hf_align.acceleration.attention_plan import make_plan
from hf_align.acceleration.flex import block_mask
from hf_align.layout.branches import Branches
from hf_align.models.adapter_config import sort_names
from hf_align.models.fingerprint import write_fingerprint
from hf_align.models.randomness import dropout_as_loaded
from hf_align.models.vocabulary import carry_embeddings

Result = TypeVar("Result")
FLEX = "flex_attention"
BRANCH_ATTENTION = ("sdpa", "eager", FLEX)
"""Attention implementations that support an arbitrary 4-D mask."""


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let `module(x)` compute `forward(x)` inside this context; its hooks still run."""
    saved = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if saved is not None:  # an earlier wrapper, such as an offloading hook's
            module.forward = saved


class BranchModel(nn.Module):
    """Wrapper of `model` whose `forward` takes a `Branches`.

    Other attributes (`config`, `generate`, `hf_device_map`, ...) are looked up in the wrapped model, which is `.model`.
    """

    # Trainer refuses bare quantised models; the wrapped one was checked for adapters on loading.
    is_quantized = False
    # Whether scoring may lay out a shared prompt's responses as branches; None until measured. And on rows of
    # how many tokens, alone and in branches, it was.
    shares_prompts: bool | None = None
    compared_tokens = compared_width = 0

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "model":
                raise
            return getattr(super().__getattr__("model"), name)

    def inner_forward(self, branches: Branches) -> Any:
        """One pass of the wrapped model over a batch: its own output."""
        # Under autocast every product casts its own inputs; peft would first cast LoRA's to float32, without effect.
        autocast = torch.is_autocast_enabled(branches.input_ids.device.type)
        with disable_input_dtype_casting(self.model, active=autocast):
            return self.model(
                input_ids=branches.input_ids,
                attention_mask=self._mask(branches),
                position_ids=branches.position_ids,
                use_cache=False,
            )

    def forward_to_head(self, branches: Branches, head: nn.Module, compute: Callable[[Tensor], Result]) -> Result:
        """Run the model once with `compute(hidden)` for `head` on its `[R, T, d]` inputs, and return the result."""
        result: list[Result] = []

        def forward(hidden: Tensor) -> Tensor:
            result.append(compute(hidden))
            return hidden.new_zeros(*hidden.shape[:2], 1)

        with forward_replaced(head, forward):
            self.inner_forward(branches)
        return result[0]

    def _mask(self, branches: Branches) -> Any:
        """The batch's attention mask, as numbers to add to the scores if possible.

        Eager attention would misread a bool mask, and with SDPA every layer would convert it again.
        """
        if branches.separate:
            return branches.attention_mask()
        if attention_of(self.model) == FLEX:
            return block_mask(branches)
        mask = branches.attention_mask()
        device, dtype = mask.device.type, cast(Any, self.model).get_input_embeddings().weight.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        elif dtype != torch.float32 and attention_of(self.model) != "eager":
            return mask  # SDPA needs its queries' dtype, which some models raise
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)
        return attach_plan(mask, make_plan(branches)) if device == "cpu" and attends_by_blocks(self.model) else mask

    @cached_property
    def window(self) -> int | None:
        """The shortest attention window of the model's layers in tokens, None if every layer sees everything."""
        return attention_window(cast(Any, self.model).config.get_text_config())

    def honours_branch_mask(self, branches: Branches, compared_width: int = 0) -> bool:
        """Whether config and lengths allow this model's attention to use the branch mask for this batch.

        A 4-D mask switches sliding windows off, so a `prompt + response` longer than the window needs plain rows. A
        model may also have its window in its layers, by columns of a row (GPT-Neo): a row wider than the window is
        trusted if the layouts were compared at such a width.

        Args:
            branches: The batch.
            compared_width: Tokens of the widest row on which the model's layouts were compared.
        """
        if attention_of(self.model) not in BRANCH_ATTENTION:
            return False
        widest = max(self.window or 0, compared_width)
        return self.window is None or (branches.longest <= self.window and branches.input_ids.shape[1] <= widest)

    def save_pretrained(
        self, directory: str | Path, state_dict: dict[str, Tensor] | None = None, **kwargs: Any
    ) -> None:
        """Save the wrapped model as plain transformers or peft would; of several adapters, the trained one.

        A fingerprint of an adapter's base goes beside it, and the embeddings of one that was resized.
        """
        if state_dict is not None:
            state_dict = {name.removeprefix("model."): tensor for name, tensor in state_dict.items()}
        if isinstance(self.model, PeftModel):
            kwargs["selected_adapters"] = list(self.model.active_adapters)
        with dropout_as_loaded(self):
            cast(Any, self.model).save_pretrained(str(directory), state_dict=state_dict, **kwargs)
        if isinstance(self.model, PeftModel):
            for name in self.model.active_adapters:
                place = Path(directory) if name == "default" else Path(directory) / name
                sort_names(self.model.peft_config[name], place)
            write_fingerprint(self.model, directory, state_dict)
            carry_embeddings(self.model, directory)


def unwrapped(model: Any, *, keep_peft: bool = False) -> Any:
    """Remove our wrappers from a model, and peft's unless `keep_peft`."""
    while isinstance(model, BranchModel) or (isinstance(model, PeftModel) and not keep_peft):
        model = model.model if isinstance(model, BranchModel) else model.get_base_model()
    return model


def attends_by_block(wrapper: BranchModel) -> bool:
    """Whether a wrapped model's attention skips masked blocks instead of computing them."""
    return attention_of(wrapper.model) == FLEX or attends_by_blocks(wrapper.model)


def attention_of(model: Any) -> str:
    """A model's current attention implementation."""
    return model.config.get_text_config()._attn_implementation


WINDOW = re.compile(r"window|attention_chunk_size|local_attention")
NO_WINDOW = re.compile(r"layer|pattern|num_|kernel|^n_")
"""Names of config fields that are, or aren't, as many tokens as some layer sees at most."""
SEES_ALL = ("full_attention", "global")
"""Kinds of layers, as configs list them, that have no window."""


def attention_window(config: Any) -> int | None:
    """The shortest attention window of a model's layers in tokens, or None without windows.

    By the config's fields, whatever the family calls them (`sliding_window`, `attention_chunk_size`, GPT-Neo's
    `window_size`). One too many costs time, no accuracy: longer rows are then plain ones.
    """
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)
    if (kinds and all(kind in SEES_ALL for kind in kinds)) or not getattr(config, "use_sliding_window", True):
        return getattr(config, "attention_chunk_size", None)
    names = [name for name in vars(config) if WINDOW.search(name) and not NO_WINDOW.search(name)]
    sizes = [size for name in names if isinstance(size := vars(config)[name], int) and not isinstance(size, bool)]
    return min((size for size in sizes if size > 0), default=None)
