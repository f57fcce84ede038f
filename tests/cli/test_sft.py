import html
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_align.cli.main import main
from hf_align.collators.demonstrations import read_demonstrations
from hf_align.errors import UserError
from hf_align.models.loading import load_policy
from hf_align.models.reward import load_reward_model
from hf_align.trainers.sft import SFTConfig, SFTTrainer
from tests.cli.few import few
from tests.cli.test_train import RECIPES, interrupted_at

SMALL = (
    "--per_device_train_batch_size 2 --per_device_eval_batch_size 4 --logging_steps 1 --save_steps 1 --use_cpu "
    "--bf16 false --learning_rate 1e-2"
).split()
USER, ASSISTANT = {"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "Hi!"}


@pytest.fixture(autouse=True)
def in_a_new_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def run(model: str, out: str, *flags: str) -> int:
    fixed = ["--config", str(RECIPES / "sft.yaml"), "--model", model, "--output_dir", out, *few("sft", Path()), *SMALL]
    return main(["sft", *fixed, *flags])


def test_the_recipe_gives_a_base_for_everything_else(tiny_model_dir: str) -> None:
    assert run(tiny_model_dir, "out", "--max_steps", "2") == 0
    assert json.loads(Path("out/eval_results.json").read_text())["eval_loss"] > 0
    targets = json.loads(Path("out/adapter_config.json").read_text())["target_modules"]
    assert len({each.rpartition(".")[2] for each in targets}) == 7
    assert targets == sorted(targets), "the same in every process"
    adapter = AutoPeftModelForCausalLM.from_pretrained("out", dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained("out/merged", dtype=torch.float32)
    ids = torch.arange(10)[None]
    assert torch.allclose(adapter(ids).logits, merged(ids).logits, atol=1e-4)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    assert not torch.allclose(adapter(ids).logits, plain(ids).logits, atol=1e-2)
    assert AutoTokenizer.from_pretrained("out/merged").chat_template
    load_policy("out", quantization="4bit")
    load_reward_model("out/merged")


@pytest.mark.slow
def test_after_ctrl_c_the_advice_finishes_the_run(
    tiny_model_dir: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--max_steps", "3", "--merge", "false"]
    assert run(tiny_model_dir, "unbroken", *flags) == 0
    assert not Path("unbroken/merged").exists()
    with interrupted_at(1, monkeypatch):
        assert run(tiny_model_dir, "broken", *flags) == 130
    assert "Resume with: hf-align sft --config" in capsys.readouterr().err
    assert run(tiny_model_dir, "broken", *flags, "--resume_from_checkpoint", "true") == 0
    unbroken, broken = (load_file(Path(name) / "adapter_model.safetensors") for name in ("unbroken", "broken"))
    assert all(torch.equal(unbroken[name], broken[name]) for name in unbroken)


def trainer_on(rows: list[dict[str, Any]], model: str, **options: Any) -> Any:
    args = SFTConfig("out", **{"use_cpu": True, "bf16": False, "report_to": "none", **options})
    return SFTTrainer(model, args, Dataset.from_list(rows))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"padding_free": True}, "padding_free is True and max_length is 1024, which rows are only cut to if they are"),
        ({"loss_type": "sigmoid"}, "loss_type is 'sigmoid'; it must be 'nll' or 'dft'"),
        ({"assistant_only_loss": True}, "assistant_only_loss is True, and the rows are texts; give conversations"),
        ({"eos_token": "<none>"}, "eos_token is '<none>', which isn't in the tokenizer's vocabulary"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_options_that_go_with_nothing_are_refused_before_the_model_is_loaded(
    options: dict[str, Any], said: str, tiny_model_dir: str
) -> None:
    Path("tokenizer").mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(tiny_model_dir, name), "tokenizer")  # a folder without weights
    with pytest.raises(UserError, match=f"^{said}"):
        trainer_on([{"prompt": "Say hi.", "completion": "Hi!"}], "tokenizer", **options)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "completion": [ASSISTANT]},
        {"prompt": [USER], "completion": "Hi!"},
        {"messages": [USER, ASSISTANT]},
    ],
)
def test_only_the_answer_is_learnt(row: dict[str, Any], tiny_model_dir: str) -> None:
    trainer = trainer_on([row], tiny_model_dir)
    batch = next(iter(trainer.get_train_dataloader()))
    learnt = batch["labels"][0][batch["labels"][0] != -100]
    assert trainer.processing_class.decode(learnt).strip() == "Hi!<|im_end|>"


def test_text_is_learnt_whole(tiny_model_dir: str) -> None:
    trainer = trainer_on([{"text": "The sky is blue."}], tiny_model_dir)
    labels = next(iter(trainer.get_train_dataloader()))["labels"][0]
    assert trainer.processing_class.decode(labels).startswith("The sky is blue.")


def test_adapters_on_quantised_weights_stay_float32(tiny_model_dir: str) -> None:
    from peft import LoraConfig

    args = SFTConfig("out", use_cpu=True, bf16=False, report_to="none", max_steps=1)
    lora = LoraConfig(r=4, target_modules="all-linear")
    rows = Dataset.from_list([{"prompt": "The sky is", "completion": " blue."}])
    trainer: Any = SFTTrainer(tiny_model_dir, args, rows, peft_config=lora, quantization_config="4bit")
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    assert trained and all(parameter.dtype == torch.float32 for parameter in trained)
    before = [parameter.clone() for parameter in trained]
    trainer.train()
    assert any(not torch.equal(old, new) for old, new in zip(before, trained, strict=True))


def test_whole_conversations_for_assistant_only_loss() -> None:
    rows = Dataset.from_list([{"messages": [USER, ASSISTANT, USER, ASSISTANT]}])
    assert read_demonstrations(rows, "d", whole=True).column_names == ["messages"]
    split = read_demonstrations(rows, "d")[0]
    assert (len(split["prompt"]), split["completion"]) == (3, [ASSISTANT])


def test_tools_go_along_as_they_were_and_unread_options_are_said(caplog: pytest.LogCaptureFixture) -> None:
    tools: list[dict[str, Any]] = [{"name": "clock", "hours": 3}, {"name": "map", "scale": 0.5}]
    rows = [{"messages": [USER, ASSISTANT], "tools": [tool], "chat_template_kwargs": {"a": 1}} for tool in tools]
    with caplog.at_level("WARNING", logger="hf_align"):
        actual = read_demonstrations(rows, "d", whole=True)
    assert [json.loads(row) for row in actual["tools"]] == [[tool] for tool in tools]
    assert "d: training on demonstrations does not read the column chat_template_kwargs." in caplog.text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": ""}, "train_dataset: 1 row has an empty completion (row 1)"),
        ({"prompt": "a", "completion": [ASSISTANT]}, "a text prompt with messages as completion"),
        ({"prompt": [USER], "completion": [USER]}, "a completion that doesn't end with an assistant message"),
        ({"messages": [ASSISTANT]}, "messages that don't end with an assistant message after another one"),
        ({"messages": "a"}, "messages that are text (call the column text)"),
        ({"text": [USER]}, "a text that is a list of messages"),
        ({"question": "a"}, "needs prompt and completion, messages, or text"),
    ],
)
def test_rows_that_cannot_be_used_are_numbered(row: dict[str, Any], message: str) -> None:
    rows = [row] if "row 1" not in message else [{**row, "completion": "b"}, row]
    with pytest.raises(UserError) as caught:
        read_demonstrations(Dataset.from_list(rows), "train_dataset")
    assert message in str(caught.value)


def test_prompts_that_leave_no_room_are_counted(tiny_model_dir: str, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"prompt": "The sky is", "completion": " blue."}, {"prompt": "word " * 60, "completion": " blue."}]
    assert len(trainer_on(rows, tiny_model_dir, max_length=32).train_dataset) == 1
    assert "train_dataset: 1 of 2 rows have a prompt that fills max_length=32" in caplog.text
    with pytest.raises(UserError, match=r"2 of 2 rows have .* raise max_length"):
        trainer_on(rows[1:] * 2, tiny_model_dir, max_length=32)


def mixed_folder(folder: Path) -> Path:
    """Files of three layouts, with a repeated and an empty row, and one of another split."""
    alpaca = [
        {"instruction": f"Name film {n}.", "input": "", "output": f"The film is called number {n}."} for n in range(6)
    ]
    sharegpt = [
        {
            "conversations": [
                {"from": "human", "value": f"Is film {n} good?"},
                {"from": "gpt", "value": f"Number {n} is.\r\n"},
            ]
        }
        for n in range(4)
    ]
    qa = [{"question": "Who sings?", "answer": ""}, {"question": "Who sings?", "answer": "Nobody does."}]
    rows = {"alpaca": [*alpaca, alpaca[0]], "talk/sharegpt": sharegpt, "qa": qa, "test": [{"text": "Held out."}]}
    for name, each in rows.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))
    return folder


def test_a_folder_of_mixed_files_is_prepared_and_the_card_counts_what_was_dropped(
    tiny_model_dir: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Path("held.jsonl").write_text(json.dumps({"question": "Name film 2.", "answer": "It is number 2."}))
    data = ["--train_dataset", str(mixed_folder(tmp_path / "films")), "--eval_dataset", "held.jsonl", "--prepare"]
    assert run(tiny_model_dir, "out", *data, "--max_steps", "1", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "rows" in said and "13  alpaca.jsonl 7, qa.jsonl 2, talk/sharegpt.jsonl 4" in said
    assert "dropped: a row says the same" in said and "alpaca.jsonl 6" in said and "10 rows, " in said
    assert "test.jsonl: of another split by name, and left out." in said and not Path("out").exists()

    flags = [*data, "--max_steps", "1", "--merge", "false", "--prepare.min_quality", "0.2"]
    assert run(tiny_model_dir, "out", *flags) == 0
    report = json.loads(Path("out/_sft_report.json").read_text())
    assert report["reasons"] == {"unreadable": 1, "contaminated": 1, "duplicate": 1}
    assert report["options"]["min_quality"] == 0.2 and Path("out/_sft_report.md").exists()
    card = html.unescape(Path("out/README.md").read_text())
    assert "- alpaca.jsonl: 5 of 7 rows" in card and "| Dropped: a row says the same | 1 |" in card
    assert "mean_token_accuracy" in card and "interval_95" not in card, "shares of tokens, not of rows"
    assert "supervised fine-tuning" in card and str(tmp_path) not in card and "| eval" not in card

    with Path(tmp_path, "films/qa.jsonl").open("a") as file:
        file.write(json.dumps({"question": "Who dances?", "answer": "The dog does."}))
    assert run(tiny_model_dir, "out", *flags, "--max_steps", "2", "--resume_from_checkpoint", "true") == 2
    assert "--train_dataset: these are other rows than the run began with" in capsys.readouterr().err


def test_what_cannot_be_prepared_is_refused_before_anything_is_loaded(
    tiny_model_dir: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Path("words.py").write_text("def half(rows):\n    return [0.5] * len(rows)\n")
    films = ["--train_dataset", str(mixed_folder(tmp_path / "films")), "--eval_dataset", "null"]
    for flags, message in [
        (["--train_dataset", "[a.jsonl, b.jsonl]"], "--train_dataset: several data sets are joined by a preparation"),
        (["--prepare.min_qualty", "0.5"], "--prepare.min_qualty is not a valid key; did you mean prepare.min_quality?"),
        (["--prepare.contamination", "rows"], "--prepare.contamination expects 'prompt' or 'row', got 'rows'"),
        (["--prepare.quality", "words.py:hall"], "--prepare.quality: words.py has no function hall"),
        (["--prepare.quality", "words.py:half", "--prepare.min_quality", "0.6"], "none of 13 rows is left"),
        (["--prepare.balance", "kind"], "balance: alpaca.jsonl has no column 'kind'"),
    ]:
        assert run(tiny_model_dir, "out", *films, *flags, "--dry-run") == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
