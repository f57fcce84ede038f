"""A vocabulary resized for an adapter comes back with it, and tokens without an embedding are named at the start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from hf_align import DPOConfig, DPOTrainer, PPOConfig, PPOTrainer, RewardConfig, RewardTrainer
from hf_align.errors import UserError
from hf_align.evaluation.continuations import sample_continuations
from hf_align.files import BASE_FINGERPRINT
from hf_align.models.adapters import add_lora
from hf_align.models.loading import load_policy
from hf_align.models.merging import merge_adapter
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.models.value import PolicyWithValueHead
from hf_align.rewards import AdapterReward, as_reward
from hf_align.trainers import SFTConfig, SFTTrainer
from tests.tiny import save_tiny, tiny_tokenizer
from tests.trainers.pairs import options, pairs

OLD, NEW = 260, 272
IDS = torch.tensor([[1, 2, 265, 3, 271]])
ADAPTERS: dict[str, dict[str, Any]] = {
    "layers alone": {},
    "saved embeddings": {"modules_to_save": ["embed_tokens"]},
    "trained tokens": {"trainable_token_indices": list(range(OLD, NEW))},
    "LoRA on embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, str]:
    """A base with tied and one with untied embeddings."""
    return {
        tied: save_tiny(tmp_path_factory.mktemp("base"), tie_word_embeddings=tied, num_hidden_layers=1)
        for tied in (True, False)
    }


def larger_tokenizer() -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<new{number}>" for number in range(NEW - OLD)])
    return tokenizer


def resized(folder: str, **lora: Any) -> PeftModel:
    """A policy with more tokens than its base, and an adapter that isn't zero."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(NEW)
    settings = {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": False, **lora}
    adapted = add_lora(model, LoraConfig(**settings), "CAUSAL_LM").eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return adapted


@torch.no_grad()
def logits(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """With the adapter and without."""
    with_adapter = model.eval()(IDS).logits
    with model.disable_adapter():
        return with_adapter, model(IDS).logits


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_resized_vocabulary_comes_back_with_its_adapter(
    folders: dict[bool, str], tmp_path: Path, kind: str, tied: bool
):
    model = resized(folders[tied], **ADAPTERS[kind])
    PolicyWithValueHead(model).save_pretrained(tmp_path / "adapter")
    torch.manual_seed(2)
    loaded = load_policy(tmp_path / "adapter")
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-5, rtol=0)
    assert loaded.config.vocab_size == NEW


def test_a_merged_model_has_the_resized_vocabulary(folders: dict[bool, str], tmp_path: Path):
    model = resized(folders[True], modules_to_save=["embed_tokens"])
    PolicyWithValueHead(model).save_pretrained(tmp_path / "adapter")
    larger_tokenizer().save_pretrained(tmp_path / "adapter")
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        torch.testing.assert_close(merged(IDS).logits, model(IDS).logits, atol=1e-4, rtol=1e-5)


def test_tokens_whose_embeddings_an_adapter_lacks_are_not_made_up(folders: dict[bool, str], tmp_path: Path):
    PolicyWithValueHead(resized(folders[True])).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if ".lora_" in name}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"with 272 tokens and its base has 260: .* would be random; save the resized"):
        load_policy(tmp_path)


def test_an_adapter_that_peft_saved_alone_is_fitted_too(folders: dict[bool, str], tmp_path: Path):
    model = resized(folders[False], modules_to_save=["embed_tokens", "lm_head"])
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    assert not (tmp_path / BASE_FINGERPRINT).exists()
    torch.testing.assert_close(logits(load_policy(tmp_path))[0], logits(model)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("lora", [{"modules_to_save": ["embed_tokens"]}, {"trainable_token_indices": [3, 265]}])
def test_reward_models_with_tokens_of_their_own_reward_a_policy(
    folders: dict[bool, str], tmp_path: Path, lora: dict[str, Any]
):
    """End to end: a resized reward model is trained, loaded, merged and scores for a policy that was resized, too."""
    tokenizer, folder = larger_tokenizer(), folders[True]
    backbone: Any = RewardModel.from_backbone(folder)
    backbone.model.resize_token_embeddings(NEW)
    trainer = RewardTrainer(
        RewardModel(backbone.model, tokenizer),
        args=RewardConfig(**options(tmp_path / "reward")),
        train_dataset=pairs(2),
        peft_config=LoraConfig(r=2, target_modules=["q_proj"], **lora),
    )
    trainer.train()
    trainer.save_model()
    texts = ["Say <new3>:", "Hi"], [" <new1> yes", " no"]
    expected = pytest.approx(trainer.model.score(*texts), abs=1e-4)
    assert load_reward_model(tmp_path / "reward").score(*texts) == expected
    trainer.model.merge_and_save(tmp_path / "merged")
    assert load_reward_model(tmp_path / "merged").score(*texts) == expected
    policy = PolicyWithValueHead(resized(folder, trainable_token_indices=[4, 270]))
    policy.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    ppo = PPOTrainer(
        str(tmp_path / "policy"),
        args=PPOConfig(**options(tmp_path / "ppo", max_new_tokens=3)),
        train_dataset=pairs(2).select_columns("prompt"),
        reward=str(tmp_path / "reward"),
    )
    assert type(ppo.reward.members[0].source) is RewardModel
    assert ppo.reward(*texts).tolist() == expected
    ppo.train()


def test_a_reward_adapter_scores_on_a_policy_with_tokens_of_its_own(folders: dict[bool, str], tmp_path: Path):
    reward = RewardModel.from_backbone(folders[True], lora=LoraConfig(target_modules=["q_proj"]))
    reward.save_pretrained(tmp_path)
    for lora, shares in (({"trainable_token_indices": [65]}, False), ({"modules_to_save": ["embed_tokens"]}, True)):
        policy = load_policy(folders[True], lora=LoraConfig(target_modules=["q_proj"], **lora))  # type: ignore[arg-type]
        shared = as_reward(str(tmp_path), policy=policy)
        assert isinstance(shared.members[0].source, AdapterReward) == shares
        texts = ["A", "A", "C"], [" B", " Bc", " D"]
        assert shared(*texts).tolist() == pytest.approx(reward.score(*texts), abs=1e-4)


def test_a_token_without_an_embedding_is_named_before_training_and_scoring(folders: dict[bool, str], tmp_path: Path):
    folder, tokenizer = folders[True], larger_tokenizer()
    rows = pairs(3).add_column("completion", [[{"role": "assistant", "content": "yes"}]] * 3)
    rows = rows.map(
        lambda row, n: {"prompt": [{"role": "user", "content": "a <new2>" if n == 2 else "a"}]}, with_indices=True
    )
    message = r"row 2 has the token '<new2>' \(262\), and the model has embeddings for 260 tokens; give"
    with pytest.raises(UserError, match=f"train_dataset: {message}"):
        DPOTrainer(folder, args=DPOConfig(**options(tmp_path)), train_dataset=rows, processing_class=tokenizer)
    with pytest.raises(UserError, match=f"eval_dataset: {message}"):
        RewardTrainer(folder, args=RewardConfig(**options(tmp_path)), eval_dataset=rows, processing_class=tokenizer)
    with pytest.raises(UserError, match=f"train_dataset: {message}"):
        PPOTrainer(
            folder,
            args=PPOConfig(**options(tmp_path, max_new_tokens=3)),
            train_dataset=rows,
            processing_class=tokenizer,
            reward=lambda prompts, responses: [0.0] * len(responses),
        )
    trainer = DPOTrainer(
        folder, args=DPOConfig(**options(tmp_path)), train_dataset=rows.select([0, 1]), processing_class=tokenizer
    )
    with pytest.raises(UserError, match=f"eval_dataset: {message}"):
        trainer.evaluate(rows)
    with pytest.raises(UserError, match=message.replace("row 2", "row 0")):
        RewardModel(cast(Any, RewardModel.from_backbone(folder)).model, tokenizer).score(["<new2>"], ["b"])
    with pytest.raises(UserError, match=message.replace("row 2", "row 0")):
        sample_continuations(load_policy(folder), tokenizer, ["<new2>"])
    model = save_tiny(tmp_path / "sft", num_hidden_layers=1)
    tokenizer.save_pretrained(model)
    with pytest.raises(UserError, match=f"train_dataset: {message}"):
        SFTTrainer(
            model, SFTConfig(**options(tmp_path / "out")), train_dataset=rows.remove_columns(["chosen", "rejected"])
        )


def test_a_pad_token_without_an_embedding_is_refused(folders: dict[bool, str], tmp_path: Path):
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<filler>"})
    with pytest.raises(UserError, match="pad token '<filler>' is token 260, and the model has embeddings for 260"):
        DPOTrainer(
            folders[True], args=DPOConfig(**options(tmp_path)), train_dataset=pairs(2), processing_class=tokenizer
        )
    RewardModel(cast(Any, RewardModel.from_backbone(folders[True])).model, tokenizer)
    assert tokenizer.pad_token == "<pad>"  # reward models choose one themselves
    config = Path(save_tiny(tmp_path / "model"), "config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"pad_token_id": 400}))
    with pytest.raises(UserError, match=r"pad_token_id in its config.json is not in its vocabulary; set it"):
        load_policy(tmp_path / "model")
