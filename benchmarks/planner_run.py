"""One run of `benchmarks/planner.py`: a setting is planned, trained for three steps, and its memory measured.

On a GPU that is `max_memory_allocated` of the whole run, and what the process holds of the card besides. On a CPU there
are two figures. The tensors' peak is that of torch's allocator in the third step, by its profiler, with what was held
before. The resident memory's is the kernel's (VmHWM, reset when training starts) during the first two, less what the
process had before the model was loaded: after a run of the same kind on a tiny model, so that libraries don't count.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import platform
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

from hf_align.algorithms import ALGORITHMS
from hf_align.experiments.run import LORA_DEFAULTS
from hf_align.files import write_json
from hf_align.planning import plan

MODELS = {  # hidden size, layers, heads, key-value heads, inner size, vocabulary, tied
    "smollm2-135m": (576, 30, 9, 3, 1536, 49152, True),
    "wide": (1024, 8, 16, 16, 2816, 8192, False),
    "deep": (384, 24, 6, 2, 1024, 16384, True),
    "llama-1b": (2048, 16, 32, 8, 8192, 128256, True),
    "tiny": (128, 2, 4, 2, 256, 512, False),
}


def save_model(shape: str, folder: Path) -> None:
    """Write a Llama of this shape with random weights in bfloat16, and a tokenizer of single words."""
    hidden, layers, heads, pairs, inner, vocabulary, tied = MODELS[shape]
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


class Run:
    """A setting as a recipe, with its data.

    Args:
        name: Its name: shape, algorithm, precision and recomputation, with "_" between.
        size: Rows of a micro-batch, tokens of a prompt, and of a response.
    """

    def __init__(self, name: str, size: tuple[int, int, int]):
        _, self.algorithm, precision, recompute = name.split("_")
        self.size = rows, prompt, response = size
        self.values: dict[str, Any] = {
            "lora": True,
            "per_device_train_batch_size": rows,
            "activation_recompute": recompute,
            "bf16": precision != "fp32",
            "max_steps": 3,
            "save_strategy": "no",
        }
        if precision in ("8bit", "4bit"):
            self.values["quantization"] = precision
        if self.algorithm == "ppo":
            self.values |= {"max_prompt_length": prompt, "max_new_tokens": response, "num_ppo_epochs": 1}
        else:
            self.values["max_length"] = prompt + response

    def rows(self) -> list[dict[str, str]]:
        """Rows of words; the end token that training adds makes up the length."""
        count, prompt, response = self.size

        def words(count: int, first: int) -> str:
            return " ".join(f"w{3 + (first + number) % 190}" for number in range(count))

        rows = []
        for number in range(3 * count):
            row = {"prompt": words(prompt, number)}
            if self.algorithm != "ppo":
                row["chosen"] = " " + words(response - 1, number + 7)
                row["rejected"] = " " + words(response - 1, number + 80)
            rows.append(row)
        return rows

    def plan(self, model: Path, place: Path, device_memory: str | None = None) -> Any:
        """Its plan, for this machine or a GPU of a size; `place` is a folder for the data."""
        data = place / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in self.rows()), encoding="utf-8")
        extra = {"reward": f"{__file__}:long_reward"} if self.algorithm == "ppo" else {}
        values = {**self.values, **extra, "train_dataset": str(data)}
        return plan(str(model), self.algorithm, device_memory=device_memory, **values)

    def train(self, model: Path, out: Path, *watches: TrainerCallback) -> Any:
        """Train it for three steps; the trainer."""
        trainer_class, config_class = ALGORITHMS[self.algorithm].load()
        fields = {key: value for key, value in self.values.items() if key not in ("lora", "quantization")}
        trainer = trainer_class(
            str(model),
            args=config_class(output_dir=str(out), report_to="none", disable_tqdm=True, **fields),
            train_dataset=Dataset.from_list(self.rows()),
            peft_config=LoraConfig(**LORA_DEFAULTS),
            quantization_config=self.values.get("quantization"),
            callbacks=list(watches),
            **({"reward": long_reward} if self.algorithm == "ppo" else {}),
        )
        trainer.train()
        return trainer


def long_reward(prompts: list[str], responses: list[str]) -> list[float]:
    """Score by length: takes no memory."""
    return [float(len(response)) for response in responses]


class Steps(TrainerCallback):
    """Times at which steps ended.

    Attributes:
        ends: Seconds of a clock.
    """

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Note the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


class Resident(TrainerCallback):
    """A CPU's memory; made before the model is loaded.

    Args:
        follow: Whether to follow the allocator in the third step.

    Attributes:
        measured: The figures, once training has ended.
    """

    def __init__(self, *, follow: bool = True) -> None:
        trim()
        self.follow = follow
        self.before = status("VmRSS")
        self.measured: dict[str, int] = {}
        self.profiler: profile | None = None

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Forget what loading took."""
        trim()
        self.measured["resident_at_start"] = status("VmRSS") - self.before
        self.measured["tensors_at_start"] = alive()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read the resident memory's maximum after two steps, and begin to follow the allocator."""
        if state.global_step == 2:
            self.measured["measured"] = status("VmHWM") - self.before
            self.measured["tensors_between_steps"] = alive()
            if self.follow:
                self.profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
                self.profiler.__enter__()
        elif self.profiler is not None:
            self.profiler.__exit__(None, None, None)
            self.measured["tensors"] = self.measured["tensors_between_steps"] + allocated(self.profiler)
            self.profiler = None


def trim() -> None:
    """Give free memory back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def alive() -> int:
    """Bytes of all tensors that Python knows."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.Tensor) and thing.device.type == "cpu" and type(thing).__name__ != "FakeTensor":
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def allocated(profiler: profile) -> int:
    """The allocator's maximum over the bytes that it held when the profiler began."""
    result: Any = profiler.profiler
    events = [event for event in result.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def status(key: str) -> int:
    """Bytes that the kernel says of this process."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    match = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    assert match is not None
    return 1024 * int(match[1])


class Allocated(TrainerCallback):
    """A GPU's memory; made before the model is loaded.

    Attributes:
        measured: The figures, once training has ended.
    """

    def __init__(self) -> None:
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats()
        self.measured: dict[str, int] = {}

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Note what loading took."""
        self.measured["loading"] = torch.cuda.max_memory_allocated()
        self.measured["tensors_at_start"] = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note what the first step took, which may measure FlexAttention, and what the later ones took."""
        if state.global_step == 1:
            self.measured["first_step"] = torch.cuda.max_memory_allocated()
            self.measured["reserved_first"] = torch.cuda.max_memory_reserved()
            torch.cuda.reset_peak_memory_stats()
            return
        steps = torch.cuda.max_memory_allocated()
        self.measured["tensors_between_steps"] = torch.cuda.memory_allocated()
        self.measured["tensors"] = steps
        self.measured["measured"] = max(steps, self.measured["first_step"])
        self.measured["reserved"] = max(torch.cuda.max_memory_reserved(), self.measured["reserved_first"])
        free, total = torch.cuda.mem_get_info()
        self.measured["card_in_use"] = total - free  # by all processes
        self.measured["reserved_now"] = torch.cuda.memory_reserved()


def measure(name: str, size: tuple[int, int, int], model: Path) -> dict[str, Any]:
    """Plan and train a setting in this process."""
    run = Run(name, size)
    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        planned = run.plan(model, Path(place))
        seconds = time.perf_counter() - start
        if not torch.cuda.is_available():
            save_model("tiny", Path(place, "tiny"))
            run.train(Path(place, "tiny"), Path(place, "out"))
        memory = Allocated() if torch.cuda.is_available() else Resident()
        steps = Steps()
        attention = run.train(model, Path(place, "out"), steps, memory).runner.attention_choice
    return {
        "setting": name,
        "device": device_name(),
        "size": size,
        **figures(planned),
        **memory.measured,
        "attention": attention and f"{attention.implementation}: {attention.reason}",
        "step_seconds": steps.ends[1] - steps.ends[0],
        "plan_seconds": round(seconds, 2),
        "torch": torch.__version__,
    }


def figures(planned: Any) -> dict[str, Any]:
    """A plan's figures."""
    return {
        "predicted": round(planned.peak_bytes),
        "with_margin": round(planned.device_bytes),
        "parts": {part: round(size) for part, size in planned.parts.items()},
        "phases": {phase: round(size) for phase, size in planned.phases.items()},
        "layout": planned.needs.layout,
        "step_operations": planned.needs.step_operations,
    }


def device_name() -> str:
    """The first GPU's name, or the kind of CPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU {platform.machine()}"


def main() -> None:
    """Measure one setting and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the setting: shape, algorithm, precision, recomputation, with _ between")
    parser.add_argument("size", type=int, nargs=3, help="rows, tokens of a prompt, tokens of a response")
    parser.add_argument("--model", type=Path, required=True, help="folder of a model of the setting's shape")
    parser.add_argument("--out", type=Path, required=True, help="file of the figures")
    options = parser.parse_args()
    write_json(options.out, measure(options.name, tuple(options.size), options.model))


if __name__ == "__main__":
    main()
