"""Generated broken data sets and recipes through the commands: a sentence or a result, never a traceback or a NaN."""

from __future__ import annotations

import gzip
import io
import json
import logging
import math
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

from hf_align.cli.main import main
from tests.data.layouts.examples import EXAMPLES
from tests.tiny import tiny_tokenizer

pytestmark = pytest.mark.slow


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


# ---- values, rows, files


TEXTS = st.sampled_from(
    [
        *("", " ", "\n", "None", "NA", "null", "007", "True", "2024-01-31", "12345678901234567890123"),
        *(
            "<|im_end|>",
            "<|endoftext|>",
            "\u200b",
            "\ufffd",
            "👩\u200d👩\u200d👧",
            "e\u0301",
            "🇩🇪",
            "\u2028",
            "a\tb",
            'say "x"',
        ),
        *("{{ 7 * 7 }}", "=1+1", "x" * 3000, "\x07", "\ud83d"),
    ]
)
NUMBERS = st.sampled_from(
    [0, -1, 1, 3, 0.5, -0.0, math.nan, math.inf, -math.inf, 1e39, -1e39, 1e308, 5e-324, 2**63, 10**40, 2**53 + 1]
)
BAD = st.one_of(
    st.none(),
    st.booleans(),
    TEXTS,
    NUMBERS,
    st.sampled_from(
        [[], {}, [None], [[]], [{}], ["x"], {"role": "user"}, [{"role": "x", "content": "y"}], [1, "a", None]]
    ),
    st.just([{"role": "user", "content": None}]),
    st.just([{"from": "alien", "value": "hm"}]),
    st.text(max_size=6),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to all values inside a row."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, each in value.items():
            yield from places(each, (*path, key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from places(each, (*path, number))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a value with another value at a path; a new `KeyError` takes the key away."""
    if not path:
        return new
    first, *rest = path
    if isinstance(value, dict):
        if not rest and new is KeyError:
            return {key: each for key, each in value.items() if key != first}
        return {key: changed(each, tuple(rest), new) if key == first else each for key, each in value.items()}
    if not rest and new is KeyError:
        return [each for number, each in enumerate(value) if number != first]
    return [changed(each, tuple(rest), new) if number == first else each for number, each in enumerate(value)]


def marked(value: Any, mark: str) -> Any:
    """The value with a mark behind each of its longer texts, by which a trained row is known again."""
    if isinstance(value, str):
        return value + mark if len(value) > 3 and " " in value else value
    if isinstance(value, list):
        return [marked(each, mark) for each in value]
    return {key: marked(each, mark) for key, each in value.items()} if isinstance(value, dict) else value


PLAIN: list[list[dict[str, Any]]] = [
    [{"prompt": "Name a gem.", "chosen": " An opal.", "rejected": " A glue."}],
    [{"prompt": "Name a gem.", "chosen": " An opal.", "rejected": " A glue.", "margin": 1.5, "weight": 1.0}],
    [{"prompt": "Name a gem.", "chosen": " An opal.", "rejected": " A glue.", "label": 0.8}],
    [{"chosen": "Name a gem: an opal.", "rejected": "Name a gem: a glue."}],
    [
        {
            "prompt": [{"role": "user", "content": "Name a gem."}],
            "chosen": [{"role": "assistant", "content": "An opal."}],
            "rejected": [{"role": "assistant", "content": "A glue."}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        }
    ],
    [{"prompt": "Name a gem.", "responses": ["An opal.", "A jade.", "A glue."], "scores": [3.0, 2.0, 0.5]}],
    [{"prompt": "Name a gem.", "responses": ["An opal.", "A jade.", "A glue."], "ranking": [0, 1, 2]}],
    [{"prompt": "Name a gem.", "completion": " An opal."}],
    [{"messages": [{"role": "user", "content": "Name a gem."}, {"role": "assistant", "content": "An opal."}]}],
    [{"text": "An opal is a gem."}],
]


@st.composite
def broken_rows(draw: st.DrawFn, layouts: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of a layout, each marked by its number, some of them with one or two broken values."""
    base = draw(st.sampled_from(layouts))
    rows = [marked(base[number % len(base)], f" [row {number}]") for number in range(draw(st.integers(1, 6)))]
    for _ in range(draw(st.integers(0, 3))):
        number = draw(st.integers(0, len(rows) - 1))
        if not (paths := list(places(rows[number]))):
            continue
        new = draw(st.one_of(BAD, st.just(KeyError)))
        rows[number] = changed(rows[number], draw(st.sampled_from(paths)), new)
    if draw(st.integers(0, 9)) == 0:
        rows = [
            {**row, draw(st.sampled_from(["prompt_ids", "response_ids", "label", "", "chosen "])): 1} for row in rows
        ]
    return rows


SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.gz")


def as_bytes(rows: list[dict[str, Any]], suffix: str) -> bytes:
    """A file of the rows; tables hold JSON where they can't hold a value."""
    if suffix.endswith(".gz"):
        return gzip.compress(as_bytes(rows, suffix.removesuffix(".gz")), mtime=0)
    if suffix == ".parquet":
        columns = list(dict.fromkeys(name for row in rows for name in row))
        arrays = []
        for name in columns:
            values = [row.get(name) for row in rows]
            try:
                arrays.append(pa.array(values))
            except (pa.ArrowException, OverflowError, UnicodeEncodeError):
                arrays.append(pa.array([json.dumps(value) for value in values]))
        file = io.BytesIO()
        pq.write_table(pa.Table.from_arrays(arrays, names=columns), file)
        return file.getvalue()
    if suffix in (".csv", ".tsv"):
        separator = "," if suffix == ".csv" else "\t"
        columns = list(dict.fromkeys(name for row in rows for name in row))
        cells = [[_cell(row.get(name)) for name in columns] for row in rows]
        return "\n".join(separator.join(line) for line in [columns, *cells]).encode("utf-8", "surrogatepass")
    lines = [json.dumps(row) for row in rows]
    return (f"[{', '.join(lines)}]" if suffix == ".json" else "\n".join(lines)).encode()


def _cell(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\t\n\r]', text) else text


DAMAGES = ("cut", "nul", "latin-1", "bom", "utf-16", "blank", "twice", "quote", "junk", "empty")


def damaged(content: bytes, kind: str, place: int) -> bytes:
    """A file's content with one defect."""
    at = place % (len(content) + 1)
    return {
        "cut": content[:at],
        "nul": content[:at] + b"\0" + content[at:],
        "latin-1": content[:at] + "é".encode("latin-1") + content[at:],
        "bom": b"\xef\xbb\xbf" + content,
        "utf-16": content.decode("utf-8", "replace").encode("utf-16"),
        "blank": content.replace(b"\n", b"\n\n  \n"),
        "twice": content + b"\n" + content,
        "quote": content.replace(b'"', b"", 1),
        "junk": content[:at] + bytes(range(128, 140)) + content[at:],
        "empty": b"",
    }[kind]


@st.composite
def files(draw: st.DrawFn, layouts: list[list[dict[str, Any]]]) -> tuple[str, bytes]:
    """A name and the content of a file."""
    suffix = draw(st.sampled_from(SUFFIXES))
    try:
        content = as_bytes(draw(broken_rows(layouts)), suffix)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        content = b""
    if draw(st.integers(0, 3)) == 0:
        content = damaged(content, draw(st.sampled_from(DAMAGES)), draw(st.integers(0, 10_000)))
    name = draw(st.sampled_from(["rows", "data/train-0", "split/test"])) + suffix
    return name, content


# ---- running


@dataclass
class Seen(TrainerCallback):
    """Texts of the rows that were trained on."""

    texts: list[str] = field(default_factory=list)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        rows: Any = kwargs["train_dataloader"].dataset
        tokenizer = tiny_tokenizer()
        for row in rows:
            ids = row.get("input_ids") or [*row["prompt_ids"], *(each for ids in row["response_ids"] for each in ids)]
            self.texts.append(str(tokenizer.decode(ids)))


@contextmanager
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        yield


@dataclass
class Result:
    """What a command returned, printed and logged."""

    status: int
    out: str
    err: str


def run(*arguments: str) -> Result:
    out, err = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(err)
    logging.getLogger("hf_align").addHandler(handler)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            status = main(list(arguments))
    finally:
        logging.getLogger("hf_align").removeHandler(handler)
    result = Result(status, out.getvalue(), err.getvalue())
    assert status in (0, 2), result
    assert "Traceback" not in result.err, result
    errors = [line for line in result.err.splitlines() if line.startswith("hf-align: error:")]
    assert len(errors) == (status == 2), result
    if errors:
        assert 20 < len(errors[0]) < 2000, result
        assert not re.search(r"\b(KeyError|AttributeError|IndexError|ArrowInvalid)\b", errors[0]), result
    return result


def written(folder: Path, file: tuple[str, bytes]) -> str:
    """Write a file; the name to give a command: the file's or its folder's."""
    path = folder / file[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file[1])
    return file[0] if "/" not in file[0] else file[0].partition("/")[0]


def left_out(text: str) -> set[int]:
    """Numbers of rows that a message calls left out or bad."""
    numbers = re.findall(r"rows? (\d+(?:, \d+)*)", text)
    return {int(each) for some in numbers for each in some.split(", ")}


def check_trained(result: Result, seen: Seen, out: Path) -> None:
    """Nothing that a message refused was trained on, and all figures and weights are numbers."""
    refused = left_out(" ".join(re.findall(r"left out: (.*)", result.err)))
    for text in seen.texts:
        assert not refused & set(map(int, re.findall(r"\[row (\d+)\]", text))), (result, text)
    history = json.loads((out / "trainer_state.json").read_text(), parse_constant=_refuse)["log_history"]
    assert any("loss" in entry or "train_loss" in entry for entry in history)
    for file in out.glob("*.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(file).values()), file


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} in a record of the run")


# ---- tests


LAYOUTS = [list(map(dict, example.rows)) for example in EXAMPLES]


@pytest.mark.parametrize("command", ["convert", "inspect"])
@generated(90)
@given(file=files([*PLAIN, *LAYOUTS]))
def test_files_are_read_or_refused(
    command: str, file: tuple[str, bytes], tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as name, inside(Path(name), monkeypatch):
        data = written(Path(name), file)
        result = run("convert", data, "out.jsonl") if command == "convert" else run("inspect", data, "--json", "-")
        if command == "convert" and result.status == 0:
            rows = [json.loads(line, parse_constant=_refuse) for line in Path("out.jsonl").read_text().splitlines()]
            assert rows and all(isinstance(row, dict) for row in rows)
            assert run("convert", "out.jsonl", "again.jsonl").status == 0  # converting again changes nothing
            assert Path("again.jsonl").read_text() == Path("out.jsonl").read_text()
        elif result.status == 0:
            json.loads(result.out, parse_constant=_refuse)


SMALL = ["--per_device_train_batch_size", "2", "--use_cpu", "--bf16", "false", "--report_to", "none", "--lora", "true"]
OF_COMMAND = {
    "reward": [*PLAIN[:7], *LAYOUTS],
    "dpo": [*PLAIN[:7], *LAYOUTS],
    "sft": [*PLAIN, *LAYOUTS],
}


@pytest.mark.parametrize("command", OF_COMMAND)
@generated(25)
@given(data=st.data())
def test_rows_are_trained_on_or_refused(
    command: str, data: st.DataObject, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = data.draw(files(OF_COMMAND[command]))
    seen = Seen()
    with tempfile.TemporaryDirectory() as name, inside(Path(name), monkeypatch), monkeypatch.context() as patch:
        patch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [*DEFAULT_CALLBACKS, seen])
        names = ["--model", tiny_model_dir, "--train_dataset", written(Path(name), file), "--output_dir", "out"]
        result = run(command, *names, *SMALL, "--max_steps", "1", "--logging_steps", "1")
        if result.status == 0:
            check_trained(result, seen, Path("out"))
        else:
            assert not Path("out", "adapter_model.safetensors").exists()


FIELDS = (
    *("learning_rate", "max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("warmup_ratio", "warmup_steps", "weight_decay", "max_grad_norm", "seed", "logging_steps", "save_steps"),
    *("eval_strategy", "save_strategy", "lr_scheduler_type", "optim", "max_length", "max_prompt_length", "beta"),
    *("label_smoothing", "loss_type", "truncation_mode", "layout", "acceleration", "on_nonfinite", "margin_mode"),
    *("center_rewards_coefficient", "activation_recompute", "bf16", "fp16", "quantization", "lora", "model"),
    *("train_dataset", "eval_dataset", "output_dir", "metric_for_best_model", "load_best_model_at_end", "nonsense"),
    *("kl_coef", "num_samples", "temperature", "max_new_tokens", "reward", "curriculum", "tasks", "save_total_limit"),
)
VALUES = st.one_of(
    BAD,
    st.sampled_from(
        ["auto", "no", "steps", "epoch", "yes", "1e-3", "-1", "out", "rows.jsonl", "sigmoid", "adamw_torch"]
    ),
    st.sampled_from([{"r": 4}, {"r": "x"}, {"r": 0}, {"nonsense": 1}, ["x", 1], "4bit", "3bit", 1e-4, 2, 10**6, -5]),
)


@st.composite
def recipes(draw: st.DrawFn) -> tuple[str, str]:
    """A command and a recipe with some options that make no sense."""
    command = draw(st.sampled_from(["reward", "dpo", "ipo", "sft", "ppo", "online-dpo", "ensemble"]))
    rows = "rows.jsonl"
    recipe: dict[str, Any] = {"train_dataset": rows, "output_dir": "out", "use_cpu": True, "bf16": False}
    for name in draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3)):
        recipe[name] = draw(VALUES)
    if draw(st.integers(0, 9)) == 0:
        recipe.pop(draw(st.sampled_from(sorted(recipe))))
    text = yaml.safe_dump(recipe, allow_unicode=draw(st.booleans()))
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from([":", "\t", "- x", "{", "\0", "é", "\n  a: 1", "&a *b"])) + text[at:]
    return command, text


@generated(120)
@given(recipe=recipes())
def test_recipes_are_planned_or_refused(
    recipe: tuple[str, str], tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, text = recipe
    with tempfile.TemporaryDirectory() as name, inside(Path(name), monkeypatch):
        Path("rows.jsonl").write_bytes(as_bytes(PLAIN[0] * 4, ".jsonl"))
        shutil.copytree(tiny_model_dir, "tiny")
        Path("recipe.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
        model = [] if re.search(r"^model:", text, re.MULTILINE) else ["--model", "tiny"]
        Path("rewards.py").write_text(
            "def length(prompts, responses):\n    return [float(len(r)) for r in responses]\n"
        )
        samples = command in ("ppo", "online-dpo") and not re.search(r"^reward:", text, re.MULTILINE)
        reward = ["--reward", "rewards.py:length"] if samples else []
        run(command, "--config", "recipe.yaml", *model, *reward, "--dry-run")
        assert not Path("out").exists()
