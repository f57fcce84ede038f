"""Contract of all patches in the list: results stay, nothing is left behind, known families are still patched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
    TrainerCallback,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from hf_align.acceleration.registry import NAMES, PATCHES, Setting, accelerated, decide, describe, names_of
from hf_align.errors import UserError
from hf_align.rollouts import sample_responses
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from hf_align.trainers.reward import RewardConfig, RewardTrainer
from tests.tiny import tiny_tokenizer
from tests.trainers.pairs import options, pairs

Task = Literal["reward", "dpo", "ppo"]
EXACT = [patch.name for patch in PATCHES if patch.exact]
TINY: dict[str, Any] = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": 256,
    "eos_token_id": 258,
    "pad_token_id": 259,
}
HEADS: dict[str, Any] = {"head_dim": 8}
GPT2: dict[str, Any] = {"vocab_size": 260, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**TINY),
    "qwen": lambda: Qwen3Config(**TINY, **HEADS),
    "gemma": lambda: GemmaConfig(**TINY, **HEADS),
    "gpt2": lambda: GPT2Config(**GPT2, eos_token_id=258, pad_token_id=259),
}


# ---- results stay ----


@cache
def start(family: str, task: Task) -> nn.Module:
    """A model with an adapter, whose norms are trained, too: so every patch has something to do."""
    torch.manual_seed(0)
    config = FAMILIES[family]()
    config.num_labels = 1
    auto: Any = AutoModelForSequenceClassification if task == "reward" else AutoModelForCausalLM
    kind = "SEQ_CLS" if task == "reward" else "CAUSAL_LM"
    model = get_peft_model(
        auto.from_config(config),
        LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type=kind),  # type: ignore[arg-type]
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad or "norm" in name)
    return model


def trainer_of(task: Task, model: nn.Module, out: Path, **changes: Any) -> Any:
    arguments = options(out, learning_rate=0.01, **changes)
    common: dict[str, Any] = {"processing_class": tiny_tokenizer()}
    if task == "reward":
        return RewardTrainer(model, args=RewardConfig(**arguments), train_dataset=pairs(4), **common)  # type: ignore[arg-type]
    common["ref_model"] = copy.deepcopy(model)  # norms are trained, which no adapter switches off
    if task == "dpo":
        return DPOTrainer(model, args=DPOConfig(**arguments), train_dataset=pairs(4), **common)  # type: ignore[arg-type]
    args = PPOConfig(**arguments, num_ppo_epochs=1, num_samples=2, max_new_tokens=4)
    prompts = pairs(2).remove_columns(["chosen", "rejected"])
    return PPOTrainer(model, args=args, train_dataset=prompts, reward=lambda p, r: [float(len(x)) for x in r], **common)  # type: ignore[arg-type]


def numbers(
    family: str, task: Task, out: Path, acceleration: Any, *, bf16: bool = False, nudge: float = 0.0
) -> list[Tensor]:
    """The loss of a step and the trained weights after it; `nudge` is a relative change of all weights at the start."""
    model = copy.deepcopy(start(family, task))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + nudge * (2 * torch.randint(0, 2, parameter.shape, generator=draw) - 1))
    trainer = trainer_of(task, model, out, acceleration=acceleration, bf16=bf16)
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert len(losses) == 1
    return [torch.tensor(losses), *(p.detach() for p in trainer.model.parameters() if p.requires_grad)]


def furthest(actual: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((ours - theirs).abs().max()) for ours, theirs in zip(actual, expected, strict=True))


TASKS: tuple[Task, ...] = ("reward", "dpo", "ppo")
FAST = {*((family, "reward", False) for family in FAMILIES), ("llama", "dpo", False)}
FAST |= {("gemma", "ppo", False), ("llama", "ppo", True)}
"""Every family by the quickest task, every task by a family; in 16 bits the task that also samples."""
CASES: list[tuple[str, Task, bool]] = [(family, task, False) for family in FAMILIES for task in TASKS]


@pytest.mark.parametrize(
    ("family", "task", "bf16"),
    [
        pytest.param(*case, marks=() if case in FAST else pytest.mark.slow)
        for case in [*CASES, ("llama", "dpo", True), ("llama", "ppo", True)]
    ],
)
def test_training_gives_the_same_numbers(family: str, task: Task, bf16: bool, tmp_path: Path):
    """Exact patches bitwise; all of them as far as changing all weights by half a unit of the last place moves results,
    which is the size of rounding: the tolerance is measured here, on this machine.
    """
    plain = numbers(family, task, tmp_path, "none", bf16=bf16)
    exact = numbers(family, task, tmp_path, EXACT, bf16=bf16)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(exact, plain, strict=True))
    nudged = numbers(family, task, tmp_path, "none", bf16=bf16, nudge=2**-9 if bf16 else 2**-24)
    rounding = furthest(nudged, plain)
    assert 0 < rounding < (0.5 if bf16 else 1e-3), "no yardstick: a token was sampled otherwise, or nothing was nudged"
    assert furthest(numbers(family, task, tmp_path, "auto", bf16=bf16), plain) <= 10 * rounding


# ---- known families are patched ----

NO_GROUPS: dict[str, Any] = {name: value for name, value in TINY.items() if name != "num_key_value_heads"}
PATCHED: dict[str, tuple[Callable[[], Any], dict[str, int | None]]] = {
    "llama": (lambda: LlamaConfig(**TINY), {"lora": 14, "gated_mlp": 2, "rms_norm": 4}),
    "mistral": (lambda: MistralConfig(**TINY), {"lora": 14, "gated_mlp": 2, "rms_norm": 4}),
    "qwen2": (lambda: Qwen2Config(**TINY), {"lora": 14, "gated_mlp": 2, "rms_norm": 4}),
    "qwen3": (lambda: Qwen3Config(**TINY, **HEADS), {"lora": 14, "gated_mlp": 2, "rms_norm": 8}),
    "gemma": (lambda: GemmaConfig(**TINY, **HEADS), {"lora": 14, "gated_mlp": 2, "rms_norm": 4}),
    "gemma2": (lambda: Gemma2Config(**TINY, **HEADS), {"lora": 14, "gated_mlp": 2, "rms_norm": 8, "attention": None}),
    "gemma3": (lambda: Gemma3TextConfig(**TINY, **HEADS), {"lora": 14, "gated_mlp": 2, "rms_norm": 12}),
    "olmo2": (lambda: Olmo2Config(**TINY), {"lora": 14, "gated_mlp": 2, "rms_norm": 8}),
    "granite": (lambda: GraniteConfig(**TINY), {"lora": 14, "gated_mlp": 2, "rms_norm": 4}),
    "smollm3": (lambda: SmolLM3Config(**TINY), {"lora": 14, "gated_mlp": 2, "rms_norm": 4}),
    "cohere": (lambda: CohereConfig(**TINY), {"lora": 14, "gated_mlp": 2, "rms_norm": None}),
    # gate and up are one projection
    "phi3": (lambda: Phi3Config(**TINY), {"lora": 8, "gated_mlp": None, "rms_norm": 4}),
    "gpt_neox": (lambda: GPTNeoXConfig(**NO_GROUPS), {"lora": 8, "gated_mlp": None, "rms_norm": None}),
    # its linear layers are convolutions
    "gpt2": (lambda: GPT2Config(**GPT2), {"lora": None, "gated_mlp": None, "rms_norm": None}),
}
"""Layers of each patch; None: it is off."""


@pytest.mark.parametrize("family", PATCHED)
def test_known_families_are_patched(family: str):
    config, layers = PATCHED[family]
    model = AutoModelForCausalLM.from_config(config())
    setting = Setting(("train", "sample"), "cpu")
    actual = {decision.patch.name: decision for decision in decide(model, setting, "auto")}
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    actual["lora"] = next(each for each in decide(adapted, setting, "lora"))
    assert {name: actual[name].layers for name in ("lora", "gated_mlp", "rms_norm")} == {
        name: layers[name] for name in ("lora", "gated_mlp", "rms_norm")
    }
    attends = "attention" not in layers  # Gemma 2's caps its scores: transformers computes it eagerly
    assert all((actual[name].reason is None) == attends for name in ("attention", "decoding"))
    assert actual["casts"].reason is None


# ---- other structures are supported or refused ----


class Scaled(LlamaMLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x) * 1.0001)


class Swapped(LlamaMLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.gate_proj(x) * self.act_fn(self.up_proj(x)))


class Dropping(LlamaMLP):
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act_fn(self.gate_proj(x)) * self.up_proj(x)
        return self.down_proj(nn.functional.dropout(hidden, 0.5, self.training))


class Detached(LlamaMLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)).detach() * self.up_proj(x))


class Rewritten(LlamaMLP):
    def forward(self, states: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        up = self.up_proj(states)
        gate = self.act_fn(self.gate_proj(states))
        return self.down_proj(gate * up)


@pytest.mark.parametrize(
    ("kind", "act", "supported"),
    [
        (LlamaMLP, nn.SiLU(), True),
        (LlamaMLP, nn.GELU("tanh"), True),
        (LlamaMLP, nn.ReLU(), True),
        (LlamaMLP, nn.PReLU(), False),  # trained
        (LlamaMLP, nn.RReLU(), False),  # random
        (Rewritten, nn.SiLU(), True),
        (Scaled, nn.SiLU(), False),
        (Swapped, nn.SiLU(), False),
        (Dropping, nn.SiLU(), False),
        (Detached, nn.SiLU(), False),
    ],
)
@pytest.mark.parametrize("bias", [False, True])
def test_an_mlp_is_tried_out(
    kind: type[LlamaMLP], act: Any, supported: bool, bias: bool, monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(0)
    config = LlamaConfig(**TINY, mlp_bias=bias)
    model = AutoModelForCausalLM.from_config(config).train()
    for layer in model.model.layers:
        layer.mlp = kind(config)
        layer.mlp.act_fn = act
    state = torch.get_rng_state()
    with monkeypatch.context() as patch:
        patch.setattr("torch.cuda.manual_seed_all", lambda seed: pytest.fail("a GPU's generator is not restored"))
        (decision,) = decide(model, Setting.of(model, "train"), ["gated_mlp"])
    assert decision.layers == (2 if supported else None)
    assert torch.equal(torch.get_rng_state(), state)
    if supported:
        plain = gradients(model)
        with accelerated(model, Setting.of(model, "train"), ["gated_mlp"]):
            assert all("forward" in vars(layer.mlp) for layer in model.model.layers)
            assert all(torch.equal(ours, theirs) for ours, theirs in zip(gradients(model), plain, strict=True))


class Centred(LlamaRMSNorm):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return super().forward(hidden_states - hidden_states.mean(-1, keepdim=True))


class Half(LlamaRMSNorm):
    def forward(self, hidden_states: Tensor) -> Tensor:
        variance = hidden_states[..., ::2].square().mean(-1, keepdim=True)
        return self.weight * hidden_states * torch.rsqrt(variance + self.variance_epsilon)


class Plain(nn.LayerNorm):
    def __init__(self, size: int):
        super().__init__(size, bias=False)


@pytest.mark.parametrize(
    ("kind", "supported"),
    [(LlamaRMSNorm, True), (GemmaRMSNorm, True), (nn.RMSNorm, True), (Centred, False), (Half, False), (Plain, False)],
)
def test_a_norm_is_tried_out(kind: Any, supported: bool):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**TINY))
    for layer in model.model.layers:
        layer.input_layernorm = layer.post_attention_layernorm = kind(32)
    (decision,) = decide(model, Setting.of(model, "train"), ["rms_norm"])
    assert decision.layers == (2 if supported else None)


def gradients(model: Any) -> list[Tensor]:
    model.zero_grad()
    model(torch.arange(12).view(2, 6)).logits.square().sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


# ---- nothing is left behind ----


def plain_numbers(model: Any) -> list[Tensor]:
    """Results of a plain model in training and, with a cache, in decoding."""
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        cache = model(ids, use_cache=True).past_key_values
        decoded = model(ids[:, :1], past_key_values=cache).logits
    return [*gradients(model), decoded]


def patched(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if "forward" in vars(module) or module._forward_pre_hooks]


class Interrupts(TrainerCallback):
    """Inspect the patched model in the first step, and end the run with an error or, like Ctrl-C, without one."""

    def __init__(self, error: type[BaseException] | None):
        self.error, self.patched = error, False

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.patched = bool(patched(model)) and ALL_ATTENTION_FUNCTIONS["sdpa"] is not sdpa_attention_forward
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_after_training_all_is_as_before(error: type[BaseException] | None, tmp_path: Path):
    plain = AutoModelForCausalLM.from_config(LlamaConfig(**TINY))
    before = plain_numbers(plain)
    trainer = trainer_of("ppo", copy.deepcopy(start("llama", "ppo")), tmp_path)
    callback = Interrupts(error)
    trainer.add_callback(callback)
    if error is None:
        trainer.train()
        trainer.evaluate(pairs(2).remove_columns(["chosen", "rejected"]))
    else:
        with pytest.raises(error):
            trainer.train()
    assert callback.patched
    assert patched(trainer.model) == []
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(plain_numbers(plain), before, strict=True))


def test_a_plain_model_is_left_alone_while_another_is_patched():
    """The shared function is ours in the meantime, and acts as transformers' for other models."""
    plain, other = (AutoModelForCausalLM.from_config(LlamaConfig(**TINY)) for _ in range(2))
    before = plain_numbers(plain)
    with accelerated(other, Setting.of(other, "train", "sample")):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(plain_numbers(plain), before, strict=True))


@pytest.mark.parametrize("shared", [True, False])
def test_the_last_user_takes_a_patch_back(shared: bool):
    first = AutoModelForCausalLM.from_config(LlamaConfig(**TINY))
    second = first if shared else AutoModelForCausalLM.from_config(LlamaConfig(**TINY))
    outer, inner = accelerated(first, Setting.of(first, "train")), accelerated(second, Setting.of(second, "train"))
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)  # before the other one
    assert patched(second) and (shared or not patched(first))
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not sdpa_attention_forward
    inner.__exit__(None, None, None)
    assert not patched(first) and not patched(second)
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward


def test_a_trainer_that_evaluates_in_anothers_step_undoes_nothing(tmp_path: Path):
    inner = trainer_of("dpo", copy.deepcopy(start("llama", "dpo")), tmp_path, acceleration="none")
    outer = trainer_of("reward", copy.deepcopy(start("llama", "reward")), tmp_path)
    seen: list[tuple[bool, bool]] = []

    class Evaluates(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            inner.evaluate(inner.train_dataset)
            seen.append((bool(patched(outer.model)), bool(patched(inner.model))))

    outer.add_callback(Evaluates())
    outer.train()
    assert seen == [(True, False)]
    assert not patched(outer.model)


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_sampling_is_patched_by_the_surrounding_choice_and_leaves_nothing_behind(choice: str):
    model = AutoModelForCausalLM.from_config(LlamaConfig(**TINY))
    seen: list[bool] = []
    model.register_forward_hook(
        lambda *_: seen.append(ALL_ATTENTION_FUNCTIONS["sdpa"] is not sdpa_attention_forward and bool(patched(model)))
    )
    with accelerated(model, Setting.of(model, "score"), choice):
        sample_responses(model, tiny_tokenizer(), [[1, 2]], max_new_tokens=2, generator_seed=0)
    assert seen and all(each == (choice == "auto") for each in seen)
    assert not patched(model) and ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward


# ---- the choice ----


@pytest.mark.parametrize(("choice", "names"), [("auto", NAMES), ("none", ()), ("lora, casts", ("lora", "casts"))])
def test_a_choice_is_names(choice: Any, names: tuple[str, ...]):
    assert names_of(choice) == names


@pytest.mark.parametrize("choice", ["gated_mlps", ["lora", "gatedmlp"]])
def test_an_unknown_name_is_refused_with_the_nearest(choice: Any, tmp_path: Path):
    with pytest.raises(UserError, match="did you mean 'gated_mlp'"):
        DPOConfig(**options(tmp_path, acceleration=choice))


@pytest.mark.parametrize(
    ("choice", "problem"),
    [("none,lora", "'none' stands alone"), (["auto"], "'auto' stands alone"), (False, "is False"), (None, "is None")],
)
def test_what_is_no_choice_is_refused(choice: Any, problem: str, tmp_path: Path):
    with pytest.raises(UserError, match=rf"^acceleration:? {problem}"):
        DPOConfig(**options(tmp_path, acceleration=choice))


def test_the_choice_goes_for_what_is_inside():
    model = AutoModelForCausalLM.from_config(LlamaConfig(**TINY))
    with accelerated(model, Setting.of(model, "train"), "none"), accelerated(model, Setting.of(model, "train")):
        assert not patched(model)


def test_the_line_says_what_is_on_and_why_others_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("WARNING"):
        trainer = trainer_of(
            "dpo", copy.deepcopy(start("gpt2", "dpo")), tmp_path, acceleration=["rms_norm", "allocator"]
        )
    assert "'rms_norm' stays off: no such norms" in caplog.text, "at construction, not only once training starts"
    assert trainer.describe_acceleration() == "allocator; rms_norm off (no such norms)"
    model = AutoModelForCausalLM.from_config(LlamaConfig(**TINY))
    line = describe(decide(model, Setting(("train",), "cpu", recomputes=True), ["attention", "lora", "rms_norm"]))
    assert line == "attention; lora off (no LoRA on plain linear layers); rms_norm off (activations are recomputed)"
    line = describe(decide(model, Setting(("train",), "cuda"), ["attention", "gated_mlp", "rms_norm"]))
    assert line == "gated_mlp 2 layers, rms_norm 4; attention off (for CPUs, not cuda)"
    assert describe(decide(model, Setting(("train",), "cpu", sharded=True), "gated_mlp")).endswith("are sharded)")
    single = AutoModelForCausalLM.from_config(LlamaConfig(**cast(dict[str, Any], TINY | {"num_hidden_layers": 1})))
    assert describe(decide(single, Setting(("train",), "cpu"), ["gated_mlp"])) == "gated_mlp 1 layer"


def test_a_setting_refuses_uses_that_do_not_exist():
    with pytest.raises(UserError, match="uses are 'train', 'score', 'sample'; there is no 'trian'"):
        Setting.of(AutoModelForCausalLM.from_config(LlamaConfig(**TINY)), "trian")  # pyright: ignore[reportArgumentType]
