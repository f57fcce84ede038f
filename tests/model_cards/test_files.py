"""Cards in folders: README.md files that are kept, and facts of folders without recorded facts."""

from __future__ import annotations

from pathlib import Path

import pytest
from peft import LoraConfig

from hf_align.errors import UserError
from hf_align.model_cards import CardFacts, describe_folder, load_facts, save_card
from hf_align.models.loading import load_policy
from hf_align.models.reward import RewardModel
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.value import PolicyWithValueHead
from tests.tiny import save_tiny

HISTORY = [{"step": step, "loss": 1 / step} for step in (1, 2, 3)]


def test_our_card_is_written_again_and_an_edited_one_is_kept(tmp_path: Path):
    card = tmp_path / "README.md"
    assert save_card(tmp_path, CardFacts("dpo", "one"), HISTORY)
    assert save_card(tmp_path, CardFacts("dpo", "two"))
    assert "# two" in card.read_text() and "training_curves.png" in card.read_text()
    facts = load_facts(tmp_path)
    assert facts is not None and facts.name == "two"
    card.write_text(card.read_text() + "\nMy words.\n")
    assert not save_card(tmp_path, CardFacts("dpo", "three"))
    assert card.read_text().endswith("My words.\n") and "# two" in card.read_text()
    card.unlink()
    assert save_card(tmp_path, CardFacts("dpo", "three")) and "# three" in card.read_text()
    assert not list(tmp_path.glob(".*"))


def test_a_readme_that_was_there_before_is_kept_unless_peft_wrote_it(tmp_path: Path):
    (tmp_path / "README.md").write_text("---\nbase_model: org/name\n---\n\nMine.\n")
    assert not save_card(tmp_path, CardFacts("dpo", "one"))
    save_tiny(tmp_path / "base")
    model = load_policy(tmp_path / "base", lora=LoraConfig(r=2, target_modules=["q_proj"]))
    model.save_pretrained(str(tmp_path / "adapter"))
    assert str(tmp_path) in (tmp_path / "adapter" / "README.md").read_text()
    assert save_card(tmp_path / "adapter", describe_folder(tmp_path / "adapter"))
    assert str(tmp_path) not in (tmp_path / "adapter" / "README.md").read_text()


@pytest.mark.parametrize(("name", "content"), [("README.md", b"caf\xe9"), ("model_card.json", b'{"facts": ')])
def test_a_card_that_cant_be_read_is_kept_and_broken_facts_are_named(name: str, content: bytes, tmp_path: Path):
    assert save_card(tmp_path, CardFacts("dpo", "one"))
    (tmp_path / name).write_bytes(content)
    before = (tmp_path / "README.md").read_bytes()
    assert not save_card(tmp_path, CardFacts("dpo", "two"))
    assert (tmp_path / "README.md").read_bytes() == before
    if name == "model_card.json":
        with pytest.raises(UserError, match=r"model_card.json is broken \(JSONDecodeError: .*\); delete it for a new"):
            load_facts(tmp_path)


def test_a_folder_tells_what_it_holds(tmp_path: Path):
    save_tiny(tmp_path / "base")
    plain = describe_folder(tmp_path / "base")
    assert (plain.kind, plain.library, plain.conversational) == ("model", "transformers", True)
    RewardModel.from_backbone(tmp_path / "base", RewardModelConfig("mean", "mlp")).save_pretrained(tmp_path / "mlp")
    mlp = describe_folder(tmp_path / "mlp")
    assert (mlp.kind, mlp.head, mlp.pooling, mlp.is_plain) == ("reward", "mlp", "mean", False)
    RewardModel.from_backbone(tmp_path / "base", lora=True).save_pretrained(tmp_path / "reward")
    reward = describe_folder(tmp_path / "reward")
    assert (reward.kind, reward.library, reward.is_plain) == ("reward", "peft", True)
    assert reward.base_model is None and reward.adapter is not None and reward.adapter["r"] == 16
    policy = PolicyWithValueHead(load_policy(tmp_path / "base"), value_model="shared")
    policy.save_pretrained(tmp_path / "ppo")
    assert (describe_folder(tmp_path / "ppo").kind, describe_folder(tmp_path / "ppo").value_head) == ("ppo", "shared")
