"""Output of an evaluation: samples in a file and in reporters that accept tables. Data for `evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from hf_align.errors import UserError
from hf_align.evaluation import sample_continuations
from hf_align.trainers.rollouts.samples import COLUMNS, as_markdown, row_of
from tests.tiny import tiny_model, tiny_tokenizer
from tests.trainers.ppo.test_trainer import ppo
from tests.trainers.toy import varied_prompts


def test_every_evaluation_leaves_a_file(tmp_path: Path):
    sets = {"short": varied_prompts(2), "long": varied_prompts(5)}
    trainer = ppo(tmp_path, {"eval_dataset": sets}, eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=2)
    trainer.train()
    names = sorted(path.name for path in (tmp_path / "eval_samples").iterdir())
    assert names == ["eval_long-2.json", "eval_long-4.json", "eval_short-2.json", "eval_short-4.json"]
    last = json.loads((tmp_path / "eval_samples" / "eval_long-4.json").read_text())
    assert last == trainer.eval_samples and len(last) == 5
    assert [sample["prompt"] for sample in last] == sets["long"]["prompt"][:]
    assert {"eval_short_reward", "eval_long_reward"} <= set().union(*trainer.state.log_history)


def test_data_given_to_evaluate_is_prepared_as_the_trainers_own(tmp_path: Path):
    trainer = ppo(tmp_path, {"eval_dataset": varied_prompts(3)})
    own = trainer.evaluate()
    given = trainer.evaluate(varied_prompts(3))
    assert given["eval_reward"] == own["eval_reward"] and given["eval_objective/kl"] == own["eval_objective/kl"]
    several = trainer.evaluate({"a": varied_prompts(3), "b": varied_prompts(4)})
    assert several["eval_a_reward"] == own["eval_reward"] and "eval_b_reward" in several
    with pytest.raises(UserError, match="no column prompt"):
        trainer.evaluate(Dataset.from_list([{"text": "a"}]))
    prepared: Any = trainer.eval_dataset
    assert trainer.evaluate(prepared.select(range(3)))["eval_reward"] == own["eval_reward"]
    with pytest.raises(UserError, match="eval_dataset has a column prompt_ids, which the trainer adds; rename"):
        trainer.evaluate(varied_prompts(3).add_column("prompt_ids", [[1]] * 3))  # type: ignore[arg-type]


def test_a_prompt_of_messages_is_shown_by_its_turns(tmp_path: Path):
    prompt = [{"role": "user", "content": "one\n| two"}]
    row = row_of({"prompt": prompt, "response": "three", "reward": 0.123456, "kl": 2.0})
    assert as_markdown([row]).splitlines()[2] == "| user: one \\| two | three | 0.123 | 2 |"


def evaluated(out: Path, reporter: str) -> Any:
    trainer = ppo(
        out,
        {"eval_dataset": varied_prompts(5)},
        report_to=reporter,
        eval_strategy="steps",
        eval_steps=2,
        run_name="toy",
    )
    trainer.train()
    return trainer


def test_tensorboard_gets_them_as_text(tmp_path: Path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer = evaluated(tmp_path, "tensorboard")
    (folder,) = (tmp_path / "runs").iterdir()
    events = accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    tables = events.Tensors("eval/samples/text_summary")
    assert [table.step for table in tables] == [2, 4]
    text = tables[-1].tensor_proto.string_val[0].decode()
    assert text.splitlines()[0] == f"| {' | '.join(COLUMNS)} |"
    assert len(text.splitlines()) == 2 + 5
    assert f"{trainer.eval_samples[4]['reward']:.3g}" in text.splitlines()[-1]


def test_weights_and_biases_gets_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_DIR", str(tmp_path)), ("WANDB_SILENT", "true")):
        monkeypatch.setenv(name, value)
    trainer = evaluated(tmp_path, "wandb")
    tables = sorted(tmp_path.glob("wandb/offline-run-*/files/media/table/eval/samples_*.table.json"))
    assert len(tables) == 2
    rows = [[sample[name] for name in ("prompt", "response", "reward", "kl")] for sample in trainer.eval_samples]
    assert rows in [json.loads(path.read_text())["data"] for path in tables]


def test_trackio_gets_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # before the import, which reads it
    trackio = pytest.importorskip("trackio", minversion="0.43")
    logged: list[dict[str, Any]] = []
    original = trackio.log
    monkeypatch.setattr(trackio, "log", lambda metrics, **kwargs: (logged.append(metrics), original(metrics, **kwargs)))
    trainer = evaluated(tmp_path, "trackio")
    tables = [metrics["eval/samples"] for metrics in logged if "eval/samples" in metrics]
    assert len(tables) == 2
    values = [[sample[name] for name in ("prompt", "response", "reward", "kl")] for sample in trainer.eval_samples]
    assert tables[-1].data == [dict(zip(COLUMNS, row, strict=True)) for row in values]
    assert list((tmp_path / "trackio").glob("*")), "it went into trackio's own store"


def test_a_terminal_gets_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    trainer = ppo(tmp_path, {"eval_dataset": varied_prompts(2)})
    trainer.evaluate()
    assert "Samples" not in capsys.readouterr().out, "quiet where there is no terminal"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    trainer.evaluate()
    shown = capsys.readouterr().out
    assert "Samples" in shown and all(name in shown for name in COLUMNS)
    assert f"{trainer.eval_samples[0]['reward']:.3g}" in shown


def test_an_end_of_turn_at_which_the_policy_does_not_stop_is_warned_of(tmp_path: Path, caplog: Any):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = str(tokenizer.chat_template).replace("<|im_end|>", "<|endoftext|>")
    chat = {"prompt": [{"role": "user", "content": "Hi"}]}
    warned = "ends a turn with '<|endoftext|>' (token 256), which is not a stop token of the model (<|im_end|> is)"
    with caplog.at_level("WARNING", logger="hf_align"):
        for rows, stops, count in ((varied_prompts(2), None, 0), ([chat], ["<|endoftext|>"], 0), ([chat], None, 1)):
            caplog.clear()
            changes = {"model": tiny_model(), "train_dataset": rows, "processing_class": tokenizer}
            ppo(tmp_path, changes, stop_strings=stops)
            assert caplog.text.count(warned) == count
    caplog.clear()
    sample_continuations(tiny_model(), tokenizer, [chat["prompt"]], max_new_tokens=1)
    assert caplog.text.count(warned) == 1
