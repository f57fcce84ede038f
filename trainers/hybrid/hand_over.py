"""What each stage of a hybrid starts from, decided from how the stages are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from peft import PeftConfig, PeftModel

from hf_align.algorithms import Algorithm
from hf_align.errors import UserError
from hf_align.models.fingerprint import rewrites_base
from hf_align.models.kinds import check_is_policy
from hf_align.models.sources import adapter_config, check_source, plain_folder
from hf_align.trainers.hybrid.config import PREVIOUS, START, Shared, Stage
from hf_align.trainers.hybrid.messages import in_stage, label_of

Form = Literal["adapter", "whole"]
"""What is trained."""
Start = Literal["policy", "off", "copy", "model"]
"""How a stage's model can compute as the start; see `HandOver`."""


@dataclass(frozen=True)
class HandOver:
    """What a stage starts from.

    Attributes:
        form: What it trains.
        base: Number of the stage whose whole weights lie below its adapter, or are trained; 0: the start's.
        kept: Whether it goes on with the weights of the stage before as they are.
        reference: "start", "previous" or a folder or Hub id; None for an algorithm without reference.
        start: How its model can compute as the start: "policy" (it is the start), "off" (without its adapter), "copy"
            (with a frozen copy of the start's adapter) or "model" (it takes a second model).
    """

    form: Form
    base: int
    kept: bool
    reference: str | None
    start: Start


def plan_hand_overs(
    stages: Sequence[Stage], algorithms: Sequence[Algorithm], configs: Sequence[Any], shared: Shared
) -> list[HandOver]:
    """Decide what each stage's weights and reference are.

    Args:
        stages: The stages.
        algorithms: Theirs.
        configs: Their trainers' configs.
        shared: What is given for all stages.

    Raises:
        UserError: A hand-over isn't possible; names the stage.
    """
    has_adapter = bool(shared.peft_config) or starts_as_adapter(shared)
    with_reference = [
        "reference" in algorithm.needs and getattr(args, "needs_reference", True)  # some losses have none
        for algorithm, args in zip(algorithms, configs, strict=True)
    ]
    quantized = shared.quantization is not None or getattr(shared.model, "is_quantized", False)
    with in_stage(label_of(1, algorithms[0].name)):
        _check_first(stages[0], quantized=quantized, has_adapter=has_adapter)
    anchor = next((number for number, has in enumerate(with_reference, 1) if has), len(stages) + 1)
    made_new = bool(shared.peft_config)  # whether the adapter being trained was made on the anchor's own base
    result: list[HandOver] = []
    form: Form = "adapter" if has_adapter else "whole"
    base = 0
    anchored = start_off = broken = False
    for number, (stage, algorithm) in enumerate(zip(stages, algorithms, strict=True), start=1):
        with in_stage(label_of(number, algorithm.name)):
            if stage.adapter != "continue":
                _check_change(stage, form, quantized, shared)
                form = "adapter" if stage.adapter == "new" else "whole"
                base = number - 1
                broken = broken or number > anchor
            elif stage.peft_config is not None:
                raise UserError("peft_config is for adapter='new', and adapter is 'continue'; leave one of them out.")
            if number == anchor:
                anchored = form == "adapter"
                start_off = stage.adapter == "new" or (number == 1 and made_new)
            below_adapter: Start = "off" if start_off else "copy"
            start: Start = "policy" if number <= anchor else below_adapter if anchored and not broken else "model"
            default = PREVIOUS if broken else START
            reference = _reference(stage, algorithm, default, has_one=with_reference[number - 1])
            kept = number > 1 and stage.adapter == "continue"
            result.append(HandOver(form, base, kept, reference, start))
    return result


def _check_first(stage: Stage, *, quantized: bool, has_adapter: bool) -> None:
    """Refuse a first stage that can't be trained, or that changes an adapter that isn't there yet."""
    if quantized and not has_adapter:
        raise UserError("a quantised model trains only through an adapter; give peft_config (lora).")
    if stage.adapter != "continue":
        raise UserError(f"adapter is {stage.adapter!r}, and nothing was trained before the first stage; leave it out.")


def _check_change(stage: Stage, form: str, quantized: bool, shared: Shared) -> None:
    """Refuse a merge or a new adapter where it can't be made."""
    if quantized:
        raise UserError(
            f"adapter={stage.adapter!r} merges into the weights, and merging into quantised ones would round what was "
            "trained; use 'continue', or leave quantization out."
        )
    if not isinstance(shared.model, str):
        raise UserError(
            f"adapter={stage.adapter!r} reads the model again from where it is stored; give the model by name."
        )
    if stage.adapter == "merge" and form == "whole":
        raise UserError("adapter='merge', and the stage before trained all weights; leave it out.")
    if stage.adapter == "new":
        adapter = stage.peft_config or shared.peft_config
        if adapter is None:
            raise UserError("adapter='new' and there is no peft_config (lora); give the adapter to make.")
        check_adapter_config(adapter, "peft_config")


def check_adapter_config(config: PeftConfig, name: str) -> None:
    """Refuse adapters that change their base, which all stages share."""
    if rewrites_base(config):
        raise UserError(
            f"{name}: init_lora_weights={getattr(config, 'init_lora_weights', None)!r} changes the base's weights, "
            "which all stages share; leave it out."
        )
    if getattr(config, "bias", "none") != "none":
        raise UserError(f"{name}: bias={config.bias!r} trains the base's biases, which all stages share; leave it out.")  # type: ignore[attr-defined]


def starts_as_adapter(shared: Shared) -> bool:
    """Whether the model that is given has an adapter."""
    if isinstance(shared.model, str):
        return adapter_config(plain_folder(shared.model)) is not None
    return isinstance(shared.model, PeftModel)


def _reference(stage: Stage, algorithm: Algorithm, default: str, *, has_one: bool) -> str | None:
    """The stage's reference."""
    if not has_one:
        if stage.reference is not None:
            with_loss = " with this loss_type" if "reference" in algorithm.needs else ""
            raise UserError(
                f"reference is {stage.reference!r}, and {algorithm.name}{with_loss} has none; leave it out."
            )
        return None
    reference = stage.reference or default
    if reference not in (START, PREVIOUS):
        check_source(reference)
        check_is_policy(reference, "reference")
    return reference
