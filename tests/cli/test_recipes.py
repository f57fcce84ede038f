"""The repository's recipes parse, have only valid keys, and fit their GPU."""

import math
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config

from hf_align import RewardModel
from hf_align.algorithms import ALGORITHMS
from hf_align.cli.parser import build_parser
from hf_align.experiments.collection import prepare_collection
from hf_align.experiments.constitution import prepare_constitution
from hf_align.experiments.hybrid import prepare_hybrid
from hf_align.experiments.improvement.recipe import prepare_improvement
from hf_align.experiments.recipe import dump_recipe, read_recipe
from hf_align.experiments.run import Run, prepare
from hf_align.planning.device import Device
from hf_align.planning.memory import needs_of
from hf_align.planning.outline import outline
from hf_align.rewards.named import read_reward

FOLDER = Path(__file__).parents[2] / "recipes"
COLLECTIONS = sorted(path.stem for path in FOLDER.glob("collect*.yaml"))
CONSTITUTIONS = ("constitution", "smoke-constitution")
IMPROVEMENTS = ("improve", "smoke-improve")
HYBRIDS = ("hybrid", "smoke-hybrid")
BENCHMARKS = ("benchmark-embedded", "benchmark-cells", "smoke-benchmark")
OTHERS = {*COLLECTIONS, *CONSTITUTIONS, *IMPROVEMENTS, *HYBRIDS, *BENCHMARKS}
RECIPES = sorted({path.stem for path in FOLDER.glob("*.yaml")} - OTHERS)
GPUS = {"t4": 15, "24gb": 24, "80gb": 80}
"""GiB, of which the GPU's driver and fragmentation take some."""
METHODS_OF_PPO = ("rloo", "grpo")
BY_GPU = ("reward", "dpo", "ipo", "online-dpo", "ppo")
ROWS_OF_REWARDS = ("reward-rankings", "reward-soft-labels", "reward-tasks")
QWEN = {  # hidden, layers, heads, key-value heads, inner, vocabulary, tied
    "Qwen/Qwen2.5-1.5B-Instruct": (1536, 28, 12, 2, 8960, 151936, True),
    "Qwen/Qwen2.5-7B-Instruct": (3584, 28, 28, 4, 18944, 152064, False),
    "Qwen/Qwen2.5-14B-Instruct": (5120, 48, 40, 8, 13824, 152064, False),
}


def command_of(name: str) -> str:
    """The algorithm that a recipe's name begins with, after "smoke-"; or PPO or DPO, for their other methods."""
    if name in METHODS_OF_PPO:
        return "ppo"
    name = name.replace("simpo", "dpo")
    return max((each for each in ALGORITHMS.builtin if name.removeprefix("smoke-").startswith(each)), key=len)


def prepared(name: str, folder: Path = FOLDER) -> Run:
    return prepare(ALGORITHMS[command_of(name)], read_recipe(str(folder / f"{name}.yaml"), []))


def test_every_combination_is_there() -> None:
    wanted = {f"{command}{gpu}" for command in BY_GPU for gpu in ("", "-t4", "-24gb", "-80gb")}
    assert all((FOLDER / f"{name}.yaml").exists() for name in (*IMPROVEMENTS, *HYBRIDS, *BENCHMARKS))
    others = {"simpo", "sft", "ensemble", *METHODS_OF_PPO, *ROWS_OF_REWARDS}
    others |= {"collect", "collect-models", "smoke-online-dpo"}
    assert {*RECIPES, *COLLECTIONS} == {*wanted, *others}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_becomes_a_config(name: str, tmp_path: Path) -> None:
    run, command = prepared(name), command_of(name)
    assert run.lora() is not None
    assert run.args.save_total_limit, "checkpoints of a long run fill a disk"
    text = (FOLDER / f"{name}.yaml").read_text()
    assert f"hf-align {command} --config recipes/{name}.yaml" in text
    assert Path(run.args.output_dir).name == name
    source = run.checked.source
    if name in METHODS_OF_PPO:
        assert (run.args.baseline, run.args.group_scaling) == ("group", name == "grpo")
    elif command == "ppo":
        assert read_reward("org/any") and source["reward"].endswith(name.replace("ppo", "reward"))
        reward = prepared(name.replace("ppo", "reward"))
        assert reward.checked.source["model"] == source["model"], "the reward adapter is to sit on the policy's base"
    (tmp_path / f"{name}.yaml").write_text(dump_recipe(run.checked, type(run.args)))
    assert prepared(name, tmp_path).checked.source == source


@pytest.mark.parametrize("name", COLLECTIONS)
def test_a_recipe_of_a_collection_has_valid_keys_and_names_its_command(name: str) -> None:
    run = prepare_collection(read_recipe(str(FOLDER / f"{name}.yaml"), []))
    assert f"hf-align collect --config recipes/{name}.yaml" in (FOLDER / f"{name}.yaml").read_text()
    assert run.prompts is not None and len(run.prompts) > run.config.batch_size
    assert len(run.values["annotators"]) >= run.config.annotators_per_task


@pytest.mark.parametrize("name", CONSTITUTIONS)
def test_a_recipe_of_a_constitution_names_its_commands_and_reads_its_prompts(
    name: str, monkeypatch: pytest.MonkeyPatch, tiny_model_dir: str
) -> None:
    monkeypatch.chdir(FOLDER.parent)
    flags = ["--model", tiny_model_dir, "--judge", tiny_model_dir]
    run = prepare_constitution(read_recipe(f"recipes/{name}.yaml", flags))
    assert len(run.halves.sft) + len(run.halves.preferences) == (run.values["limit"] or 40) and run.halves.repeated == 0
    assert Path(run.values["output_dir"]).name == name
    lines = re.findall(r"^#   hf-align (.*?)(?:\s{2,}.*)?$", (FOLDER / f"{name}.yaml").read_text(), re.MULTILINE)
    commands = [shlex.split(line) for line in lines]
    assert ["constitution", "--config", f"recipes/{name}.yaml"] in commands
    for command, *words in commands:
        if command in ("sft", "reward", "dpo"):
            options, fields = build_parser().parse_known_args([command, *words])
            run_of = prepare(ALGORITHMS[command], read_recipe(str(FOLDER.parent / options.config), fields))
            assert str(run_of.checked.source["train_dataset"]).startswith(f"out/{name}/")


@pytest.mark.parametrize("name", IMPROVEMENTS)
def test_a_recipe_of_self_improvement_has_valid_keys_and_names_its_command(
    name: str, tiny_model_dir: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    RewardModel.from_backbone(tiny_model_dir).save_pretrained(tmp_path / "reward")
    recipe = read_recipe(
        str(FOLDER / f"{name}.yaml"), ["--model", tiny_model_dir, "--judge", str(tmp_path / "reward"), "--lora.r", "4"]
    )
    run = prepare_improvement(recipe)
    assert f"hf-align improve --config recipes/{name}.yaml" in (FOLDER / f"{name}.yaml").read_text()
    assert run.args.save_total_limit and run.votes is not None
    assert run.args.output_dir and run.args.output_dir.endswith(name)
    assert len(run.prompts) >= run.config.rounds * (run.config.prompts_per_round or 0), "each round has new prompts"


@pytest.mark.parametrize("name", HYBRIDS)
def test_a_hybrids_recipe_has_valid_keys_and_names_its_command(name: str, tiny_model_dir: str, tmp_path: Path) -> None:
    flags = ["--model", tiny_model_dir, "--reward", "hf_align.rewards.vader:vader_judge", "--output_dir", str(tmp_path)]
    run = prepare_hybrid(read_recipe(str(FOLDER / f"{name}.yaml"), [*flags, "--train_dataset", "embedded:ratings"]))
    assert f"hf-align hybrid --config recipes/{name}.yaml" in (FOLDER / f"{name}.yaml").read_text()
    assert [each.run.algorithm.name for each in run.stages] == ["dpo", "ppo", "ipo"]
    assert all(each.run.args.save_total_limit and each.run.lora() is not None for each in run.stages)


def save_config(model: str, folder: Path) -> str:
    hidden, layers, heads, pairs, inner, vocabulary, tied = QWEN[model]
    Qwen2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=pairs,
        intermediate_size=inner,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        dtype=torch.bfloat16,
    ).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("gpu", ["t4", *(pytest.param(gpu, marks=pytest.mark.slow) for gpu in ("24gb", "80gb"))])
@pytest.mark.parametrize("command", [pytest.param(c, marks=pytest.mark.slow) if c == "ipo" else c for c in BY_GPU])
def test_a_recipe_fits_its_gpu(command: str, gpu: str, tmp_path: Path) -> None:
    run = prepared(f"{command}-{gpu}")
    args, source = run.args, run.checked.source
    if command in ("ppo", "online-dpo"):  # prompts and responses of maximum length
        documents = [([1] * args.max_prompt_length, [[1] * args.max_new_tokens] * args.num_samples)] * 64
    else:
        half_length = args.max_length // 2
        documents = [([1] * half_length, [[1] * half_length] * 2)] * 64
    folder = save_config(source["model"], tmp_path)
    half = torch.float16 if gpu == "t4" else torch.bfloat16
    options: dict[str, Any] = {"quantization": source["quantization"], "lora": run.lora(), "dtype": half}
    model, device = outline(folder, reward=command == "reward", **options), Device.of(f"{GPUS[gpu]}GB")
    needs = needs_of(run.algorithm.rows, {**source, "model": folder, "reward": None}, args, model, documents, device)
    total = device.needed(needs.peak, sum(needs.stays.values())) / 2**30
    assert total < GPUS[gpu], {name: size / 2**30 for name, size in needs.parts.items()}
    (said,) = re.findall(
        r"^# Memory: about (\d+) GiB .*--dry-run", (FOLDER / f"{command}-{gpu}.yaml").read_text(), re.M
    )
    assert int(said) == math.ceil(total), "the recipe's comment says something else"
