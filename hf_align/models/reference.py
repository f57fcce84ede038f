"""Which module computes as the reference policy."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from hf_align.errors import UserError
from hf_align.models.adapters import REFERENCE_ADAPTER, active_adapter, add_frozen_copy, disable_dropout
from hf_align.models.kinds import check_is_policy
from hf_align.models.policy import PolicyModel
from hf_align.models.quantized import keep_unpacked
from hf_align.models.wrapper import BranchModel


class Reference:
    """The policy as it is now, before it is trained, or an explicit model.

    Args:
        policy: The model that will be trained.
        model: An explicit reference, or None.
        new_adapter: The policy's adapter was just made, so the reference is the base: adapters off.
        snapshot: Copy a fully trained policy's weights now. Not needed where all log-probs are computed beforehand.
        prepare: Brings a frozen model to its device and makes it ready to run.

    Attributes:
        model: The reference's own module, None where the policy's computes as it.
        adapter: The policy's adapter that is the reference; None for none.
        by_adapter: The policy's module computes as the reference, with `adapter`.

    Raises:
        UserError: The explicit reference is no model, or a reward model.
    """

    def __init__(
        self,
        policy: BranchModel,
        model: Any,
        *,
        new_adapter: bool,
        snapshot: bool,
        prepare: Callable[[PolicyModel], nn.Module],
    ):
        has_adapter = isinstance(policy.model, PeftModel)
        self.model: nn.Module | None = None
        self.adapter: str | None = None
        self._weights: nn.Module = policy
        if model is not None:
            check_is_policy(model, "ref_model")
            if not isinstance(model, nn.Module):
                raise UserError(f"ref_model is a {type(model).__name__}; give a Hub id, a folder or a model.")
        elif has_adapter and not new_adapter:
            add_frozen_copy(policy.model, "default")
            self.adapter = REFERENCE_ADAPTER
        elif not has_adapter and snapshot:
            model = copy.deepcopy(policy.model)
        if model is not None:
            keep_unpacked(model)
            disable_dropout(model)
            self._weights = PolicyModel(model).requires_grad_(False)
            self.model = prepare(self._weights)
        self.by_adapter = self.model is None and has_adapter

    @property
    def is_kept(self) -> bool:
        """Whether it can still be scored once the policy has been trained."""
        return self.model is not None or self.by_adapter

    @contextmanager
    def scored_as(self, policy: nn.Module) -> Iterator[nn.Module]:
        """Give the module that computes as the reference while this context lasts: its own, or the policy's.

        Args:
            policy: The policy as the training step holds it (wrapped for DDP or FSDP, or not).
        """
        if self.model is not None:
            # The same mode as the policy: without dropout it changes nothing but quantised kernels.
            self.model.train(policy.training)
            yield self.model
        else:
            with active_adapter(policy, self.adapter) if self.by_adapter else nullcontext():
                yield policy

    def weights_key(self, setting: str) -> str:
        """Hash the reference's weights.

        Args:
            setting: How they compute; it goes into the hash.
        """
        digest = hashlib.sha256(setting.encode())
        for name, tensor in sorted(self._weights.state_dict().items()):
            parts = name.split(".")
            of_adapter = self.by_adapter and ("default" in parts or REFERENCE_ADAPTER in parts)
            if of_adapter and self.adapter not in parts:
                continue
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
