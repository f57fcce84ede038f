"""An ensemble is one repository: what was pushed is what is loaded, without local names, and with a card that runs."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path
from typing import Any, cast

import pytest
from peft import LoraConfig

from hf_align import RewardConfig, RewardEnsemble, RewardModel, load_reward_model, train_ensemble
from hf_align.errors import UserError
from hf_align.hub import push_model
from hf_align.models.sources import is_ensemble
from tests.cards import card_data
from tests.hub.models import PAIRS
from tests.hub.stand_in import StandIn
from tests.trainers.pairs import options

ROWS = [{"prompt": "Review it.", "chosen": f" Warm {n}.", "rejected": f" Dull and long {n}."} for n in range(3)]


def make_ensemble(base: Path) -> RewardEnsemble:
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    ensemble = RewardEnsemble([RewardModel.from_backbone(base, lora=lora) for _ in range(2)], "min")
    ensemble.normalize(ROWS, "three pairs")
    return ensemble


def test_a_pushed_ensemble_is_one_repository_that_loads_the_same(
    hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path
):
    ensemble = make_ensemble(base)
    ensemble.error_correlation(ROWS, "held-out pairs")
    pushed = ensemble.push_to_hub("mine", base_model=base_on_hub, license="mit")
    repository = hub.repositories[pushed.repo_id]
    assert pushed.repo_id == "anna/mine" and len(repository.messages) == 1
    member = {"adapter_config.json", "adapter_model.safetensors", "base_fingerprint.json", "reward_config.json"}
    member |= {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    expected = {f"member-{number}/{name}" for number in range(2) for name in member}
    assert set(repository.files) == expected | {".gitattributes", "README.md", "ensemble.json"}
    for name, content in repository.files.items():
        assert not any(secret in content for secret in (b"anna-secret", b"local-base", str(tmp_path).encode())), name

    loaded = RewardEnsemble.from_pretrained("anna/mine")
    assert is_ensemble("anna/mine") and (loaded.method, loaded.kind) == ("min", "adapters")
    assert loaded.member_scores(*PAIRS).tolist() == ensemble.member_scores(*PAIRS).tolist()
    assert loaded.score(*PAIRS) == ensemble.score(*PAIRS)
    with pytest.raises(UserError, match=r"'anna/mine' holds an ensemble.*RewardEnsemble\.from_pretrained"):
        load_reward_model("anna/mine")

    data = card_data(repository.files["README.md"])
    assert (data.base_model, data.license, data.library_name) == (base_on_hub, "mit", "hf-align")
    assert {"hf-align", "reward-model", "ensemble", "lora"} <= set(data.tags)
    card = repository.files["README.md"].decode()
    assert "lowest of the members" in card and "three pairs" in card and "held-out pairs" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, "card", "exec"), {})
    printed = [ast.literal_eval(line) for line in output.getvalue().splitlines()]
    text = ([[{"role": "user", "content": "Review the film."}]], ["A warm, funny film."])
    assert printed == [ensemble.score(*text), ensemble.member_scores(*text).tolist()]


def test_a_repository_holds_what_was_pushed_last(hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path):
    ensemble = make_ensemble(base)
    ensemble.save_pretrained(tmp_path / "mine")
    (tmp_path / "mine" / "member-0" / "optimizer.pt").write_bytes(b"mine")
    push_model(tmp_path / "mine", "mine", base_model=base_on_hub)
    assert "member-0/optimizer.pt" not in hub.repositories["anna/mine"].files
    push_model(tmp_path / "mine" / "member-0", "mine", base_model=base_on_hub)
    assert not [name for name in hub.repositories["anna/mine"].files if "member" in name or name == "ensemble.json"]
    assert load_reward_model("anna/mine").score(*PAIRS) == ensemble.members[0].score(*PAIRS)
    with pytest.raises(UserError, match=r"local model .* base_model"):
        push_model(tmp_path / "mine", "other")
    (tmp_path / "mine" / "member-1" / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="member-1 holds no weights"):
        push_model(tmp_path / "mine", "mine", base_model=base_on_hub)


def test_one_name_is_not_given_to_different_bases(hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path):
    other = RewardModel.from_backbone(base, lora=True)
    cast(Any, other.model).peft_config["default"].base_model_name_or_path = str(tmp_path)
    ensemble = RewardEnsemble([RewardModel.from_backbone(base, lora=True), other])
    with pytest.raises(UserError, match=r"different local models .* base_model names one"):
        ensemble.push_to_hub("mine", base_model=base_on_hub)
    assert not hub.repositories.keys() - {base_on_hub}


def test_a_trained_ensemble_is_pushed_without_what_it_was_trained_with(
    hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path
):
    args = options(tmp_path / "trained", push_to_hub=True, hub_base_model=base_on_hub)
    lora = LoraConfig(r=2, target_modules=["q_proj"])
    with pytest.raises(UserError, match="repository"):
        train_ensemble(str(base), RewardConfig(**args, hub_model_id="no/such/name"), ROWS, n=2, peft_config=lora)
    train_ensemble(str(base), RewardConfig(**args), ROWS, n=2, bootstrap=None, eval_dataset=ROWS, peft_config=lora)
    repository = hub.repositories["anna/trained"]
    assert len(repository.messages) == 1 and {name.split("/")[0] for name in repository.files} == {
        *(".gitattributes", "README.md", "ensemble.json", "member-0", "member-1"),
    }
    assert "accuracy" in repository.files["README.md"].decode()
