"""Reward models of any kind load without hf_align from what was saved, and score the same in a new process."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification

from hf_align.models import modeling_hf_align_reward as travelling
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.reward_files import response_start
from tests.families import FAMILIES
from tests.tiny import CHAT, tiny_tokenizer

PROMPTS = [[{"role": "user", "content": "Review a film."}], [{"role": "user", "content": "Say hi."}]]
RESPONSES = ["A dull, endless film.", "Hi!"]
ROWS = [{"prompt": f"{word}:", "chosen": " a long answer", "rejected": " no"} for word in ("Say it", "Go on")]
TASKS = {"safe": "binary", "tone": 3, "helpful": "regression"}
HEADS = [(head, pooling) for head in ("linear", "mlp") for pooling in ("last", "mean", "max", "first")]
CONFIGS = {
    f"{head}-{pooling}{'-tasks' if tasks else ''}": RewardModelConfig(pooling, head, tasks, projection=bool(tasks))  # type: ignore[arg-type]
    for (head, pooling), tasks in itertools.product([*HEADS, ("attention", "last")], ({}, TASKS))
}
PLAIN = "linear-last"
SOME = [PLAIN, "linear-mean", "mlp-max", "mlp-mean-tasks", "attention-last", "linear-last-tasks"]

WITHOUT_HF_ALIGN = """
import gc
gc.disable()  # imports create no garbage, and collecting takes a fifth of their time
import importlib.abc, json, sys
from pathlib import Path

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "hf_align":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

prompts, responses, folders = json.loads(sys.stdin.read())
alone = {}
for folder in map(Path, folders):
    trust = (folder / "modeling_hf_align_reward.py").exists()
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=trust).eval()
    for side in ("left", "right"):
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)
        if tokenizer.chat_template:
            rows = [[*p, {"role": "assistant", "content": r}] for p, r in zip(prompts, responses)]
            texts = [tokenizer.apply_chat_template(row, tokenize=False).rstrip() for row in rows]
        with torch.no_grad():
            outputs = model(**tokenizer(texts, return_tensors="pt", padding=True))
        kept = ("logits", "embeddings")
        alone[f"{folder.name}/{side}"] = {
            name: value.tolist() for name, value in outputs.items() if name in kept or name.startswith("task_")
        }
    if folder.name in ("linear-last", "attention-last", "mlp-mean-tasks"):
        piped = pipeline("text-classification", str(folder), trust_remote_code=trust)(texts)
        alone[f"{folder.name}/pipeline"] = {"logits": [[row["score"]] for row in piped]}
    if folder.name == "mlp-mean-tasks":
        model.save_pretrained(folder.parent / "again")
        again = AutoModelForSequenceClassification.from_pretrained(folder.parent / "again", trust_remote_code=True)
        assert torch.equal(again.eval()(**tokenizer(texts, return_tensors="pt", padding=True)).logits, outputs.logits)
assert "hf_align" not in sys.modules
print(json.dumps(alone))
"""
LOADED = """
import gc
gc.disable()
import json, sys
from hf_align import load_reward_model

prompts, responses, folders = json.loads(sys.stdin.read())
print(json.dumps({folder: load_reward_model(folder).score(prompts, responses) for folder in folders}))
"""


def randomise_lora(model: RewardModel) -> None:
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)


@pytest.fixture(scope="module", params=[SOME, pytest.param(list(CONFIGS), marks=pytest.mark.slow)], ids=["some", "all"])
def made(
    request: pytest.FixtureRequest, tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, RewardModel], Any]:
    """Kinds of reward models as trained with LoRA and merged, and what is made of their folders: by a new process
    without hf_align, and with it by this one or, of all kinds, by another.

    Every third one is normalised; the names of families are those of further, whole models.
    """
    folder, models = tmp_path_factory.mktemp("saved"), {}
    torch.manual_seed(0)
    for number, name in enumerate(request.param):
        config = CONFIGS[name]
        model = RewardModel.from_backbone(tiny_model_dir, config, lora=LoraConfig(r=2, target_modules=["q_proj"]))
        randomise_lora(model)
        if number % 3 == 0:
            model.normalize(ROWS, "two answers")
        models[name] = model
    for family in ("gpt2", "granite"):  # learnt positions; no classifier in transformers
        FAMILIES[family].make().save_pretrained(folder / "base")
        tiny_tokenizer().save_pretrained(folder / "base")
        config = RewardModelConfig() if family == "granite" else RewardModelConfig(pooling="mean")
        models[family] = RewardModel.from_backbone(folder / "base", config)
    for name, model in models.items():
        model.save_pretrained(folder / f"{name}-adapter")
        model.merge_and_save(folder / name)
    merged = [str(folder / name) for name in models]
    saved = [*merged, *(f"{name}-adapter" for name in merged)]
    alone = in_a_new_process(WITHOUT_HF_ALIGN, merged, folder / "home")
    if request.param is SOME:
        scores = {each: load_reward_model(each).score(PROMPTS, RESPONSES) for each in saved}
    else:
        scores = in_a_new_process(LOADED, saved, folder / "home")
    return folder, models, (alone, scores)


def in_a_new_process(program: str, folders: list[str], home: Path) -> Any:
    ran = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps([PROMPTS, RESPONSES, folders]),
        env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_models_score_the_same_without_hf_align_on_either_side_of_padding(made: Any):
    _, models, (alone, _) = made
    for name, model in models.items():
        scores = torch.tensor(model.score(PROMPTS, RESPONSES))
        given = scores - model.offset if name == PLAIN else scores
        for side in ("left", "right"):
            torch.testing.assert_close(
                torch.tensor(alone[f"{name}/{side}"]["logits"])[:, 0], given, atol=1e-5, rtol=0, msg=f"{name} {side}"
            )
    for name in (PLAIN, "attention-last", "mlp-mean-tasks"):
        piped = torch.tensor(alone[f"{name}/pipeline"]["logits"])
        torch.testing.assert_close(piped, torch.tensor(alone[f"{name}/left"]["logits"]), atol=1e-5, rtol=0)


def test_tasks_and_embeddings_come_by_name_without_hf_align(made: Any):
    _, models, (alone, _) = made
    for name in (name for name in models if name.endswith("tasks")):
        outputs = {key: torch.tensor(value) for key, value in alone[f"{name}/left"].items()}
        assert set(outputs) == {"logits", "task_safe", "task_tone", "task_helpful", "embeddings"}
        predicted = models[name].score_tasks(PROMPTS, RESPONSES)
        assert outputs["task_safe"].sigmoid().tolist() == pytest.approx(predicted["safe"], abs=1e-5)
        torch.testing.assert_close(outputs["task_tone"].softmax(-1), torch.tensor(predicted["tone"]), atol=1e-5, rtol=0)
        assert outputs["task_helpful"].tolist() == pytest.approx(predicted["helpful"], abs=1e-5)
        assert outputs["embeddings"].shape == (2, 128)


def test_saved_and_merged_models_score_bitwise_the_same(made: Any):
    folder, models, (_, scores) = made
    for name, model in models.items():
        merged, adapter = scores[str(folder / name)], scores[str(folder / f"{name}-adapter")]
        assert adapter == model.score(PROMPTS, RESPONSES), name
        assert merged == model.merged().score(PROMPTS, RESPONSES), name
        assert merged == pytest.approx(adapter, abs=1e-5), name


def test_only_whole_models_that_are_not_plain_bring_code(made: Any):
    folder, models, _ = made
    for name in models:
        config = json.loads((folder / name / "config.json").read_text())
        code, plain = folder / name / "modeling_hf_align_reward.py", name == PLAIN
        assert code.exists() == ("auto_map" in config) == ("hf_align_reward" in config) == (not plain), name
        assert plain or code.read_bytes() == Path(travelling.__file__).read_bytes()
        whole = name in ("gpt2", "granite")
        assert (folder / f"{name}-adapter" / code.name).exists() == whole
    source = Path(travelling.__file__).read_text()
    assert "SPDX" in source or "Apache License" in source
    assert "import hf_align" not in source and "from hf_align" not in source


def test_transformers_own_classifier_never_takes_another_pooling_for_its_own(made: Any):
    folder, _, _ = made
    _, info = AutoModelForSequenceClassification.from_pretrained(folder / "linear-mean", output_loading_info=True)
    assert "score.weight" in info["missing_keys"], "it would score the last token, without a word"


@pytest.fixture
def attention(made: Any) -> Any:
    """The attention model's class and weights, in this process."""
    folder, _, _ = made
    return travelling.RewardModelForSequenceClassification.from_pretrained(folder / "attention-last").eval()


def test_an_attention_head_reads_the_response_that_it_is_given(made: Any, attention: Any):
    _, models, _ = made
    model = models["attention-last"].merged()
    prompt, response = [5, 6, 7], [8, 9, 258]
    ids = torch.tensor([[259, *prompt, *response]])
    mask = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    with torch.no_grad():
        scores = attention(ids, response_mask=mask).logits[:, 0].tolist()
        assert scores == pytest.approx(model.score_ids([prompt], [response]), abs=1e-5)
        assert attention(ids[:, 1:], response_mask=mask[:, 1:], return_dict=False)[0].tolist() == [
            [pytest.approx(scores[0], abs=1e-5)]
        ]
    with pytest.raises(ValueError, match="Row 0 holds no answer after the start of an assistant's turn: pass response"):
        attention(ids.expand(2, -1).repeat(1, 4))
    with pytest.raises(ValueError, match="Rows of 7 tokens hold no assistant's turn: pass response_mask"):
        attention(ids)
    attention.config.hf_align_reward["response_start"] = None
    with pytest.raises(ValueError, match="no chat template to find them: pass response_mask"):
        attention(ids)


def test_the_start_of_a_response_is_stored_only_where_it_is_certain():
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(list(response_start(tokenizer) or ())) == "<|im_start|>assistant\n"
    thought = CHAT.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    tokenizer.chat_template = thought  # which other turns lack: an answer begins before it
    assert tokenizer.decode(list(response_start(tokenizer) or ())) == "<|im_start|>assistant\n"
    tokenizer.chat_template = CHAT.partition("{% if add")[0]
    assert response_start(tokenizer) is None, "a generation prompt adds nothing"
    tokenizer.chat_template = None
    assert response_start(tokenizer) is None


def test_the_class_says_what_it_cannot_load(made: Any, tmp_path: Path):
    folder, _, _ = made
    with pytest.raises(ValueError, match=r"config\.json has no hf_align_reward"):
        travelling.RewardModelForSequenceClassification.from_pretrained(folder / PLAIN)


def test_a_model_that_brings_code_is_a_base_like_any_other(made: Any, tmp_path: Path):
    folder, models, _ = made
    model = load_reward_model(folder / "mlp-max", lora=LoraConfig(r=2, target_modules=["q_proj"]))
    assert model.score(PROMPTS, RESPONSES) == load_reward_model(folder / "mlp-max").score(PROMPTS, RESPONSES)
    randomise_lora(model)
    model.save_pretrained(tmp_path / "adapter")
    assert load_reward_model(tmp_path / "adapter").score(PROMPTS, RESPONSES) == model.score(PROMPTS, RESPONSES)
    plain = RewardModel.from_backbone(folder / "mlp-max")  # its backbone alone
    plain.save_pretrained(tmp_path / "plain")
    assert not {"auto_map", "hf_align_reward"} & set(json.loads((tmp_path / "plain" / "config.json").read_text()))
    assert replace(models["mlp-max"].reward_config, pooling="last", head="linear") == plain.reward_config
