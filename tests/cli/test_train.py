import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

from hf_align import load_reward_model
from hf_align.cli.main import main
from hf_align.data.embedded.rows import make_rankings
from tests.cli.few import few
from tests.trainers.test_callbacks import PressCtrlC

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = ["--per_device_train_batch_size", "2", "--per_device_eval_batch_size", "4", "--use_cpu", "--bf16", "false"]
HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def run(command: str, model: str, out: Path, *flags: str) -> int:
    recipe = str(RECIPES / f"{command}.yaml")
    command = command.partition("-")[0]
    fixed = ["--config", recipe, "--model", model, "--output_dir", str(out), *few(command, out.parent), *SMALL]
    return main([command, *fixed, *flags])


@contextmanager
def with_callback(callback: TrainerCallback, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A callback that every trainer has."""
    with monkeypatch.context() as patch:
        patch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [*DEFAULT_CALLBACKS, callback])
        yield


def interrupted_at(step: int, monkeypatch: pytest.MonkeyPatch) -> AbstractContextManager[None]:
    """Ctrl-C in this step of every trainer."""
    return with_callback(PressCtrlC(step), monkeypatch)


@pytest.mark.parametrize("command", ["reward", pytest.param("dpo", marks=pytest.mark.slow), "ipo"])
def test_the_recipes_train_and_evaluate(
    command: str, tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(command, tiny_model_dir, out, "--max_steps", "2", "--logging_steps", "1") == 0
    assert f"saved in {out}" in capsys.readouterr().out
    adapter = json.loads((out / "adapter_config.json").read_text())
    assert adapter["r"] == 16
    metrics = json.loads((out / "eval_results.json").read_text())
    assert 0 <= metrics["eval_accuracy" if command == "reward" else "eval_rewards/accuracies"] <= 1
    state = json.loads((out / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "loss" in entry] == [1, 2]

    assert run(command, tiny_model_dir, out, "--max_steps", "2") == 2
    assert "already holds a training run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "said", "metric"),
    [
        ("rankings", "over all pairs of each ranking, the mean of its pairs", "eval_tau"),
        ("soft-labels", "share of people who preferred each response", "eval_accuracy"),
        ("tasks", "- `liked`: yes or no; its loss has weight 0.5", "eval_liked/accuracy"),
    ],
)
def test_the_reward_recipes_on_ranked_rows_train_and_their_cards_say_so(
    recipe: str, said: str, metric: str, tiny_model_dir: str, tmp_path: Path
) -> None:
    data, held_out, out = tmp_path / "rows.jsonl", tmp_path / "held_out.jsonl", tmp_path / "out"
    rows = make_rankings("validation", 9, 4)
    rows.select(range(6)).to_json(data)
    rows.select(range(6, 9)).to_json(held_out)
    names = {"model": tiny_model_dir, "train_dataset": data, "eval_dataset": held_out, "output_dir": out}
    names["max_steps"] = 2
    flags = [word for name, value in names.items() for word in (f"--{name}", str(value))]
    assert main(["reward", "--config", str(RECIPES / f"reward-{recipe}.yaml"), *flags, *SMALL]) == 0
    assert -1 <= json.loads((out / "eval_results.json").read_text())[metric] <= 1
    card = (out / "README.md").read_text()
    assert said in card and "Trained on rankings" in card and "| Responses of a prompt | 4 |" in card
    assert load_reward_model(out).reward_config.pooling == ("mean" if recipe == "tasks" else "last")


def test_a_reward_model_trains_on_rankings_and_is_evaluated_on_pairs(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    responses = ["A joy.", "Too long.", "Fine."]
    ranked = {"prompt": "The film: ", "responses": responses, "scores": [2, -1, None], "safe": [1, 0, None]}
    pair = {"prompt": "The film: ", "chosen": "Good.", "rejected": "Bad.", "label": 0.75}
    for name, rows in (("ranked", [ranked, {**ranked, "scores": [0, 1, 2]}]), ("pairs", [pair])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--train_dataset", str(tmp_path / "ranked.jsonl"), "--eval_dataset", str(tmp_path / "pairs.jsonl")]
    flags += ["--max_steps", "1", "--tasks.safe", "binary", "--task_weights.safe", "0.5", "--head", "mlp"]
    flags += ["--loss_type", "bradley_terry"]
    assert run("reward-rankings", tiny_model_dir, tmp_path / "out", *flags, "--dry-run") == 0
    assert "2 rows, " in capsys.readouterr().out
    assert run("reward-rankings", tiny_model_dir, tmp_path / "out", *flags) == 0
    metrics = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert metrics["eval_accuracy"] in (0, 1) and "eval_safe/loss" not in metrics, "the pairs have no such labels"
    assert json.loads((tmp_path / "out" / "reward_config.json").read_text())["tasks"] == {"safe": "binary"}
    capsys.readouterr()
    other = [*flags, "--tasks.safe", "3", "--output_dir", str(tmp_path / "2"), "--dry-run"]
    assert run("reward-rankings", str(tmp_path / "out"), tmp_path / "2", *other) == 2
    assert "tasks is {'safe': 3}, and the model already has tasks {'safe': 'binary'}" in capsys.readouterr().err


def test_a_recipe_augments_the_rows_for_training_alone(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [("A joy.", "Fine."), ("Fine.", "Too long."), ("Too long.", "Bad.")]
    rows = [{"prompt": "The film: ", "chosen": chosen, "rejected": rejected} for chosen, rejected in pairs]
    made = [{**rows[0], "source": "augmented:paraphrase"}]
    for name, each in (("rows", rows), ("held_out", rows[:1]), ("made", made)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))
    (tmp_path / "words.py").write_text("def louder(texts):\n    return [text.upper() for text in texts]\n")
    data = ["--train_dataset", str(tmp_path / "rows.jsonl"), "--eval_dataset", str(tmp_path / "held_out.jsonl")]
    augment = ["--augment.transitivity", "--augment.paraphrase", f"{tmp_path / 'words.py'}:louder"]

    def dry(command: str, *flags: str) -> tuple[int, str]:
        code = run(command, tiny_model_dir, tmp_path / "out", *data, *flags, "--dry-run")
        return code, "".join(capsys.readouterr())

    for command in ("reward", "dpo"):
        code, text = dry(command, *augment)
        assert code == 0 and "9 rows, " in text, text
        assert "train_dataset: 3 rows, and made of them 3 by transitivity, 3 by paraphrase." in text
    for flags, message in (
        (["--augment.transitiv", "true"], "--augment.transitiv is not a valid key; did you mean augment.transitivity?"),
        (["--augment.paraphrase", "louder"], "--augment.paraphrase expects FILE.py:FUNCTION or MODULE:FUNCTION, got"),
        (["--augment.interpolation", "1"], "--augment.interpolation makes soft labels, which dpo doesn't read"),
        (["--eval_dataset", str(tmp_path / "made.jsonl")], "eval_dataset: 1 row has a source that says augmented"),
    ):
        code, text = dry("dpo", *flags)
        assert code == 2 and message in text, text


def test_a_loss_of_one_s_own_and_one_without_a_reference_from_a_recipe(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "mine.py", tmp_path / "out"
    file.write_text("def hinge(batch, config):\n    return (1 - batch.chosen_means + batch.rejected_means).relu()\n")
    data = [*few("dpo", tmp_path), *SMALL, "--model", tiny_model_dir, "--max_steps", "1"]
    base = ["dpo", "--config", str(RECIPES / "simpo.yaml"), "--output_dir", str(out), *data]
    whole = [*base, "--lora", "null", "--dry-run"]
    assert main(whole) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^reference +none: the loss needs none$", shown, re.MULTILINE)
    assert "memory: reference" not in shown
    assert main([*whole, "--loss_type", "[simpo, sigmoid]"]) == 0
    assert "memory: reference" in capsys.readouterr().out
    for flags, message in (
        (["--ref_model", tiny_model_dir], "--ref_model is given, and no reference is scored with loss_type 'simpo'"),
        (["--loss_type", "dpo"], "--loss_type is 'dpo'; "),
        (["--loss_type", f"{file}:hing"], f"--loss_type: {file} has no function hing"),
        (["--loss_type", "3.5"], "--loss_type is '3.5'; "),
        (["--loss_type", "{a: b}"], "--loss_type expects text or a list (of text), got {'a': 'b'}"),
    ):
        assert main([*base, "--dry-run", *flags]) == 2
        assert message in capsys.readouterr().err
    own = [*base, "--loss_type", f"[{file}:hinge, simpo]", "--loss_weights", "[1.0, 0.5]"]
    assert main(own) == 0
    card = (out / "README.md").read_text()
    assert "mine.py" in card and str(tmp_path) not in card and "SimPO (Meng et al. 2024): `-log sigmoid(" in card


def test_resuming_with_another_lora_says_so(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("dpo", tiny_model_dir, tmp_path / "out", "--max_steps", "1", "--save_steps", "1") == 0
    again = ["--max_steps", "2", "--resume_from_checkpoint", "true", "--lora.r", "4"]
    assert run("dpo", tiny_model_dir, tmp_path / "out", *again) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--resume_from_checkpoint" in error and "an adapter with r=16, and the one to train has 4" in error


def test_a_failure_after_the_first_step_is_no_mistake_of_the_user(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bug(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            raise ValueError("a bug of ours")

    with with_callback(Bug(), monkeypatch), pytest.raises(ValueError, match="a bug of ours"):
        run("dpo", tiny_model_dir, tmp_path / "out", "--max_steps", "2", "--logging_steps", "1")


def test_a_file_and_full_fine_tuning(tiny_model_dir: str, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text(json.dumps({"prompt": "Say hi.", "chosen": " Hi!", "rejected": " No."}) + "\n")
    flags = ["--model", tiny_model_dir, "--train_dataset", str(data), "--output_dir", str(tmp_path / "out"), *SMALL]
    assert main(["dpo", *flags, "--max_steps", "1", "--learning_rate", "1e-2"]) == 0
    before, after = (load_file(Path(path) / "model.safetensors") for path in (tiny_model_dir, tmp_path / "out"))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_after_ctrl_c_the_advice_finishes_the_run(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--max_steps", "3", "--learning_rate", "1e-2"]
    assert run("dpo", tiny_model_dir, tmp_path / "unbroken", *flags) == 0
    with interrupted_at(1, monkeypatch):
        assert run("dpo", tiny_model_dir, tmp_path / "broken", *flags) == 130
    assert "Resume with: hf-align dpo --config" in capsys.readouterr().err
    flags += ["--resume_from_checkpoint", "true"]
    with interrupted_at(2, monkeypatch):
        assert run("dpo", tiny_model_dir, tmp_path / "broken", *flags) == 130
    assert capsys.readouterr().err.count("--resume_from_checkpoint true") == 1
    assert run("dpo", tiny_model_dir, tmp_path / "broken", *flags) == 0
    unbroken, broken = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("unbroken", "broken"))
    assert all(torch.equal(unbroken[name], broken[name]) for name in unbroken)
    AutoPeftModelForCausalLM.from_pretrained(tmp_path / "broken")


def test_print_config_can_be_run_again(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("dpo", tiny_model_dir, Path("out"), "--beta", "0.3", "--print-config") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert not Path("out").exists()
    Path("again.yaml").write_text(printed.out)
    assert "beta: 0.3\n" in printed.out
    assert main(["dpo", "--config", "again.yaml", "--max_steps", "1"]) == 0
    assert json.loads(Path("out/adapter_config.json").read_text())["r"] == 16


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "no/such/model"], "no/such/model"),
        (["--ref_model", "no/such/model"], "no/such/model"),
        (["--resume_from_checkpoint", "true"], "has no checkpoint yet"),
        (["--resume_from_checkpoint", "nowhere"], "nowhere is not a checkpoint folder"),
        (["--train_dataset", "bad.jsonl"], "rejected"),
        (["--train_dataset", "broken.jsonl"], "train_dataset: broken.jsonl, line 2 is not a JSON object"),
        (["--train_dataset", "empty.jsonl"], "train_dataset: empty.jsonl can't be read: it is empty"),
        (["--model", "bad.jsonl"], "'bad.jsonl' is a file; name the folder of a model"),
        (["--output_dir", "bad.jsonl"], "output_dir: can't write to bad.jsonl"),
        (["--lora.r", "0"], "positive integer"),
        (["--learning_rate", "-1e-4"], "learning_rate is -0.0001; give a number from 0"),
        (["--num_train_epochs", "0", "--max_steps", "-1"], "num_train_epochs is 0.0 and max_steps -1"),
        (["--lr_scheduler_type", "cosin"], "lr_scheduler_type: cosin is not a valid SchedulerType"),
        (["--lr_scheduler_type", "cosine_with_min_lr"], "min_lr"),
        (
            ["--eval_dataset", "null", "--eval_strategy", "steps"],
            "eval_strategy is 'steps' and there is no eval_dataset",
        ),
        (["--quantization", "4bit", "--lora", "false"], "adapter"),
        (["--save_strategy", "best"], "save_strategy is 'best' and metric_for_best_model is missing"),
        (["--eval_strategy", "epoch", "--metric_for_best_model", "eval_accuracy"], "use loss, rewards/chosen"),
        (["--train_dataset", "rows.py"], "train_dataset: rows.py is not one of .jsonl"),
        (["--model", "reward"], "model: reward is a reward model (sequence classification)"),
        (["--ref_model", "reward"], "ref_model: reward is a reward model"),
        (["--deepspeed", "nowhere.json"], "deepspeed: nowhere.json doesn't exist"),
        (["--ddp_backend", "nonsense"], "ddp_backend is 'nonsense'; use nccl"),
        (["--resume_from_checkpoint", "ppo"], "ppo is a checkpoint of PPO; name one of DPO, IPO or SFT"),
        (["--gradient_checkpointing_kwargs", "nope"], "gradient_checkpointing_kwargs: the text is not valid JSON"),
        (["--save_steps", "0"], "save_steps is 0; give a whole number from 1"),
    ],
)
def test_mistakes_exit_with_2(
    flags: list[str],
    message: str,
    tiny_model_dir: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read at import
    Path("bad.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b"}) + "\n")
    Path("broken.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n{oops\n")
    for file in ("empty.jsonl", "rows.py", "ppo/trainer_state.json", "ppo/ppo_state.json"):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).touch()
    Path("reward").mkdir()
    Path("reward/config.json").write_text('{"architectures": ["LlamaForSequenceClassification"]}')
    assert run("dpo", tiny_model_dir, tmp_path / "out", "--max_steps", "1", *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("hf-align: error: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_missing_reference_is_named_before_the_policy_is_loaded(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    assert run("dpo", tiny_model_dir, tmp_path / "out", "--ref_model", "no/such/model") == 2
    assert "--ref_model: 'no/such/model' doesn't exist" in capsys.readouterr().err


def test_a_file_is_trained_on_as_a_stream(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "p", "chosen": f" c{number}", "rejected": " r"} for number in range(4)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["--model", tiny_model_dir, "--train_dataset", str(data), "--streaming", "true", *SMALL]
    shown = [*given, "--output_dir", str(tmp_path / "shown"), "--max_steps", "3"]
    assert main(["reward", *shown, "--dry-run"]) == 0
    assert "a stream; of its first 4 rows" in capsys.readouterr().out
    assert main(["reward", *shown]) == 0
    assert json.loads((tmp_path / "shown" / "trainer_state.json").read_text())["global_step"] == 3
    rated = [{"prompt": "p", "response": each, **dict.fromkeys(HELPSTEER, int(each))} for each in "014"]
    (tmp_path / "rated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rated))
    of_several = ["--train_dataset", str(tmp_path / "rated.jsonl"), "--max_steps", "3"]
    for command, flags, said in (
        ("reward", of_several, "helpsteer (HelpSteer, HelpSteer2), a pair is made of several rows"),
        ("reward", [*of_several, "--dry-run"], "helpsteer (HelpSteer, HelpSteer2), a pair is made of several rows"),
        ("dpo", [], "train_dataset is a stream, whose number of rows isn't known; give max_steps"),
        ("dpo", ["--max_steps", "3", "--augment.transitivity", "true"], "augment needs all rows at once; leave it"),
        ("dpo", ["--max_steps", "3", "--shuffle_buffer", "-1"], "--shuffle_buffer is -1; give a number from 0"),
        (
            "dpo",
            ["--streaming", "false", "--shuffle_buffer", "5"],
            "--shuffle_buffer is of streams, and streaming isn't",
        ),
        ("ensemble", ["--max_steps", "3"], "--streaming: each member of an ensemble draws from all rows"),
    ):
        assert main([command, *given, "--output_dir", str(tmp_path / "refused"), *flags]) == 2
        assert said in capsys.readouterr().err
