"""Models of every kind pushed to the stand-in and loaded from it, and content that must not be pushed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path, PosixPath
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_align.errors import UserError
from hf_align.files import REWARD_CODE, VALUE_ADAPTER_FOLDER, VALUE_MODEL_FOLDER
from hf_align.hub import push_model
from hf_align.hub.staging import link_or_copy, stage_checkpoint, stage_model, staged_files
from hf_align.models import modeling_hf_align_reward
from hf_align.models.loading import load_policy
from hf_align.models.merging import push_merged
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.sources import load_tokenizer
from hf_align.models.value import PolicyWithValueHead
from tests.cards import card_data
from tests.hub.conftest import read_files
from tests.hub.models import PAIRS, next_logps, scores, trained
from tests.hub.stand_in import StandIn


def assert_nothing_leaks(hub: StandIn, repo_id: str, *secrets: Path | str) -> None:
    for name, content in hub.repositories[repo_id].files.items():
        for secret in (*secrets, "anna-secret", "local-base"):
            assert str(secret).encode() not in content, f"{secret} in {name}"


@pytest.mark.parametrize(
    ("kind", "lora"),
    [
        *(("reward", True), ("ppo", True), ("reward", False), ("dpo", False)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("ipo", True), ("ipo", False), ("dpo", True), ("ppo", False))
        ),
    ],
)
def test_what_was_pushed_is_what_is_loaded(
    kind: str, lora: bool, hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path
):
    folder = tmp_path / kind
    trainer = trained(kind, base, folder, lora=lora, save_strategy="steps", save_steps=1)
    before = read_files(folder)
    pushed = push_model(folder, "mine", base_model=base_on_hub)
    assert pushed.repo_id == "anna/mine" and pushed.url == f"{hub.url}/anna/mine"
    repository = hub.repositories["anna/mine"]
    assert pushed.commit == repository.head and repository.messages == ["Upload a model with hf-align"]
    assert read_files(folder) == before
    assert not list(tmp_path.glob(".*"))
    assert_nothing_leaks(hub, "anna/mine", tmp_path)
    adapter = {"adapter_config.json", "adapter_model.safetensors", "base_fingerprint.json"}
    weights = adapter if lora else {"config.json", "model.safetensors"}
    extra = {"value_head.safetensors"} if kind == "ppo" else set()
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    generation = set() if lora or kind == "reward" else {"generation_config.json"}
    texts = {".gitattributes", "README.md", "training_curves.png"}
    assert set(repository.files) == weights | extra | tokenizer | generation | texts

    if kind == "reward":
        loaded = load_reward_model("anna/mine")
        assert scores(loaded) == pytest.approx(scores(trainer.model), abs=1e-4)
        assert scores(loaded) != pytest.approx(scores(load_reward_model(str(base))), abs=1e-2)
    else:
        loaded = load_policy("anna/mine")
        torch.testing.assert_close(next_logps(loaded), next_logps(trainer.model.model), atol=1e-4, rtol=0)
        assert (next_logps(loaded) - next_logps(load_policy(base))).abs().max() > 1e-2
    if kind == "ppo":
        head = PolicyWithValueHead.from_pretrained("anna/mine").value_head
        torch.testing.assert_close(head.weight, trainer.model.value_head.weight)
    assert load_tokenizer("anna/mine").get_chat_template() == trainer.processing_class.get_chat_template()


@pytest.mark.parametrize("value_model", ["adapter", "separate"])
def test_a_value_model_of_its_own_goes_with_the_policy(
    value_model: str, hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path
):
    trainer = trained("ppo", base, tmp_path / "ppo", value_model=value_model)
    push_model(tmp_path / "ppo", "mine", base_model=base_on_hub)
    loaded = PolicyWithValueHead.from_pretrained("anna/mine")
    own, theirs = trainer.model.state_dict(), loaded.state_dict()
    assert own.keys() == theirs.keys() and any("value_head" in name for name in own)
    for name, tensor in own.items():
        torch.testing.assert_close(theirs[name], tensor, msg=name)
    assert_nothing_leaks(hub, "anna/mine", tmp_path)


def test_a_reward_head_that_is_not_plain_is_found_again(
    hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    torch.manual_seed(0)
    rows = [{"prompt": "Review it.", "chosen": " Warm.", "rejected": " Dull and long."}]
    config = RewardModelConfig(pooling="mean", head="mlp", tasks={"safe": "binary"})
    for name, lora in (("whole", None), ("adapter", True)):
        model = RewardModel.from_backbone(base, config, lora=lora)
        model.normalize(rows, "one pair")
        model.save_pretrained(tmp_path / name)
        (tmp_path / name / "other.py").write_text("print('not ours')")
        push_model(tmp_path / name, name, base_model=base_on_hub)
        merged = name if lora is None else "merged"
        if lora:
            push_merged(tmp_path / name, merged)
            assert REWARD_CODE not in hub.repositories[f"anna/{name}"].files
        files = hub.repositories[f"anna/{merged}"].files
        assert {file for file in files if file.endswith(".py")} == {REWARD_CODE}
        assert files[REWARD_CODE] == Path(modeling_hf_align_reward.__file__).read_bytes()
        for pushed in {name, merged}:
            loaded = load_reward_model(f"anna/{pushed}")
            assert (loaded.reward_config, loaded.normalization) == (config, model.normalization)
            assert scores(loaded) == pytest.approx(scores(model), abs=1e-5)
            assert loaded.score_tasks(*PAIRS)["safe"] == pytest.approx(model.score_tasks(*PAIRS)["safe"], abs=1e-5)
        alone = AutoModelForSequenceClassification.from_pretrained(f"anna/{merged}", trust_remote_code=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(f"anna/{merged}")
        texts = [f"{prompt}{response}{tokenizer.eos_token}" for prompt, response in zip(*PAIRS, strict=True)]
        with torch.no_grad():
            logits = alone(**tokenizer(texts, padding=True, return_tensors="pt")).logits[:, 0]
        assert logits.tolist() == pytest.approx(scores(model), abs=1e-5)
        assert type(alone).__module__.startswith("transformers_modules")


def test_an_adapter_on_a_hub_model_names_it_without_being_told(
    hub: StandIn, base_on_hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trained("dpo", base_on_hub, tmp_path / "dpo")
    push_model(tmp_path / "dpo", "team/tuned", license="mit")
    config = json.loads(hub.repositories["team/tuned"].files["adapter_config.json"])
    assert config["base_model_name_or_path"] == base_on_hub
    data = card_data(hub.repositories["team/tuned"].files["README.md"])
    assert (data.base_model, data.license, data.library_name) == (base_on_hub, "mit", "peft")


def test_an_adapter_on_a_local_model_is_refused_without_its_hub_id(hub: StandIn, base: Path, tmp_path: Path):
    trained("dpo", base, tmp_path / "dpo")
    with pytest.raises(UserError, match=r"local model .*local-base.*--base-model ORG/NAME.*--merge"):
        push_model(tmp_path / "dpo", "mine")
    with pytest.raises(UserError, match=r"base model 'team/base' is not on the Hub"):
        push_model(tmp_path / "dpo", "mine", base_model="team/base")
    assert not hub.repositories and not list(tmp_path.glob(".*"))


def test_an_adapter_s_own_tokenizer_wins_over_its_base_s(hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path):
    trainer = trained("reward", base, tmp_path / "reward")
    trainer.processing_class.chat_template = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
    trainer.model.tokenizer = trainer.processing_class
    trainer.save_model()
    push_model(tmp_path / "reward", "mine", base_model=base_on_hub)
    assert load_tokenizer("anna/mine").chat_template == trainer.processing_class.chat_template
    conversation = ([[{"role": "user", "content": "Review a movie."}]], ["A warm, funny film."])
    expected = trainer.model.score(*conversation)
    assert load_reward_model("anna/mine").score(*conversation) == pytest.approx(expected, abs=1e-4)


def test_a_repository_is_private_only_when_asked(hub: StandIn, base: Path):
    push_model(base, "open")
    push_model(base, "closed", private=True)
    assert not hub.repositories["anna/open"].private and hub.repositories["anna/closed"].private
    assert HfApi().model_info("anna/closed").private


def test_pushing_the_other_kind_leaves_nothing_of_the_first(hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path):
    trained("ppo", base, tmp_path / "ppo", value_model="adapter")
    push_model(tmp_path / "ppo", "mine", base_model=base_on_hub)
    assert "value/adapter_model.safetensors" in hub.repositories["anna/mine"].files
    push_model(base, "mine")
    names = set(hub.repositories["anna/mine"].files)
    assert "model.safetensors" in names
    assert not [name for name in names if "adapter" in name or "value" in name]
    assert not isinstance(load_policy("anna/mine"), PeftModel)


def test_pushing_the_same_again_changes_nothing(hub: StandIn, base: Path):
    first = push_model(base, "mine")
    assert push_model(base, "mine").commit == first.commit
    assert len(hub.repositories["anna/mine"].commits) == 2


def test_a_card_that_somebody_edited_is_pushed_as_it_is(hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path):
    trainer = trained("dpo", base, tmp_path / "dpo")
    readme = tmp_path / "dpo" / "README.md"
    readme.write_text("---\nlicense: mit\n---\n\nMy own words.\n", encoding="utf-8")
    trainer.save_model()
    push_model(tmp_path / "dpo", "mine", base_model=base_on_hub)
    assert hub.repositories["anna/mine"].files["README.md"].decode().endswith("My own words.\n")


@pytest.mark.parametrize(
    ("repo_id", "message"),
    [
        ("a/b/c", "is not a repository name"),
        ("someone/else", r"may not do that \(403\)"),
        ("", "is not a repository name"),
    ],
)
def test_a_name_that_will_not_do_is_refused(repo_id: str, message: str, hub: StandIn, base: Path):
    with pytest.raises(UserError, match=message):
        push_model(base, repo_id)
    assert not hub.repositories


def test_a_folder_without_a_model_is_refused(hub: StandIn, base: Path, tmp_path: Path):
    with pytest.raises(UserError, match="is not a folder"):
        push_model(tmp_path / "nothing", "mine")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"neither config\.json nor adapter_config\.json"):
        push_model(tmp_path / "empty", "mine")
    with pytest.raises(UserError, match="nothing to merge"):
        push_merged(base, "mine")


@pytest.mark.parametrize("stage", [stage_model, stage_checkpoint])
def test_nothing_outside_a_folder_is_pushed_and_no_link_is_left_out(stage: Callable[..., None], tmp_path: Path):
    folder, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    for name in (folder, elsewhere):
        name.mkdir()
        (name / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    for number, (name, target, problem) in enumerate(
        (
            ("generation_config.json", elsewhere / "config.json", "a link to a file outside .*put a copy"),
            ("generation_config.json", elsewhere / "gone.json", "a link to nothing; put the file"),
            (VALUE_ADAPTER_FOLDER, elsewhere, "a link to a folder; put a copy"),
        )
    ):
        (folder / name).symlink_to(target)
        with pytest.raises(UserError, match=f"{name} is {problem}"):
            stage(folder, tmp_path / f"stage-{number}")
        assert not list((tmp_path / f"stage-{number}").glob("generation*"))
        (folder / name).unlink()
    stage(folder, tmp_path / "whole")


SECRET = "nobody else's"


@pytest.fixture(scope="module")
def with_value_model(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adapter with a separate value model, to be copied."""
    folder = tmp_path_factory.mktemp("with-value") / "model"
    PolicyWithValueHead(load_policy(base, lora=True), value_model="separate").save_pretrained(folder)
    load_tokenizer(base).save_pretrained(str(folder))
    return folder


@pytest.fixture
def with_secret(with_value_model: Path, base_on_hub: str, tmp_path: Path) -> tuple[Path, Path]:
    """The folder of an adapter with a separate value model, and a file elsewhere."""
    folder = tmp_path / "model"
    shutil.copytree(with_value_model, folder)
    (tmp_path / "secret.json").write_text(json.dumps({"secret": SECRET}))
    return folder, tmp_path / "secret.json"


@pytest.mark.parametrize("push", [push_model, push_merged])
@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "training_curves.png", "LICENSE", "model_card.json", "tokenizer.json", "value_head.safetensors"),
        *("adapter_model.safetensors", f"{VALUE_MODEL_FOLDER}/adapter_config.json", f"{VALUE_MODEL_FOLDER}/x.json"),
        VALUE_MODEL_FOLDER,
    ],
)
def test_nothing_outside_a_folder_is_pushed_by_any_file_of_it(
    name: str, push: Callable[..., Any], with_secret: tuple[Path, Path], hub: StandIn, base_on_hub: str
):
    folder, secret = with_secret
    place = folder / name
    if place.is_dir():
        shutil.rmtree(place)
        (secret.parent / "elsewhere").mkdir()
        secret = secret.rename(secret.parent / "elsewhere" / "config.json").parent
    place.unlink(missing_ok=True)
    # Up through the folder itself and out again.
    place.symlink_to(Path(*[".."] * (name.count("/") + 1), folder.name, "..", secret.name))
    with pytest.raises(UserError, match=f"{name} is a link to a (file outside|folder)"):
        push(folder, "mine", base_model=base_on_hub)
    assert "anna/mine" not in hub.repositories
    assert not list(folder.parent.glob(".*")), "the stage is gone"


def test_links_within_a_folder_are_followed(
    with_secret: tuple[Path, Path], hub: StandIn, base_on_hub: str, tmp_path: Path
):
    folder, _ = with_secret
    (folder / "LICENSE.txt").write_text("mine")
    (folder / "NOTICE").symlink_to("LICENSE.txt")
    Path(tmp_path / "by-another-name").symlink_to(folder)
    push_model(tmp_path / "by-another-name", "mine", base_model=base_on_hub)
    assert hub.repositories["anna/mine"].files["NOTICE"] == b"mine"


def test_a_file_that_becomes_a_link_after_staging_is_not_followed(with_secret: tuple[Path, Path], tmp_path: Path):
    folder, secret = with_secret
    stage = tmp_path / "stage"
    stage_model(folder, stage, "team/base")
    before = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(secret)
    assert staged_files(stage)["tokenizer.json"].read_bytes() == before, "the stage has the file itself"
    (stage / "tokenizer.json").unlink()
    (stage / "tokenizer.json").symlink_to(secret)
    with pytest.raises(UserError, match=r"tokenizer\.json became a link"):
        staged_files(stage)


def test_a_file_that_becomes_a_link_while_it_is_staged_is_not_followed(tmp_path: Path):
    """Between the look at it and the copy: then a link is staged, which is never sent."""
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    link_or_copy(Resolved(tmp_path / "link"), tmp_path / "stage" / "file")
    assert (tmp_path / "stage" / "file").is_symlink()


class Resolved(PosixPath):
    """A path that was no link when it was resolved."""

    def resolve(self, strict: bool = False) -> Path:
        return Path(self)


def test_a_folder_without_weights_is_refused(tmp_path: Path):
    """Pushing it would remove the repository's weights."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds no weights"):
        stage_model(tmp_path, tmp_path / "stage")
