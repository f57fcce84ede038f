import gc
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig

from hf_align.errors import LoadError, UserError
from hf_align.models.loading import load_policy
from hf_align.models.reward import RewardModel, load_reward_model
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


LORA = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])


@pytest.fixture(scope="module")
def broken(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of a model, a reward model and their adapters, with weights that were cut off."""
    folder = tmp_path_factory.mktemp("broken")
    save_tiny(folder / "model")
    load_policy(tiny_model_dir, lora=LORA).save_pretrained(str(folder / "adapter"))
    reward = RewardModel.from_backbone(tiny_model_dir, lora=True)
    reward.save_pretrained(folder / "reward")
    for path in folder.glob("*/*model.safetensors"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    return folder


@pytest.mark.parametrize("name", ["model", "adapter", "reward"])
def test_weights_that_were_cut_off_are_named(name: str, broken: Path) -> None:
    load = load_reward_model if name == "reward" else load_policy
    file = broken / name / ("model.safetensors" if name == "model" else "adapter_model.safetensors")
    with pytest.raises(LoadError) as caught:
        load(broken / name)
    assert str(caught.value).startswith(f"{file} is broken: it is cut off")
    assert str(caught.value).endswith("download or save the model again.")


@pytest.mark.parametrize(
    ("pad", "message"),
    [
        (999, "pad_token_id in its config.json is not in its vocabulary; set it to one, or to null"),
        ("<pad>", "its config.json is wrong: Validation error for field 'pad_token_id': .* with value '<pad>' doesn't"),
    ],
)
def test_a_pad_id_that_is_none(pad: Any, message: str, tmp_path: Path) -> None:
    config = Path(save_tiny(tmp_path), "config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "pad_token_id": pad}))
    with pytest.raises(LoadError, match=message):
        load_policy(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{}", "its config.json is no model's, which has a model_type; name the folder of a model"),
        ("[1]", "its config.json is no model's, which has a model_type; name the folder of a model"),
        (
            '{"model_type": "nonsense"}',
            "its config.json has the model_type 'nonsense', which this version of transformers doesn't",
        ),
        ('{"model_type"', "its config.json is not JSON; download or save the model again"),
        (b"\xff\xfe{", "its config.json is not JSON; download or save the model again"),
        ('{"model_type": [3]}', r"its config.json has the model_type \[3\], which this version"),
    ],
    ids=str,
)
@pytest.mark.parametrize("load", [load_config, load_policy, load_reward_model, load_tokenizer])
def test_a_folder_that_is_no_model_s_is_refused_without_names_of_classes(
    load: Any, config: str | bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes(config if isinstance(config, bytes) else config.encode())
    with pytest.raises(LoadError, match=message) as caught:
        load(str(tmp_path))
    assert "Auto" not in str(caught.value) and caught.value.source == str(tmp_path)
    if load is load_tokenizer:
        assert str(caught.value).startswith(f"Can't load a tokenizer from the folder '{tmp_path}': ")


def test_a_model_s_folder_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(LoadError, match=r"Can't load a tokenizer from the folder '.*': it has no tokenizer.json or"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("base", [5, ["a"], {"a": 1}, True])
def test_a_base_of_another_type_than_a_name(base: Any, broken: Path, tmp_path: Path) -> None:
    shutil.copytree(broken / "adapter", tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": base}))
    with pytest.raises(UserError, match=r"names .* as its base model; set base_model_name_or_path in adapter_config"):
        load_policy(tmp_path / "adapter")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's list of mapped files")
def test_quantised_weights_leave_no_checkpoint_mapped(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = str(shutil.copytree(tiny_model_dir, tmp_path / "mine"))  # which no other model has mapped
    plain = load_policy(folder)
    assert folder in Path("/proc/self/maps").read_text(), "weights as stored are the file's pages"
    del plain
    gc.collect()
    model: Any = load_policy(folder, quantization="4bit")
    assert folder not in Path("/proc/self/maps").read_text()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight, "tied ones stay tied"
