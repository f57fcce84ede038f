"""Values, log-probs and entropies of one pass, the three value models, and their saved files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from hf_align.errors import UserError
from hf_align.layout.branches import Branches, build_branches
from hf_align.models.adapters import active_adapter, adapter_parameters
from hf_align.models.loading import load_policy
from hf_align.models.policy import PolicyModel
from hf_align.models.reward import RewardModel
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.value import PolicyWithValueHead
from tests.tiny import save_tiny, tiny_model

VALUE_MODELS = ["shared", "adapter", "separate"]
WITH_AND_WITHOUT_LORA = [
    (model, lora) for model in VALUE_MODELS for lora in (True, False) if lora or model != "adapter"
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("tiny"), hidden_size=64)


def batch(separate: bool = False) -> Branches:
    documents = [([1, 2, 3], [[4, 5], [6, 7, 8]]), ([9, 9], [[10], [11, 12, 13, 14]])]
    branches = build_branches(documents, pad_token_id=258, row_tokens=20)
    return branches.as_separate() if separate else branches


def call(model: nn.Module, branches: Branches, **options: float) -> dict[str, Tensor]:
    return model(branches, **options)


def wrapped(folder: str, value_model: str = "shared", lora: bool = True, **options: object) -> PolicyWithValueHead:
    """A policy whose value head isn't at zero."""
    torch.manual_seed(1)
    policy = load_policy(folder, lora=random_lora() if lora else None)
    model = PolicyWithValueHead(policy, value_model=value_model, **options)  # type: ignore[arg-type]
    for parameter in model.value_parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def random_lora() -> LoraConfig:
    return LoraConfig(target_modules="all-linear", init_lora_weights=False)


def gradients(model: PolicyWithValueHead, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("separate", [False, True])
def test_a_value_is_of_the_state_before_its_token(separate: bool):
    policy = tiny_model()
    model = PolicyWithValueHead(policy)
    weight, bias = model.value_parameters()
    nn.init.normal_(weight)
    nn.init.constant_(bias, 0.5)
    values = call(model, batch(separate))["values"].detach()
    expected = []
    for prompt, responses in batch().documents(2):
        for response in responses:
            with torch.no_grad():
                hidden = policy.model(torch.tensor([[*prompt, *response]])).last_hidden_state[0]
            for n in range(len(response)):
                expected.append(hidden[len(prompt) - 1 + n] @ weight[0] + 0.5)
    torch.testing.assert_close(values, torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_logps_and_entropies_are_those_of_the_tempered_distribution():
    model, branches = PolicyWithValueHead(tiny_model()), batch(separate=True)
    result = call(model, branches, temperature=0.7, return_entropy=True)
    with torch.no_grad():
        logits = model.model(branches.input_ids, attention_mask=branches.attention_mask()).logits.flatten(0, 1)
    logps = (logits[branches.predictors] / 0.7).log_softmax(-1)
    torch.testing.assert_close(result["logps"], logps.gather(1, branches.targets[:, None])[:, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(result["entropy"], -(logps.exp() * logps).sum(-1), atol=1e-4, rtol=0)
    assert not result["entropy"].requires_grad
    assert set(call(model, branches, return_values=False)) == {"logps"}
    plain = call(PolicyModel(model.model), branches)
    torch.testing.assert_close(call(model, branches)["logps"], plain, atol=0, rtol=0)
    torch.testing.assert_close(call(model, branches, full_logits=True)["logps"], plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("target", ["q_proj", "lm_head"])
def test_the_entropy_carries_a_gradient_only_if_it_is_asked_to(folder: str, target: str):
    policy = load_policy(folder, lora=LoraConfig(target_modules=[target, "v_proj"], init_lora_weights=False))
    model = PolicyWithValueHead(policy)
    assert not call(model, batch(), return_entropy=True)["entropy"].requires_grad
    entropy = call(model, batch(), return_entropy=True, entropy_grad=True)["entropy"]
    assert gradients(model, entropy.sum())


@pytest.mark.parametrize("value_model", VALUE_MODELS)
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_values_start_at_zero_and_can_learn(folder: str, value_model: str, head: str):
    policy = load_policy(folder, lora=random_lora())
    model = PolicyWithValueHead(policy, value_model=value_model, head=head)  # type: ignore[arg-type]
    values = call(model, batch())["values"]
    assert values.dtype == torch.float32 and not values.any()
    grads = gradients(model, (values - 1).square().sum())
    assert any(g.any() for name, g in grads.items() if name.startswith("value_head."))


@pytest.mark.parametrize("value_model", VALUE_MODELS)
def test_policy_and_value_train_their_own_parts(folder: str, value_model: str):
    model = wrapped(folder, value_model)
    names = {id(p): name for name, p in model.named_parameters()}
    of_value = {names[id(p)] for p in model.value_parameters()}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    of_policy = trained - of_value
    assert of_policy and of_value < trained
    assert all(".default." in name and name.startswith("model.") for name in of_policy)
    result = call(model, batch())
    from_values = {n for n, g in gradients(model, result["values"].sum()).items() if g.any()}
    from_logps = {n for n, g in gradients(model, call(model, batch())["logps"].sum()).items() if g.any()}
    assert from_logps == of_policy, "a loss on log-probs trains the policy's adapter, all of it and nothing else"
    assert from_values >= of_value
    assert bool(from_values & of_policy) == (value_model == "shared")


def test_a_detached_trunk_is_not_trained_by_values(folder: str):
    model = wrapped(folder, detach_value_trunk=True)
    assert set(gradients(model, call(model, batch())["values"].sum())) == {"value_head.weight", "value_head.bias"}


def test_a_value_adapter_leaves_the_policy_alone(folder: str):
    shared, model = wrapped(folder), wrapped(folder, "adapter")
    with torch.no_grad():
        torch.testing.assert_close(call(model, batch())["logps"], call(shared, batch())["logps"], atol=0, rtol=0)
        for ours, theirs in zip(shared.value_head.parameters(), model.value_head.parameters(), strict=True):
            ours.copy_(theirs)
        for parameter in adapter_parameters(model.model, "value"):
            parameter.zero_()
        with active_adapter(shared.model, None):
            base = call(shared, batch())["values"]
        torch.testing.assert_close(call(model, batch())["values"], base, atol=1e-6, rtol=0)
    assert model.active_adapters == ["default"]


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_activations_give_the_same_gradients(folder: str, reentrant: bool):
    model = wrapped(folder, "adapter").train()
    expected = []
    for checkpointed in (False, True):
        if checkpointed:
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
        result = call(model, batch())
        expected.append(gradients(model, result["values"].square().sum() + result["logps"].sum()))
    assert expected[0].keys() == expected[1].keys()
    for name, gradient in expected[0].items():
        torch.testing.assert_close(expected[1][name], gradient, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize(
    ("value_model", "lora", "head"),
    [
        pytest.param(*pair, head, marks=pytest.mark.slow if (number + (head == "mlp")) % 2 else ())
        for number, pair in enumerate(WITH_AND_WITHOUT_LORA)
        for head in ("linear", "mlp")
    ],
)
def test_a_saved_folder_is_a_plain_policy_and_comes_back_whole(
    folder: str, tmp_path: Path, value_model: str, lora: bool, head: str
):
    model = wrapped(folder, value_model, lora, head=head)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "value_head.safetensors").exists()
    with torch.no_grad():
        expected = call(model, batch(separate=True))
        again = PolicyWithValueHead.from_pretrained(tmp_path)
        actual = call(again, batch(separate=True))
        for name in expected:
            torch.testing.assert_close(actual[name], expected[name], atol=1e-5, rtol=0)
        assert {n for n, p in again.named_parameters() if p.requires_grad} == {
            n for n, p in model.named_parameters() if p.requires_grad
        }
        plain = (AutoPeftModelForCausalLM if lora else AutoModelForCausalLM).from_pretrained(tmp_path)
        auto = AutoModelForCausalLM.from_pretrained(tmp_path)
        for policy in (plain, auto):
            torch.testing.assert_close(
                call(PolicyModel(policy), batch(separate=True)), expected["logps"], atol=1e-5, rtol=0
            )


@pytest.mark.parametrize("value_model", VALUE_MODELS)
def test_a_gathered_state_dict_saves_the_same_files(folder: str, tmp_path: Path, value_model: str):
    model = wrapped(folder, value_model)
    model.save_pretrained(tmp_path / "own")
    model.save_pretrained(tmp_path / "gathered", state_dict=model.state_dict())
    files = sorted(p.relative_to(tmp_path / "own") for p in (tmp_path / "own").rglob("*.safetensors"))
    assert len(files) == (2 if value_model == "shared" else 3)
    for name in files:
        own, gathered = load_file(tmp_path / "own" / name), load_file(tmp_path / "gathered" / name)
        assert own.keys() == gathered.keys()
        for key, tensor in own.items():
            torch.testing.assert_close(gathered[key], tensor, atol=0, rtol=0)


@pytest.mark.parametrize(("value_model", "lora"), WITH_AND_WITHOUT_LORA)
def test_values_can_be_loaded_into_a_running_policy(folder: str, tmp_path: Path, value_model: str, lora: bool):
    saved = wrapped(folder, value_model, lora)
    saved.save_pretrained(tmp_path)
    model = wrapped(folder, value_model, lora)
    with torch.no_grad():
        for parameter in model.value_parameters():
            parameter.zero_().requires_grad_(parameter.dim() < 2)  # as peft's own loading freezes adapters
        model.load_value(tmp_path)
        torch.testing.assert_close(call(model, batch())["values"], call(saved, batch())["values"], atol=1e-5, rtol=0)
    if value_model == "adapter":
        assert all(parameter.requires_grad for parameter in adapter_parameters(model.model, "value"))
    with pytest.raises(UserError, match="mlp"):
        wrapped(folder, value_model, lora, head="mlp").load_value(tmp_path)


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("lora", [True, False])
def test_values_can_start_as_a_reward_models_scores(folder: str, head: str, lora: bool):
    config = RewardModelConfig(head=head, tasks={"tone": 3} if lora else {})  # type: ignore[arg-type]
    reward = RewardModel.from_backbone(folder, config, lora=random_lora() if lora else None)
    policy = load_policy(folder, lora=random_lora())
    model = PolicyWithValueHead(policy, value_model="adapter" if lora else "shared", head=head)  # type: ignore[arg-type]
    model.init_from_reward(reward)
    # The value before a token is what the reward model gives to the text so far.
    so_far = build_branches([([1, 2], [[3]]), ([1, 2, 3], [[4]])], pad_token_id=0)
    with torch.no_grad():
        scores = reward.split(reward(so_far)).rewards
        if lora:
            values = call(model, batch())["values"][:2]
        else:
            with active_adapter(model.model, None):
                values = call(model, batch())["values"][:2]
    torch.testing.assert_close(values, scores, atol=1e-5, rtol=1e-5)


def test_quantised_layers_stay_unpacked(folder: str):
    for quantization in ("8bit", "4bit"):
        model = PolicyWithValueHead(load_policy(folder, quantization=quantization, lora=True), value_model="adapter")  # type: ignore[arg-type]
        layers = [m for m in model.modules() if type(m).__module__.startswith("bitsandbytes")]
        model.eval()
        assert layers and all(layer.training for layer in layers)
        for parameter in model.value_parameters():
            nn.init.normal_(parameter, std=0.1)
        names = set(gradients(model.train(), sum(call(model, batch()).values()).sum()))  # type: ignore[union-attr]
        assert names == {name for name, p in model.named_parameters() if p.requires_grad}


def test_bad_arguments_are_named(folder: str, tmp_path: Path):
    policy = tiny_model()
    for options, word in (
        ({"value_model": "own"}, "value_model"),
        ({"head": "deep"}, "head"),
        ({"value_model": "adapter"}, "LoRA"),
        ({"value_model": "separate", "detach_value_trunk": True}, "detach_value_trunk"),
        ({"value_backbone": policy}, "value_backbone"),
    ):
        with pytest.raises(UserError, match=word):
            PolicyWithValueHead(policy, **options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has no value_head"):
        PolicyWithValueHead.from_pretrained(folder)
    with pytest.raises(UserError, match="pooling"):
        PolicyWithValueHead(policy).init_from_reward(
            RewardModel.from_backbone(folder, RewardModelConfig(pooling="mean"))
        )
    with pytest.raises(UserError, match="hidden size is 64"):
        PolicyWithValueHead(policy).init_from_reward(RewardModel.from_backbone(folder))
