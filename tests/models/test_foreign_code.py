"""Code that comes with a model never runs, whatever loads the model and whatever standard input says.

Nor does a pickle. What loads is found in signatures, commands and source of the library, so that what is new fails here
until it is tried, too.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import json
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

import hf_align
from hf_align import (
    PolicyWithValueHead,
    RewardEnsemble,
    RewardModel,
    RewardModelConfig,
    load_best,
    load_policy,
    load_reward_model,
)
from hf_align.cli.main import main
from hf_align.cli.table import COMMANDS
from hf_align.errors import LoadError, UserError
from hf_align.evaluation import Sampling, policy_report, reward_report, sample_best, score_dataset
from hf_align.experiments.quickstart import open_job
from hf_align.experiments.quickstart.run import run_quickstart
from hf_align.feedback import Prompt
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.collection.features import read_features
from hf_align.feedback.collection.responses import generate_responses
from hf_align.feedback.collection.writers import open_models
from hf_align.files import REWARD_CODE
from hf_align.hub import is_data_folder, push_dataset, push_model, stage_checkpoint, stage_model
from hf_align.hub.staging import new_stage
from hf_align.model_cards import describe_folder, load_facts
from hf_align.models.merging import merge_adapter, push_merged
from hf_align.models.scorer import load_scorer
from hf_align.models.sources import load_config, load_tokenizer
from hf_align.planning.outline import outline
from hf_align.rewards import AdapterReward, as_reward
from hf_align.tracking import RunRecord
from hf_align.trainers import (
    DPOConfig,
    DPOTrainer,
    HybridConfig,
    HybridTrainer,
    IPOConfig,
    IPOTrainer,
    OnlineDPOConfig,
    OnlineDPOTrainer,
    PPOConfig,
    PPOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
    Stage,
    train_ensemble,
)
from tests.tiny import tiny_model, tiny_tokenizer
from tests.trainers.pairs import options, pairs

ROOT = Path(hf_align.__file__).parents[1]
CODE = "from pathlib import Path\nPath({marker!r}).touch()\nclass Foreign: pass\ndef generate(*a, **k): pass\n"
AUTO = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
AUTO_MAPS: dict[str, dict[str, Any]] = {
    "config.json": {"auto_map": dict.fromkeys(AUTO, "foreign.Foreign")},
    "tokenizer_config.json": {
        "auto_map": {"AutoTokenizer": [None, "foreign.Foreign"], "AutoProcessor": "foreign.Foreign"}
    },
    "processor_config.json": {"auto_map": {"AutoProcessor": "foreign.Foreign"}},
    "generation_config.json": {"auto_map": {"GenerationConfig": "foreign.Foreign"}, "custom_generate": "foreign"},
}
UNKNOWN = {"config.json": {"model_type": "foreign"}, "tokenizer_config.json": {"tokenizer_class": "Foreign"}}
"""What makes transformers need the code; without it, it has a class of its own and could do without."""
ADAPTER = {"auto_mapping": {"base_model_class": "Foreign", "parent_library": "foreign"}}
MODULE = {"megatron_config": {"tensor_model_parallel_size": 1}, "megatron_core": "foreign"}
"""Of an adapter: what names a module to import."""


def dressed(source: str | Path, folder: Path, marker: Path, *changes: dict[str, dict[str, Any]]) -> str:
    """A copy of a model or adapter that names code beside it, which would make `marker`."""
    shutil.copytree(source, folder)
    for place in (folder / "foreign.py", folder / "custom_generate" / "generate.py"):
        place.parent.mkdir(exist_ok=True)
        place.write_text(CODE.format(marker=str(marker)), encoding="utf-8")
    for change in (AUTO_MAPS, *changes):
        for name, values in change.items():
            path = folder / name
            before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            path.write_text(json.dumps(before | values), encoding="utf-8")
    return str(folder)


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that code of others would make; somebody says yes to whatever is asked."""
    row = {"prompt": "a", "chosen": " b", "rejected": " c", "completion": " d", "response": " e", "rating": 1.0}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "others.jsonl").write_text((json.dumps(row) + "\n") * 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 200))
    return tmp_path / "it-ran"


@pytest.fixture
def foreign(tiny_model_dir: str, tmp_path: Path, marker: Path) -> str:
    """A model, with a value head, of a kind that transformers doesn't know."""
    folder = dressed(tiny_model_dir, tmp_path / "foreign", marker, UNKNOWN)
    settings = {"value_model": "shared", "head": "linear", "detach": "False"}
    save_file({"weight": torch.zeros(1, 32)}, Path(folder) / "value_head.safetensors", settings)
    return folder


def adapter_on(base: str, folder: Path, marker: Path, task: str = "CAUSAL_LM", **changes: Any) -> str:
    """An adapter that names code, on this base."""
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type=task, base_model_name_or_path=base)
    get_peft_model(tiny_model(), config).save_pretrained(str(folder / "plain"))
    changes = {"adapter_config.json": {"base_model_name_or_path": base, "task_type": task, **ADAPTER, **changes}}
    return dressed(folder / "plain", folder / "dressed", marker, UNKNOWN, changes)


def policy() -> Any:
    return get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))


def len_scores(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(len(text)) for text in responses]


def prompts() -> Dataset:
    return Dataset.from_list([{"prompt": "a"}] * 4)


def trains(trainer: type, config: type, **fixed: Any) -> Callable[..., Any]:
    """Makes a trainer with one of its arguments given."""
    data = prompts() if trainer in (PPOTrainer, OnlineDPOTrainer) else pairs(4)
    if trainer is SFTTrainer:
        data = Dataset.from_list([{"prompt": "a", "completion": " b"}])

    def make(**given: Any) -> Any:
        args = config("out", bf16=False, use_cpu=True, report_to="none", max_steps=1)
        others = fixed if "model" in given or trainer is SFTTrainer else {**fixed, "processing_class": tiny_tokenizer()}
        return trainer(**{"model": tiny_model(), "args": args, "train_dataset": data, **others, **given})

    return make


def ensemble_of(member: str) -> Path:
    """The folder of an ensemble with this member."""
    settings = {"method": "mean", "weights": None, "uncertainty_coef": 1.0, "trim": 0.2, "kind": "models"}
    others = {"format": 1, "members": ["member-0"], "fitted": False, "error_correlation": None}
    shutil.rmtree("ensemble", ignore_errors=True)
    shutil.copytree(member, "ensemble/member-0")
    Path("ensemble/ensemble.json").write_text(json.dumps(settings | others))
    return Path("ensemble")


ppo = trains(PPOTrainer, PPOConfig, reward=lambda prompts, responses: [0.0] * len(responses))
online = trains(OnlineDPOTrainer, OnlineDPOConfig, reward=lambda prompts, responses: [0.0] * len(responses))


def hybrid(**given: Any) -> HybridTrainer:
    """Makes a hybrid of PPO alone."""
    stage = Stage("ppo", {"bf16": False, "use_cpu": True, "report_to": "none", "max_steps": 1})
    others: dict[str, Any] = {
        "train_dataset": prompts(),
        "processing_class": tiny_tokenizer(),
        "reward": lambda p, r: [0.0] * len(r),
    }
    return HybridTrainer(tiny_model(), [stage], HybridConfig("hybrid"), **{**others, **given})


def best_of(name: str) -> Any:
    """The best policy of a run whose only checkpoint is this folder."""
    folder = tempfile.mkdtemp()
    with RunRecord.start(folder, "dpo") as record:
        session = record.session(prefix="dpo")
        session.log(1, {"eval_loss": 0.5})
        session.checkpoint(name, 1, {"policy": name})
    return load_best(folder, "eval_loss")


LOADS: dict[str, Callable[[str], Any]] = {
    "load_best(folder)": best_of,
    "load_policy(model_id_or_path)": load_policy,
    "load_reward_model(path_or_hub_id)": load_reward_model,
    "RewardModel.from_pretrained(path_or_hub_id)": RewardModel.from_pretrained,
    "RewardModel.from_backbone(model_id)": RewardModel.from_backbone,
    "PolicyWithValueHead.from_pretrained(path_or_hub_id)": PolicyWithValueHead.from_pretrained,
    "RewardEnsemble(members)": lambda name: RewardEnsemble([name]),
    "RewardEnsemble.from_pretrained(path_or_hub_id)": lambda name: RewardEnsemble.from_pretrained(ensemble_of(name)),
    "load_scorer": load_scorer,
    "load_config": load_config,
    "load_tokenizer": load_tokenizer,
    "outline": outline,
    "as_reward(reward)": as_reward,
    "policy_report(policies)": lambda name: policy_report([name], prompts(), judge="vader", max_new_tokens=2),
    "reward_report(model)": lambda name: reward_report(name, pairs(2)),
    "reward_report(judge)": lambda name: reward_report(len_scores, pairs(2), judge=name, robustness_texts=0),
    "score_dataset(model)": lambda name: score_dataset(name, pairs(2)),
    "read_features": lambda name: read_features(name, []).check([Prompt("a")], 2),
    "generate_responses": lambda name: generate_responses(
        [Prompt("a")], open_models(name), CollectionConfig(max_new_tokens=2)
    ),
    "sample_best(model)": lambda name: sample_best(name, name, prompts(), Sampling(2, max_new_tokens=2)),
    "DPOTrainer(model)": lambda name: trains(DPOTrainer, DPOConfig)(model=name),
    "DPOTrainer(ref_model)": lambda name: trains(DPOTrainer, DPOConfig)(ref_model=name),
    "IPOTrainer(model)": lambda name: trains(IPOTrainer, IPOConfig)(model=name),
    "IPOTrainer(ref_model)": lambda name: trains(IPOTrainer, IPOConfig)(ref_model=name),
    "RewardTrainer(model)": lambda name: trains(RewardTrainer, RewardConfig)(model=name),
    "HybridTrainer(model)": lambda name: HybridTrainer(name, ["dpo"], train_dataset=pairs(4)),
    "HybridTrainer(reward)": lambda name: hybrid(reward=name).train(),
    "HybridTrainer(judge)": lambda name: hybrid(judge=name, eval_dataset=prompts()).train(),
    "OnlineDPOTrainer(model)": lambda name: online(model=name),
    "OnlineDPOTrainer(ref_model)": lambda name: online(ref_model=name),
    "OnlineDPOTrainer(reward)": lambda name: online(reward=name),
    "PPOTrainer(model)": lambda name: ppo(model=name),
    "PPOTrainer(ref_model)": lambda name: ppo(ref_model=name),
    "PPOTrainer(reward)": lambda name: ppo(reward=name),
    "PPOTrainer(judge)": lambda name: ppo(judge=name, eval_dataset=prompts()),
    "train_ensemble(model_id)": lambda name: train_ensemble(
        name,
        RewardConfig("out-ensemble", bf16=False, use_cpu=True, report_to="none", max_steps=1),
        pairs(4),
        n=2,
        bootstrap=None,
    ),
    "SFTTrainer(model)": lambda name: trains(SFTTrainer, SFTConfig)(model=name),
}
READS: dict[str, Callable[[str], Any]] = {
    "AdapterReward(reward)": lambda name: AdapterReward(policy(), name),
    "RewardTrainer(ref_model)": lambda name: trains(RewardTrainer, RewardConfig)(ref_model=name),
    "policy_report(judge)": lambda name: policy_report([name], prompts(), judge=name, max_new_tokens=2),
    "push_model(folder)": lambda name: push_model(name, "me/mine"),
    "push_merged": lambda name: push_merged(name, "me/mine"),
    "push_dataset(folder)": lambda name: push_dataset(name, "me/mine"),
    "is_data_folder(folder)": is_data_folder,
    "stage_model(folder)": lambda name: stage_model(name, new_stage(name)),
    "stage_checkpoint(folder)": lambda name: stage_checkpoint(name, new_stage(name)),
    "describe_folder(folder)": describe_folder,
    "load_facts(folder)": load_facts,
    "merge_adapter": lambda name: merge_adapter(name, "merged"),
}
"""Those that look at a folder, or refuse it for another reason before they load it."""
TAKE_OBJECTS = {
    *("sample_continuations(model)", "stop_token_ids(model)", "warn_of_open_turns(model)"),
    *("save_card(folder)", "card_told(folder)"),
    "CardFacts(members)",
    *("Stage(reward)", "Stage(judge)"),
}
"""Of those that the signatures show: what is loaded already, or written."""
LACKS_A_HEAD = {
    "RewardEnsemble(members)",
    "RewardEnsemble.from_pretrained(path_or_hub_id)",
    "as_reward(reward)",
    "load_scorer",
    "reward_report(model)",
    "reward_report(judge)",
    "score_dataset(model)",
    "sample_best(model)",
    "HybridTrainer(reward)",
    "HybridTrainer(judge)",
    "OnlineDPOTrainer(reward)",
    "PPOTrainer(reward)",
    "PPOTrainer(judge)",
    "PolicyWithValueHead.from_pretrained(path_or_hub_id)",
}
"""Those that refuse a language model."""
NAMES = re.compile(r"(ref_)?model|reward|judge|policies|members|model_id\w*|path_or_hub_id|folder")
ROOMS = ("collators", "data", "evaluation", "hub", "model_cards", "rewards", "rollouts", "trainers")


def named_models() -> Iterator[str]:
    """Every parameter of the public classes and functions that may be a model's or folder's name."""
    modules = [hf_align, *(importlib.import_module(f"hf_align.{room}") for room in ROOMS)]
    public = {name: getattr(module, name) for module in modules for name in module.__all__}
    for name, value in public.items():
        functions = {name: value} if inspect.isfunction(value) else {}
        if inspect.isclass(value) and not name.endswith("Config"):
            functions = {name: value.__init__}
            functions |= {f"{name}.{each}": f.__func__ for each, f in vars(value).items() if isinstance(f, classmethod)}
        for place, function in functions.items():
            for parameter in inspect.signature(function).parameters.values():
                text = re.search(r"\b(str|Any|PathLike)\b", str(parameter.annotation))
                if NAMES.fullmatch(parameter.name) and text and not place.split(".")[-1].startswith("_"):
                    yield f"{place}({parameter.name})"


def test_what_takes_the_name_of_a_model_is_tried_here():
    assert set(named_models()) <= {*LOADS, *READS, *TAKE_OBJECTS}
    assert {name for name in (*LOADS, *READS) if "(" in name} <= set(named_models()), "these are gone"


@pytest.mark.parametrize("name", LOADS)
def test_code_that_a_model_needs_is_refused_and_never_run(name: str, foreign: str, marker: Path):
    with pytest.raises(LoadError, match="it needs its own code, which is never run"):
        LOADS[name](foreign)
    assert not marker.exists()


@pytest.mark.parametrize("name", READS)
def test_nothing_runs_when_a_folder_is_looked_at(name: str, foreign: str, marker: Path):
    with suppress(UserError):
        READS[name](foreign)
    assert not marker.exists()


def test_code_that_a_model_does_not_need_is_not_run_either(tiny_model_dir: str, tmp_path: Path, marker: Path):
    """With a class of its own, transformers would still ask, and a repository may bring its own `generate`."""
    folder = dressed(tiny_model_dir, tmp_path / "known", marker)
    for name, load in (LOADS | READS).items():
        try:
            load(folder)
        except UserError:
            assert name in READS or name in LACKS_A_HEAD, name
        assert not marker.exists(), name


def test_code_that_our_own_models_bring_is_not_run_here_either(tiny_model_dir: str, tmp_path: Path, marker: Path):
    model = RewardModel.from_backbone(tiny_model_dir, RewardModelConfig(pooling="mean"))
    model.save_pretrained(tmp_path / "reward")
    code = tmp_path / "reward" / REWARD_CODE
    code.write_text(code.read_text() + CODE.format(marker=str(marker)))  # somebody changed it
    folder = str(tmp_path / "reward")
    assert load_reward_model(folder).score(["a"], ["b"]) == model.score(["a"], ["b"])
    for name, load in (LOADS | READS).items():
        with suppress(UserError):
            load(folder)
        assert not marker.exists(), name
    with pytest.raises(UserError, match=rf"{REWARD_CODE} isn't the file that this version of hf-align saves"):
        stage_model(folder, new_stage(folder))


@pytest.mark.parametrize("changes", [{}, MODULE], ids=["auto_map", "a module to import"])
def test_nothing_runs_for_an_adapter(
    changes: dict[str, Any],
    tiny_model_dir: str,
    foreign: str,
    tmp_path: Path,
    marker: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.syspath_prepend(foreign)  # as if somebody worked in the folder: the module could be imported
    for number, base in enumerate((tiny_model_dir, foreign)):
        for task in ("CAUSAL_LM", "SEQ_CLS"):
            adapter = adapter_on(base, tmp_path / f"{task}-{number}", marker, task, **changes)
            for load in (load_policy, load_reward_model, load_tokenizer, *READS.values()):
                with suppress(UserError, ValueError):  # the latter is peft's own refusal of the module
                    load(adapter)
                assert not marker.exists(), (base, task, load)


MODEL, OUT, ROWS = ["--model", "{}"], ["--output_dir", "out"], ["--train_dataset", "rows.jsonl"]
GRID = [
    *("--prompts", "rows.jsonl", "--budget.samples", "8", "--datasets.d.pairs", "rows.jsonl"),
    *("--algorithms", "[dpo]", *OUT),
]
RUNS = {
    **{
        name: [[name, *MODEL, *ROWS, *OUT], [name, *MODEL, *ROWS, *OUT, "--dry-run"]]
        for name in ("sft", "reward", "dpo", "ipo", "ensemble")
    },
    "ppo": [
        ["ppo", *MODEL, *ROWS, *OUT, "--reward", "{}"],
        ["ppo", *MODEL, *ROWS, *OUT, "--reward", "{}", "--dry-run"],
    ],
    "online-dpo": [
        ["online-dpo", *MODEL, *ROWS, *OUT, "--judge", "vader"],
        ["online-dpo", "--model", "plain", *ROWS, *OUT, "--reward", "{}"],
        ["online-dpo", "--model", "plain", *ROWS, *OUT, "--judge", "{}"],
    ],
    "constitution": [
        ["constitution", *MODEL, "--prompts", "rows.jsonl", "--judge", "vader", *OUT],
        ["constitution", "--model", "plain", "--prompts", "rows.jsonl", "--judge", "{}", *OUT],
    ],
    "evaluate judge": [["evaluate", "judge", "--judge", "{}", "--data", "rows.jsonl"]],
    "hybrid": [
        ["hybrid", *MODEL, *ROWS, *OUT, "--stages", "[dpo]"],
        ["hybrid", "--model", "plain", *ROWS, *OUT, "--reward", "{}"],
    ],
    "benchmark": [
        ["benchmark", *MODEL, *GRID, "--judge", "vader"],
        ["benchmark", "--model", "plain", *GRID, "--judge", "{}"],
        ["benchmark", "--model", "plain", *GRID, "--judge", "vader", "--datasets.d.reward", "{}"],
    ],
    "improve": [
        ["improve", *MODEL, *ROWS, *OUT, "--eval_dataset", "rows.jsonl", "--judge", "vader", "--held_out_judge", "a/b"],
        ["improve", "--model", "plain", *ROWS, *OUT, "--eval_dataset", "rows.jsonl", "--judge", "{}"],
    ],
    "sweep": [["sweep", *MODEL, *ROWS, *OUT, "--eval_dataset", "others.jsonl", "--reward", "['{0}', '{0}']"]],
    "evaluate reward": [["evaluate", "reward", *MODEL, "--data", "rows.jsonl"]],
    "evaluate policy": [
        ["evaluate", "policy", *MODEL, "--data", "rows.jsonl"],
        ["evaluate", "policy", "--model", "plain", "--data", "rows.jsonl", "--judge", "{}", "--max-new-tokens", "1"],
    ],
    "score": [
        ["score", *MODEL, "rows.jsonl", "out.jsonl"],
        ["score", "--model", "{}", "rows.jsonl", "out.jsonl", "--best-of", "2", "--policy", "plain"],
    ],
    "inspect": [["inspect", "rows.jsonl", "--tokenizer", "{}"]],
    "collect": [
        ["collect", "--store", "s.db", "--prompts", "rows.jsonl", "--models", "{}", "--n=2", "--annotators=[a, b, c]"],
    ],
    "plan": [["plan", *MODEL, "--algorithm", "dpo"]],
    "select": [["select", *MODEL, "--data", "rows.jsonl"]],
    "push": [["push", "{}", "me/mine"], ["push", "{}", "me/mine", "--merge"]],
    "quickstart": [["quickstart", "--profile", "smoke", "--out", "begun", "--resume"]],
}
LOAD_NOTHING = {"doctor", "algorithms", "completion", "convert", "annotate", "export", "runs"}


def commands() -> set[str]:
    return {
        " ".join([each.name, *([part.name] if part else [])]) for each in COMMANDS for part in each.parts or (None,)
    }


def test_every_command_that_loads_is_tried_here():
    assert commands() == {*RUNS, *LOAD_NOTHING}


@pytest.mark.parametrize("command", RUNS)
def test_nothing_runs_when_a_command_loads(
    command: str, foreign: str, tiny_model_dir: str, marker: Path, capsys: pytest.CaptureFixture[str]
):
    Path("plain").symlink_to(tiny_model_dir)
    if command == "quickstart":  # one whose base model was put there by somebody else
        job = open_job("begun", "smoke")
        shutil.copytree(foreign, job.folder("base"))
        job.workspace.finish("base", {"model": "a base"})
        with pytest.raises(LoadError, match="which is never run"):
            run_quickstart(job)
    for words in RUNS[command]:
        assert main([word.format(foreign) for word in words]) == 2
        message = capsys.readouterr().err
        assert not marker.exists()
        assert command == "push" or "--judge" in words or "which is never run" in message


# ---- pickles ----


class Touch:
    """What a pickle may do when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.mark.filterwarnings("ignore")
def test_no_pickle_is_run_when_a_model_is_loaded(tiny_model_dir: str, tmp_path: Path, marker: Path):
    bad = pickle.dumps({"weight": Touch(marker)})
    folder = dressed(tiny_model_dir, tmp_path / "pickled", marker)
    adapter = adapter_on(tiny_model_dir, tmp_path, marker)
    for place, names in ((folder, ("pytorch_model.bin", "training_args.bin")), (adapter, ("adapter_model.bin",))):
        for weights in Path(place).glob("*.safetensors"):
            weights.unlink()
        for name in names:
            Path(place, name).write_bytes(bad)
    for name in (folder, adapter):
        for load in (load_policy, load_reward_model, load_tokenizer, *READS.values()):
            with suppress(Exception):  # there are no weights that could be loaded
                load(name)
            assert not marker.exists()


@pytest.mark.filterwarnings("ignore")
def test_no_pickle_is_run_when_a_run_goes_on(tmp_path: Path, marker: Path):
    def trainer(steps: int) -> DPOTrainer:
        config = DPOConfig(**options(tmp_path / "out", max_steps=steps, save_strategy="steps", save_steps=1))
        return DPOTrainer(tiny_model(), args=config, train_dataset=pairs(4), processing_class=tiny_tokenizer())

    trainer(1).train()
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        file = tmp_path / "out" / "checkpoint-1" / name
        before = file.read_bytes()
        file.write_bytes(pickle.dumps(Touch(marker)))
        with pytest.raises(Exception, match=r"."):
            trainer(2).train(resume_from_checkpoint=True)
        assert not marker.exists(), name
        file.write_bytes(before)


# ---- the source ----

LOADERS = {"from_pretrained", "from_config"}
OUR_OWN = {"RewardModel", "RewardEnsemble", "PolicyWithValueHead", "cls"}
"""What has a `from_pretrained` of this library."""
PEFT = {"PeftModel", "PeftConfig"}
"""peft's, which take weights and settings and load no class by name."""
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def library(words: str) -> Iterator[tuple[str, ast.Module]]:
    """The source of the files in which these words stand."""
    for package in ("hf_align", "trainers", "collators", "model_cards"):
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if re.search(words, text):
                yield str(path.relative_to(ROOT)), ast.parse(text)


def keyword(call: ast.Call, name: str) -> Any:
    values = [each.value for each in call.keywords if each.arg == name]
    return values[0].value if values and isinstance(values[0], ast.Constant) else None


def test_every_call_that_loads_a_class_by_name_refuses_foreign_code():
    for place, tree in library(r"from_pretrained|from_config|trust_remote_code|pipeline|torch\.hub"):
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        named = {node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in LOADERS}
        passed_on = named - {call.func for call in calls}
        assert not passed_on, f"{place}: {[ast.unparse(each) for each in passed_on]} should be called where it is named"
        for call in calls:
            if isinstance(call.func, ast.Attribute) and call.func.attr in LOADERS:
                owner = ast.unparse(call.func.value)
                ours = owner in OUR_OWN | PEFT or owner.startswith("super(")
                assert ours or keyword(call, "trust_remote_code") is False, (
                    f"{place}:{call.lineno}: {ast.unparse(call)}"
                )
            assert keyword(call, "trust_remote_code") in (None, False), f"{place}:{call.lineno}"
            if ast.unparse(call.func) in ("pipeline", "transformers.pipeline", "torch.hub.load"):
                pytest.fail(f"{place}:{call.lineno} loads in a way that this test doesn't know")


def test_no_pickle_is_loaded():
    """Trainer itself loads optimizer, schedule and random states, with `weights_only=True`."""
    for place, tree in library("|".join((*PICKLES, r"torch\.load"))):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
                if [each.name for each in node.names] != ["UnpicklingError"]:  # what reading safely raises
                    assert not PICKLES & {name.split(".")[0] for name in names}, f"{place}:{node.lineno}"
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert keyword(node, "weights_only") is True, f"{place}:{node.lineno}"
            if isinstance(node, ast.Call):
                assert keyword(node, "allow_pickle") in (None, False), f"{place}:{node.lineno}"
                assert not ast.unparse(node.func).endswith("read_pickle"), f"{place}:{node.lineno}"
