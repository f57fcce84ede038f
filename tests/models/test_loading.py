import json
from pathlib import Path

import pytest

from hf_align.errors import LoadError, UserError
from hf_align.models.loading import load_policy
from hf_align.models.sources import check_source, load_config, load_tokenizer
from tests.tiny import save_tiny


def test_names_without_a_model_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file").touch()
    for name, message in (
        ("empty", "'empty' holds no model: it has no config.json, adapter_config.json or .gguf file"),
        ("file", "'file' is a file; name the folder of a model"),
        ("./nowhere", "'./nowhere' doesn't exist; name the folder"),
    ):
        for load in (check_source, load_policy, load_tokenizer):
            with pytest.raises(LoadError) as caught:
                load(name)
            assert message in str(caught.value)
            assert caught.value.source == name


def test_a_hub_id_holds_a_model_or_an_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for repository, file in (("a--model", "config.json"), ("an--adapter", "adapter_config.json")):
        folder = tmp_path / f"models--{repository}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("0" * 40)
        (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
        (folder / "snapshots" / ("0" * 40) / file).write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    check_source("a/model")
    check_source("an/adapter")
    with pytest.raises(LoadError, match=r"the Hub id or folder 'no/model': We couldn't connect[^\n]*$"):
        check_source("no/model")


def test_the_config_of_an_adapter_is_its_bases(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", max_position_embeddings=77)
    load_policy(base, lora=True).save_pretrained(str(tmp_path / "adapter"))
    for name in ("base", "adapter"):
        check_source(str(tmp_path / name))
        assert load_config(tmp_path / name).max_position_embeddings == 77


def test_an_adapter_config_that_says_nothing_usable_is_refused_in_a_sentence(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", num_hidden_layers=1)
    load_policy(base, lora=True).save_pretrained(str(tmp_path / "adapter"))
    file = tmp_path / "adapter" / "adapter_config.json"
    whole = json.loads(file.read_text())
    for value in (5, ["base"], {"a": 1}, True):
        file.write_text(json.dumps(whole | {"base_model_name_or_path": value}))
        for load in (load_policy, load_config):
            with pytest.raises(UserError, match="as its base model; set base_model_name_or_path"):
                load(str(tmp_path / "adapter"))
    for text in ("{", "[]", "5", json.dumps(whole | {"peft_type": "NONE"}), json.dumps(whole | {"task_type": 3})):
        file.write_text(text)
        with pytest.raises(LoadError, match=r"adapter_config.json is not an adapter's config \("):
            load_policy(str(tmp_path / "adapter"))
