"""One reward model whose weights are the average of several (WARM: Ramé et al. 2024, "weight averaged reward models").

weight_average           -> RewardModel
    average_adapters     LoRA on one base: the average of the products B A, exactly, as one adapter of summed rank
    _averaged_head       heads on one frozen base
    _averaged_weights    whole models, fine-tuned from one base
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from hf_align.errors import UserError
from hf_align.models.aggregation import check_method
from hf_align.models.encodings import encoding_difference
from hf_align.models.ensemble_members import load_members
from hf_align.models.fingerprint import fingerprint_of
from hf_align.models.normalization import Normalization
from hf_align.models.reward import RewardModel
from hf_align.models.reward_adapter import RewardAdapter, SharedRewardModel
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.reward_files import Settings

INSTEAD = "use method='mean', which averages scores"
ALIKE = 0.5
"""Least cosine of weights that started alike and were trained apart; that of independent draws is near 0."""


def weight_average(
    members: Sequence[RewardModel | str | os.PathLike[str]], weights: Sequence[float] | None = None
) -> RewardModel:
    """Average the weights of reward models that were trained from one base.

    - LoRA on one base: of each layer the average of the products B A, with each adapter's scaling, is kept as one
      adapter whose rank is the sum of theirs. (The product of averaged A and averaged B would be something else.)
    - Heads on one frozen base: the average head.
    - Whole models: the average of all weights.

    Heads are averaged as they are, so the gains of normalised members are folded in. It scores with one pass. Its
    scores aren't the mean of the members' scores (but for linear heads on one frozen base), and on the reference set
    not exactly normalised: call `normalize` again if that matters.

    Args:
        members: Reward models or their folders; members of one ensemble share a backbone already. The first member's
            backbone in memory gets the new adapter; no member changes what it computes.
        weights: One for each member. Default: all alike.

    Raises:
        UserError: The members have different bases, heads, poolings or tokenizers, weights that didn't start alike, an
            adapter other than plain LoRA on linear layers, or are normalised on different sets.

    Example:
        >>> from hf_align import RewardModel
        >>> from hf_align.models.weight_average import weight_average
        >>> base = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> average = weight_average([RewardModel.from_backbone(base, lora=True) for _ in range(2)])
        >>> len(average.score(["The film was"], [" a joy."]))
        1
    """
    check_method("weight_average", len(members), weights=weights)
    loaded = [_checked(member, number) for number, member in enumerate(load_members(members))]
    shares = _shares(weights, len(loaded))
    _check_read_alike([member.reward_config for member in loaded], [member.tokenizer for member in loaded])
    for number, member in enumerate(loaded):
        _check_fits(loaded[0], member, number)
    average = _averaged(loaded, shares, weights)
    penalties = [member.reward_config.length_penalty for member in loaded]
    average.set_length_penalty(sum(share * penalty for share, penalty in zip(shares, penalties, strict=True)))
    return average


def _averaged(loaded: Sequence[RewardModel], shares: Sequence[float], weights: Sequence[float] | None) -> RewardModel:
    """The average; its length penalty is still to be set."""
    first, normalization = loaded[0], _averaged_normalization([member.normalization for member in loaded], shares)
    if len({id(member.model) for member in loaded}) > 1:
        return _averaged_weights(loaded, shares, normalization)
    if isinstance(first.model, PeftModel):
        return _averaged_on_base(loaded, weights)
    module = copy.deepcopy(first.head).requires_grad_(False)
    module.load_state_dict(_averaged_head([member.head.state_dict() for member in loaded], shares, first.reward_config))
    return SharedRewardModel(cast(Any, first.model), first.tokenizer, module, first.reward_config, normalization)


def _shares(weights: Sequence[float] | None, members: int) -> list[float]:
    given = [1.0] * members if weights is None else weights
    return [weight / sum(given) for weight in given]


def _checked(member: Any, number: int) -> RewardModel:
    if not isinstance(member, RewardModel):
        raise UserError(f"members[{number}] is a {type(member).__name__}, whose weights can't be averaged; {INSTEAD}.")
    return member


def _check_fits(first: RewardModel, member: RewardModel, number: int) -> None:
    """Refuse a member whose weights mean something else than the first one's."""
    if member.model is not first.model and _shapes(member) != _shapes(first):
        raise _differs(number, "another base")
    if member.model is not first.model and isinstance(first.model, PeftModel):
        raise UserError(
            f"Member {number} doesn't share its base with member 0, and adapters can be averaged only on one base; "
            f"{INSTEAD}."
        )


def _without_penalty(config: RewardModelConfig) -> RewardModelConfig:
    return replace(config, length_penalty=0.0)


def _check_read_alike(configs: Sequence[RewardModelConfig], tokenizers: Sequence[PreTrainedTokenizerBase]) -> None:
    """Refuse members that read other texts, or predict something else, than the first one."""
    for number, (config, tokenizer) in enumerate(zip(configs, tokenizers, strict=True)):
        if _without_penalty(config) != _without_penalty(configs[0]):
            raise _differs(number, "another head, pooling or tasks")
        if encoding_difference(tokenizers[0], tokenizer):
            raise _differs(number, "another tokenizer")


def _differs(number: int, what: str) -> UserError:
    return UserError(f"Member {number} has {what} than member 0, so their weights can't be averaged; {INSTEAD}.")


def _shapes(member: RewardModel) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in member.model.state_dict().items()}


def _averaged_normalization(
    normalizations: Sequence[Normalization | None], shares: Sequence[float]
) -> Normalization | None:
    """The mean offset and deviation; the average isn't exactly normalised, and the set's name says so."""
    sets = {None if each is None else each.name for each in normalizations}
    if len(sets) > 1:
        raise UserError(
            "The members aren't normalised on one set, so the average would depend most on those with the widest "
            "scores; call normalize(rows, name) with the same rows for all, or for none."
        )
    before, given = normalizations[0], [each for each in normalizations if each is not None]
    if before is None:
        return None
    std = sum(share * each.std for share, each in zip(shares, given, strict=True))
    offset = sum(share * each.offset for share, each in zip(shares, given, strict=True))
    return Normalization(f"{before.name} (members before averaging)", before.rows, -offset * std, std)


def _average(parts: Sequence[dict[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """Weights by name, averaged in float32 and rounded to their dtype."""
    return {
        name: torch.stack([share * part[name].float() for share, part in zip(shares, parts, strict=True)])
        .sum(0)
        .to(weight.dtype)
        for name, weight in parts[0].items()
    }


def _check_alike(first: dict[str, Tensor], second: dict[str, Tensor], number: int, what: str) -> None:
    """Refuse weights that were drawn apart: units of one network don't correspond to the other's."""
    pairs = [(weight.float(), second[name].float()) for name, weight in first.items() if weight.ndim == 2]
    product = sum(float((a * b).sum()) for a, b in pairs)
    sizes = [sum(float(part[side].square().sum()) for part in pairs) ** 0.5 for side in (0, 1)]
    if product < ALIKE * sizes[0] * sizes[1]:
        raise UserError(
            f"Members 0 and {number} have {what} that didn't start from the same weights, so their average would be "
            f"no model; train them from one start, or {INSTEAD}."
        )


def _averaged_head(
    heads: Sequence[dict[str, Tensor]], shares: Sequence[float], config: RewardModelConfig
) -> dict[str, Tensor]:
    if config.head != "linear" or config.projection:
        for number, head in enumerate(heads):
            _check_alike(heads[0], head, number, "heads of several layers")
    return _average(heads, shares)


def _averaged_weights(
    members: Sequence[RewardModel], shares: Sequence[float], normalization: Normalization | None
) -> RewardModel:
    first = members[0]
    parts = [cast(Any, member.model).state_dict() for member in members]
    for number, part in enumerate(parts):
        _check_alike(parts[0], part, number, "weights")
    model = copy.deepcopy(first.model)
    model.load_state_dict(_average(parts, shares))
    return RewardModel(cast(Any, model), first.tokenizer, first.reward_config, normalization)


def _averaged_on_base(members: Sequence[RewardModel], weights: Sequence[float] | None) -> RewardModel:
    """The concatenated adapters as one on the shared backbone."""
    model = cast(PeftModel, members[0].model)
    sources = [RewardAdapter.of_model(member) for member in members]
    average = average_adapters(model, sources, [_adapter_of(member) for member in members], weights)
    adapter = f"average-{len(model.peft_config)}"
    if problem := average.put_on(model, adapter):
        raise UserError(f"The adapters can't be averaged on their base: {problem}; {INSTEAD}.")
    return SharedRewardModel(
        model,
        average.tokenizer,
        average.make_head(cast(torch.device, model.device)),
        average.settings.config,
        average.settings.normalization,
        adapter=adapter,
        adapter_config=average.config,
    )


def average_adapters(
    model: PeftModel,
    sources: Sequence[RewardAdapter],
    names: Sequence[str],
    weights: Sequence[float] | None = None,
) -> RewardAdapter:
    """The average of reward adapters that sit on one model, as one adapter for its base; it isn't put on the model.

    Args:
        model: The model, a policy's or a reward model's.
        sources: The adapters.
        names: Their names in the model.
        weights: As in `weight_average`, and so are the errors.
    """
    first, shares = sources[0], _shares(weights, len(sources))
    _check_read_alike([source.settings.config for source in sources], [source.tokenizer for source in sources])
    normalization = _averaged_normalization([source.settings.normalization for source in sources], shares)
    head = _averaged_head([source.head for source in sources], shares, first.settings.config)
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and any(each in _adapters_in(module) for each in names)
    }
    for name, layer in layers.items():
        for number, adapter in enumerate(names):
            _check_plain(layer, adapter, name, number)
    rank = max(sum(layer.r[each] for each in names if each in layer.lora_A) for layer in layers.values())
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        lora_a, lora_b = _concatenated(layer, names, shares, rank)
        tensors |= {f"{name}.lora_A.weight": lora_a, f"{name}.lora_B.weight": lora_b}
    config: Any = copy.deepcopy(first.config)
    config.r = config.lora_alpha = rank
    config.rank_pattern, config.alpha_pattern, config.use_rslora, config.lora_dropout = {}, {}, False, 0.0
    config.target_modules = [name.removeprefix("base_model.model.") for name in layers]
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    penalty = sum(share * source.settings.config.length_penalty for share, source in zip(shares, sources, strict=True))
    settings = Settings(replace(first.settings.config, length_penalty=penalty), normalization)
    return RewardAdapter(config, fingerprint_of(model), tensors, head, settings, first.tokenizer)


def _adapter_of(member: RewardModel) -> str:
    if isinstance(member, SharedRewardModel):
        return cast(str, member.adapter)
    return cast(PeftModel, member.model).active_adapters[0]


def _adapters_in(layer: LoraLayer) -> set[str]:
    return {*layer.lora_A, *layer.lora_embedding_A}


def _check_plain(layer: LoraLayer, adapter: str, name: str, number: int) -> None:
    """Refuse an adapter whose effect on a layer isn't the product B A."""
    if adapter not in _adapters_in(layer):
        return
    linear = adapter in layer.lora_A and isinstance(layer.lora_A[adapter], nn.Linear)
    if not linear or adapter in layer.lora_variant or layer.lora_bias.get(adapter):
        raise UserError(
            f"Member {number}'s adapter on {name} isn't plain LoRA on a linear layer (as DoRA, a bias and one on "
            f"embeddings aren't), so it can't be averaged; {INSTEAD}."
        )


def _concatenated(layer: LoraLayer, names: Sequence[str], shares: Sequence[float], rank: int) -> tuple[Tensor, Tensor]:
    """A `[rank, in]` and B `[out, rank]` with B A = sum of share * scaling * B_m A_m, zeros where ranks are fewer."""
    having = [(name, share) for name, share in zip(names, shares, strict=True) if name in layer.lora_A]
    parts_a = [cast(Tensor, layer.lora_A[name].weight).float() for name, _ in having]
    parts_b = [cast(Tensor, layer.lora_B[name].weight).float() * share * layer.scaling[name] for name, share in having]
    lora_a, lora_b = torch.cat(parts_a), torch.cat(parts_b, 1)
    missing = rank - len(lora_a)
    return nn.functional.pad(lora_a, (0, 0, 0, missing)).detach(), nn.functional.pad(lora_b, (0, missing)).detach()
