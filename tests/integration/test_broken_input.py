"""Generated broken data sets and recipes through the commands: a sentence or a result, never a traceback or a NaN."""

from __future__ import annotations

import io
import json
import logging
import math
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, event, given, settings, strategies as st
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

from hf_align.cli.main import main
from tests.integration.broken_recipes import ALGORITHMS, SAMPLING, grids, names, recipes
from tests.integration.broken_rows import DEMONSTRATIONS, LAYOUTS, PAIR, PAIRS, PROMPTS, File, as_bytes, files
from tests.tiny import tiny_tokenizer

pytestmark = pytest.mark.slow

SMALL = ["--per_device_train_batch_size", "2", "--use_cpu", "--bf16", "false", "--report_to", "none", "--lora", "true"]
REWARDS = """
def length(prompts, responses):
    with open("asked.txt", "a") as file:
        file.writelines(prompt + chr(10) for prompt in prompts)
    return [float(len(response)) for response in responses]
"""
ERROR_NAMES = re.compile(
    r"\b(?!OfflineModeIsEnabled)\w*(?:Error|Exception|Warning|ArrowInvalid)\b|\[Errno|<class|object at 0x"
)
"""What a sentence for users doesn't hold."""


def generated(examples: int) -> settings:
    """So many examples, the same each time."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=[*HealthCheck.__members__.values()],
    )


@dataclass
class Seen(TrainerCallback):
    """Texts of the rows that were trained on."""

    texts: list[str] = field(default_factory=list)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loader: Any = kwargs["train_dataloader"]
        if isinstance(loader.dataset, torch.utils.data.IterableDataset):  # a stream: as its rows are put together
            collate = loader.collate_fn

            def seeing(rows: Any) -> Any:
                self._see(rows or [])
                return collate(rows)

            loader.collate_fn = seeing
        elif not isinstance(loader.dataset, range):
            self._see(loader.dataset)

    def _see(self, rows: Any) -> None:
        tokenizer = tiny_tokenizer()
        for row in rows:
            ids = row.get("input_ids") or [*row["prompt_ids"], *(each for ids in row["response_ids"] for each in ids)]
            self.texts.append(str(tokenizer.decode(ids)))


@dataclass
class Result:
    """What a command returned, printed and logged."""

    status: int
    out: str
    err: str


def run(*arguments: str) -> Result:
    """Run a command, which ends well or with one sentence."""
    out, err = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(err)
    logging.getLogger("hf_align").addHandler(handler)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            status = main(list(arguments))
    finally:
        logging.getLogger("hf_align").removeHandler(handler)
    result = Result(status, out.getvalue(), err.getvalue())
    event(f"{arguments[0]}: {status}")
    assert status in (0, 2), result
    assert "Traceback" not in result.err, result
    errors = [line for line in result.err.splitlines() if line.startswith("hf-align: error:")]
    assert len(errors) == (status == 2), result
    if errors:
        assert 20 < len(errors[0]) < 2000, result
        assert not ERROR_NAMES.search(errors[0]), result
    return result


@contextmanager
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder of an example."""
    with tempfile.TemporaryDirectory() as name, monkeypatch.context() as patch:
        patch.chdir(name)
        yield Path(name)


def write(made: Sequence[File]) -> str:
    """Write files; the name to give a command: the file's or its folder's."""
    for name, content in made:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)
    return made[0][0].partition("/")[0]


def left_out(text: str) -> set[int]:
    """Numbers of rows that messages call left out."""
    told = " ".join(line for line in text.splitlines() if "left out" in line)
    return {int(each) for some in re.findall(r"\brows? (\d+(?:, \d+)*)", told) for each in some.split(", ")}


def check_trained(result: Result, seen: Seen, out: Path) -> None:
    """Nothing that a message refused was trained on, and all figures and weights are numbers."""
    refused = left_out(result.out + result.err)
    asked = Path("asked.txt").read_text().splitlines() if Path("asked.txt").exists() else []
    assert seen.texts or asked
    for text in [*seen.texts, *asked]:
        assert not refused & set(map(int, re.findall(r"\[row (\d+)\]", text))), (result, text)
    event(f"rows left out: {bool(refused)}")
    history = json.loads((out / "trainer_state.json").read_text(), parse_constant=_refuse)["log_history"]
    assert any("loss" in entry or "train_loss" in entry for entry in history)
    assert all(isinstance(value, int | float) for entry in history for value in entry.values()), history
    if (record := out / "run.sqlite").exists():
        with closing(sqlite3.connect(record)) as store:
            values = [value for (value,) in store.execute("SELECT value FROM metrics")]
        assert values and all(value is not None and math.isfinite(value) for value in values)
    for file in out.glob("*.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(file).values()), file


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} in a file")


@pytest.mark.parametrize("command", ["convert", "inspect"])
@generated(120)
@given(made=files([*PAIRS, *DEMONSTRATIONS, *LAYOUTS]))
def test_files_are_read_or_refused(command: str, made: list[File], monkeypatch: pytest.MonkeyPatch) -> None:
    with folder(monkeypatch):
        data = write(made)
        result = run("convert", data, "out.jsonl") if command == "convert" else run("inspect", data, "--json", "-")
        if result.status == 2:
            assert not Path("out.jsonl").exists()
        elif command == "convert":
            text = Path("out.jsonl").read_text()
            rows = [json.loads(line, parse_constant=_refuse) for line in text.removesuffix("\n").split("\n")]
            assert rows and all(isinstance(row, dict) for row in rows)
            assert run("convert", "out.jsonl", "again.jsonl").status == 0  # converting again changes nothing
            assert Path("again.jsonl").read_text() == text
        else:
            json.loads(result.out, parse_constant=_refuse)


OF_COMMAND = {
    "reward": [*PAIRS, *LAYOUTS],
    "dpo": [*PAIRS, *LAYOUTS],
    "sft": [*DEMONSTRATIONS, *PAIRS, *LAYOUTS],
    "ppo": [*PROMPTS, *PROMPTS, *PAIRS, *LAYOUTS],
}
"""Rows that a command gets. PPO's prompts are seen by its reward."""


@pytest.mark.parametrize("command", OF_COMMAND)
@generated(60)
@given(data=st.data())
def test_rows_are_trained_on_or_refused(
    command: str, data: st.DataObject, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = data.draw(files(OF_COMMAND[command]))
    stream = command in ("reward", "dpo") and data.draw(st.integers(0, 3)) == 0
    seen = Seen()
    with folder(monkeypatch), monkeypatch.context() as patch:
        patch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [*DEFAULT_CALLBACKS, seen])
        Path("rewards.py").write_text(REWARDS)
        options = ["--model", tiny_model_dir, "--train_dataset", write(made), "--output_dir", "out", *SMALL]
        options += ["--max_steps", "3", "--logging_steps", "1", *(["--streaming", "true"] if stream else [])]
        if command == "ppo":
            options += ["--reward", "rewards.py:length", "--max_new_tokens", "4", "--num_samples", "2"]
        result = run(command, *options)
        if result.status == 0:
            check_trained(result, seen, Path("out"))
        else:
            assert not Path("out", "adapter_model.safetensors").exists()


@pytest.mark.parametrize("command", ALGORITHMS)
@generated(25)
@given(data=st.data())
def test_recipes_are_checked_or_refused(
    command: str, data: st.DataObject, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, plan = data.draw(recipes(command)), data.draw(st.integers(0, 2)) == 0 and command != "hybrid"
    with folder(monkeypatch):
        _write_inputs(tiny_model_dir)
        Path("recipe.yaml").write_bytes(recipe)
        arguments = ["--config", "recipe.yaml", *([] if names("model", recipe) else ["--model", "tiny"])]
        if command in SAMPLING and not names("reward", recipe):
            arguments += ["--reward", "rewards.py:length"]
        before = sorted(Path().rglob("*"))
        if plan:
            run("plan", "--algorithm", command, "--gpu", "24GB", *arguments)
        else:
            run(command, *arguments, "--dry-run")
        assert sorted(Path().rglob("*")) == before


@generated(60)
@given(grid=grids())
def test_grids_are_checked_or_refused(grid: str, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with folder(monkeypatch):
        _write_inputs(tiny_model_dir)
        Path("grid.yaml").write_bytes(grid.encode("utf-8", "surrogatepass"))
        before = sorted(Path().rglob("*"))
        run("benchmark", "--config", "grid.yaml", "--dry-run")
        assert sorted(Path().rglob("*")) == before


def _write_inputs(model: str) -> None:
    shutil.copytree(model, "tiny")
    Path("rows.jsonl").write_bytes(as_bytes([PAIR] * 4, ".jsonl"))
    Path("held_out.jsonl").write_bytes(as_bytes([PAIR], ".jsonl"))
    Path("prompts.jsonl").write_bytes(as_bytes([{"prompt": f"Name pet {n}."} for n in range(4)], ".jsonl"))
    Path("rewards.py").write_text(REWARDS)
