"""Predicted against measured memory of real runs: `python -m benchmarks.planner`, on a CPU or a GPU.

Each setting is trained for two steps in a process of its own, on rows of equal length and a model with random weights,
and has a file in `benchmarks/results/planner/`; finished ones are skipped. On a CPU what counts is the resident set's
maximum during training (VmHWM, reset at its start) less what the process had before the model was loaded; on a GPU
torch's `max_memory_allocated`.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_align.files import write_json

RESULTS = Path(__file__).parent / "results" / "planner"
SHAPES = {  # hidden size, layers, heads, key-value heads, inner size, vocabulary, tied
    "smollm2-135m": (576, 30, 9, 3, 1536, 49152, True),
    "wide": (1024, 8, 16, 16, 2816, 8192, False),
    "deep": (384, 24, 6, 2, 1024, 16384, True),
}
ALGORITHMS = ("reward", "dpo", "ipo", "ppo")
RECOMPUTE = ("none", "selective", "full")
PRECISION = ("fp32", "bf16", "8bit", "4bit")
ROWS, PROMPT, RESPONSE = 4, 96, 96
"""Rows of a micro-batch, and tokens of a prompt and of a response."""


def settings() -> Iterator[str]:
    """Names of all settings: shape, algorithm, precision, recomputation; each precision meets each recomputation."""
    for number, shape in enumerate(SHAPES):
        for place, algorithm in enumerate(ALGORITHMS):
            for turn, recompute in enumerate(RECOMPUTE):
                precision = PRECISION[(place + turn + number) % len(PRECISION)]
                yield f"{shape}_{algorithm}_{precision}_{recompute}"


def save_model(shape: tuple[Any, ...], folder: Path) -> None:
    """Write a Llama of this shape with random weights, and a tokenizer of single words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    hidden, layers, heads, pairs, inner, vocabulary, tied = shape
    config = LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=pairs,
        intermediate_size=inner,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2, **{f"w{number}": number for number in range(3, 200)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)


def options_of(name: str) -> tuple[str, str, dict[str, Any]]:
    """Shape, algorithm and recipe of a setting."""
    shape, algorithm, precision, recompute = name.split("_")
    values: dict[str, Any] = {
        "lora": True,
        "per_device_train_batch_size": ROWS,
        "activation_recompute": recompute,
        "bf16": precision != "fp32",
        "max_steps": 2,
        "save_strategy": "no",
    }
    if precision in ("8bit", "4bit"):
        values["quantization"] = precision
    if algorithm == "ppo":
        values |= {"max_prompt_length": PROMPT, "max_new_tokens": RESPONSE, "num_ppo_epochs": 1}
    else:
        values["max_length"] = PROMPT + RESPONSE
    return shape, algorithm, values


def rows_of(algorithm: str) -> list[dict[str, str]]:
    """Rows of words, enough for two steps; the end token that training adds makes up the length."""

    def words(count: int, first: int) -> str:
        return " ".join(f"w{3 + (first + number) % 190}" for number in range(count))

    rows = []
    for number in range(2 * ROWS):
        row = {"prompt": words(PROMPT, number)}
        if algorithm != "ppo":
            row |= {"chosen": " " + words(RESPONSE - 1, number + 7), "rejected": " " + words(RESPONSE - 1, number + 80)}
        rows.append(row)
    return rows


def long_reward(prompts: list[str], responses: list[str]) -> list[float]:
    """Score by length: takes no memory."""
    return [float(len(response)) for response in responses]


def measure(name: str) -> dict[str, Any]:
    """Train a setting for two steps in this process, and plan it."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback

    from hf_align.algorithms import ALGORITHMS as KNOWN
    from hf_align.experiments.run import LORA_DEFAULTS
    from hf_align.planning import plan

    shape, algorithm, values = options_of(name)
    gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as place:
        model = str(Path(place, "model"))
        save_model(SHAPES[shape], Path(model))
        start = time.perf_counter()
        rows = Dataset.from_list(rows_of(algorithm))
        rows.to_json(str(Path(place, "rows.jsonl")))
        extra = {"reward": f"{__file__}:long_reward"} if algorithm == "ppo" else {}
        planned = plan(model, algorithm, train_dataset=str(Path(place, "rows.jsonl")), **values, **extra)
        seconds = time.perf_counter() - start
        trainer_class, config_class = KNOWN[algorithm].load()
        fields = {key: value for key, value in values.items() if key not in ("lora", "quantization")}
        args = config_class(output_dir=str(Path(place, "out")), report_to="none", disable_tqdm=True, **fields)
        torch.ones(512, 512).mm(torch.ones(512, 512))  # what the libraries allocate once
        before = status("VmRSS")
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        marks: list[float] = []
        held: list[int] = []

        class Watch(TrainerCallback):
            def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
                if not gpu:
                    gc.collect()
                    ctypes.CDLL(None).malloc_trim(0)  # what loading has freed goes back
                    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
                    held.append(status("VmRSS") - before)
                marks.append(time.perf_counter())

            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                marks.append(time.perf_counter())

        trainer = trainer_class(
            model,
            args=args,
            train_dataset=rows,
            peft_config=LoraConfig(**LORA_DEFAULTS),
            quantization_config=values.get("quantization"),
            callbacks=[Watch()],
            **({"reward": long_reward} if algorithm == "ppo" else {}),
        )
        trainer.train()
        measured = torch.cuda.max_memory_allocated() if gpu else status("VmHWM") - before
    return {
        "setting": name,
        "device": torch.cuda.get_device_name() if gpu else f"CPU {platform.machine()}",
        "predicted": round(planned.peak_bytes),
        "measured": measured,
        "measured_at_start": held[0] if held else None,
        "parts": {part: round(size) for part, size in planned.parts.items()},
        "phases": {phase: round(size) for phase, size in planned.phases.items()},
        "step_operations": planned.needs.step_operations,
        "step_seconds": marks[-1] - marks[-2],
        "plan_seconds": round(seconds, 2),
        "torch": torch.__version__,
    }


def status(key: str) -> int:
    """Bytes that the kernel says of this process."""
    text = Path("/proc/self/status").read_text()
    match = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    assert match is not None
    return 1024 * int(match[1])


def table(results: list[dict[str, Any]]) -> str:
    """Predicted and measured memory of all results, with median and worst error, as Markdown."""
    lines = ["| setting | predicted (MiB) | measured (MiB) | error |", "| --- | --- | --- | --- |"]
    errors = []
    for result in sorted(results, key=lambda result: result["setting"]):
        error = result["predicted"] / result["measured"] - 1
        errors.append(error)
        numbers = (round(result[key] / 2**20) for key in ("predicted", "measured"))
        lines.append(f"| {result['setting']} | {' | '.join(map(str, numbers))} | {error:+.1%} |")
    if errors:
        sizes = [abs(error) for error in errors]
        said = f"{len(errors)} settings: median error {statistics.median(sizes):.1%}, worst {max(sizes):.1%}, "
        lines += ["", said + f"furthest under {min(*errors, 0.0):+.1%}."]
    return "\n".join(lines)


def main() -> None:
    """Measure the settings that are not finished, each in a child process, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", default="", help="regular expression: only settings whose name has it")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (%(default)s)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        write_json(options.out / f"{options.one}.json", measure(options.one))
        return
    for name in settings():
        if re.search(options.settings, name) and not (options.out / f"{name}.json").exists():
            command = [sys.executable, "-m", "benchmarks.planner", "--one", name, "--out", str(options.out)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{name} failed: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr, flush=True)
            else:
                print(name, flush=True)
    results = [json.loads(path.read_text()) for path in sorted(options.out.glob("*.json"))]
    print(table(results))


if __name__ == "__main__":
    main()
