"""The wrapper around a model, and how to look below it."""

from __future__ import annotations

from peft import LoraConfig, get_peft_model

from hf_align.models.policy import PolicyModel
from hf_align.models.wrapper import unwrapped
from tests.tiny import tiny_model


def test_what_is_below_our_wrapper_and_below_peft_s():
    base = tiny_model()
    assert unwrapped(base) is base and unwrapped(PolicyModel(base), keep_peft=True) is base
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"]))
    wrapped = PolicyModel(PolicyModel(adapted))
    assert unwrapped(wrapped, keep_peft=True) is adapted
    assert unwrapped(wrapped) is unwrapped(adapted) is base
