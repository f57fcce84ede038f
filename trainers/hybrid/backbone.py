"""The one language model of a hybrid run, and what each stage trains on it.

A stage begins with what is on the disk, whether the process that trained the stage before still runs or not: the base,
which stays in memory, gets the adapter that the stage before saved. So a resumed run does what an uninterrupted one
does, and no adapter ever lies on another.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from torch import nn

from hf_align.files import whole_folder
from hf_align.models.adapters import add_adapter, without_dropout
from hf_align.models.fingerprint import check_base
from hf_align.models.finite import check_loaded, saved_weights
from hf_align.models.loading import load_policy
from hf_align.models.merging import merge_adapter
from hf_align.models.quantized import Quantization, keep_unpacked
from hf_align.models.reference import UnderAdapter
from hf_align.models.wrapper import unwrapped
from hf_align.trainers.hybrid.config import PREVIOUS, START
from hf_align.trainers.hybrid.plan import Planned

POLICY, MERGED = "policy", "merged"
START_ADAPTER = "hybrid_start"
"""Name of the frozen copy of the adapter that the run, or SFT before it, started from."""


class Backbone:
    """Base and start of a run.

    Args:
        model: The start: Hub id or folder, or a model that the run takes over.
        quantization: Of a start given by name.
        folder: The run's folder, where a start that was given as an object is kept if it is needed again.
        stages: The run's stages.
        check_start: Called with the start whenever it is loaded or taken.

    Attributes:
        loads: Number of times that weights other than an adapter's were loaded.
    """

    def __init__(
        self,
        model: Any,
        quantization: Quantization,
        folder: Path,
        stages: list[Planned],
        check_start: Callable[[nn.Module], None],
    ) -> None:
        self.given, self.folder, self.stages = model, folder, stages
        self.quantization: Quantization = quantization
        self._check_start = check_start
        self.loads = 0
        self._base: Any = None
        self._base_of = -1

    # ---- what a stage starts from ----

    def policy_for(self, stage: Planned, before: Planned | None) -> Any:
        """The model that a stage trains, without an adapter that its trainer makes itself.

        Args:
            stage: The stage.
            before: The one before it; None for the first.
        """
        hand_over = stage.hand_over
        if before is None:
            return self._start()
        if not hand_over.kept:
            return self._whole(hand_over.base)
        if hand_over.form == "whole":
            self._free()
            return self._load(str(before.folder / POLICY))
        return self._with_adapter(stage, before)

    def _start(self) -> Any:
        """The model that the run starts from; as an object it is kept where a later stage needs it."""
        if isinstance(self.given, str):
            self.loads += 1
            model = load_policy(self.given, quantization=self.quantization)
            self._check_start(model)
            return model
        self._check_start(self.given)
        place = self.folder / START
        needed = any(each.hand_over.start in ("copy", "model") for each in self.stages)
        if needed and not place.exists():
            with whole_folder(place) as unfinished:
                self.given.save_pretrained(str(unfinished))
        return self.given

    def _with_adapter(self, stage: Planned, before: Planned) -> PeftModel:
        """The base with the adapter that the stage before saved and, where it is needed, the start's."""
        base, folder = self._base_for(stage.hand_over.base), str(before.folder / POLICY)
        check_base(base, folder, "the run's base")
        adapted = PeftModel.from_pretrained(base, folder, is_trainable=True)
        check_loaded(saved_weights(adapted), folder)
        keep_unpacked(adapted)
        if stage.hand_over.start == "copy":
            place = self.start_folder()
            add_adapter(adapted, START_ADAPTER, without_dropout(PeftConfig.from_pretrained(place)), trainable=False)
            set_peft_model_state_dict(adapted, load_peft_weights(place, device="cpu"), START_ADAPTER)
        return adapted

    def _base_for(self, number: int) -> Any:
        """The base below an adapter, in memory where the stage before left it there."""
        if self._base is None or self._base_of != number:
            self._free()
            if number:
                return self._whole(number)
            start = self._start()
            return without_adapters(start) if isinstance(start, PeftModel) else start
        return self._base

    def _whole(self, number: int) -> Any:
        """The whole weights that a stage handed over; its adapter is merged once, in float32."""
        stage = self.stages[number - 1]
        self._free()
        if stage.hand_over.form == "adapter" and not (stage.folder / MERGED).exists():
            merge_adapter(stage.folder / POLICY, stage.folder / MERGED, torch.float32)
        return self._load(str(self.whole_folder(number)))

    def whole_folder(self, number: int) -> Path:
        """The folder of a stage's whole weights."""
        stage = self.stages[number - 1]
        return stage.folder / (MERGED if stage.hand_over.form == "adapter" else POLICY)

    def _load(self, folder: str) -> Any:
        self.loads += 1
        return load_policy(folder, dtype=torch.float32)

    # ---- references ----

    def reference_for(self, stage: Planned) -> Any:
        """The `ref_model` of a stage's trainer."""
        hand_over = stage.hand_over
        if hand_over.reference in (None, PREVIOUS) or (hand_over.reference == START and hand_over.start == "policy"):
            return None  # the policy as given
        if hand_over.reference == START and hand_over.start != "model":
            return UnderAdapter(self.start_adapter(stage))
        place = self.start_folder() if hand_over.reference == START else cast(str, hand_over.reference)
        self.loads += 1
        return load_policy(place, quantization=self.quantization)

    def start_adapter(self, stage: Planned) -> str | None:
        """The adapter under which a stage's model is the start, where it has the start."""
        return START_ADAPTER if stage.hand_over.start == "copy" else None

    def start_folder(self) -> str:
        """Folder or Hub id of the start: what the first stage that has a reference began with."""
        first = next(each for each in self.stages if each.hand_over.reference is not None)
        if first.number == 1:
            return self.given if isinstance(self.given, str) else str(self.folder / START)
        before = self.stages[first.number - 2]
        return str(before.folder / POLICY) if first.hand_over.kept else str(self.whole_folder(before.number))

    # ---- from stage to stage ----

    def take_back(self, stage: Planned, trained: nn.Module) -> None:
        """Keep the base of a finished stage's model, without its adapters."""
        inner = unwrapped(trained, keep_peft=True)
        self._free()
        if isinstance(inner, PeftModel):
            self._base, self._base_of = without_adapters(inner), stage.hand_over.base

    def _free(self) -> None:
        """Let go of the base before others are loaded."""
        self._base, self._base_of = None, -1
        gc.collect()  # a trainer is part of reference cycles
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def without_adapters(model: PeftModel) -> Any:
    """A PeftModel's base as it was before any adapter, in evaluation mode; the PeftModel is no longer usable."""
    base = cast(Any, model).unload()
    base.activation_checkpointing_disable()
    base.disable_input_require_grads()
    return base.eval()
