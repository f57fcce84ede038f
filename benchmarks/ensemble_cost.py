"""Cost of an ensemble: `python -m benchmarks.ensemble_cost [--random toy|1b]` prints figures as JSON.

A reward model of one LoRA adapter and an ensemble of `--members` on the same base are loaded from their folders, each
in a process of its own, for their memory. A further process loads both and scores the same token ids with them in
turns, for their time. The base is the embedded model, or with `--random` a Llama of random weights in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from benchmarks.commands import embedded_model
from benchmarks.gpu import HEADS, KV_HEADS, SIZES
from benchmarks.machine import commit, describe_machine
from benchmarks.measure import memory
from benchmarks.ranking_cost import documents, reset_peak
from hf_align import RewardEnsemble, RewardModel
from hf_align.models.scoring import Encoded
from hf_align.version import __version__

ONE, ENSEMBLE = "one", "ensemble"


def random_base(size: str, folder: Path) -> Path:
    """Save a Llama of random weights with a tokenizer."""
    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>").save_pretrained(folder)
    heads = {"num_attention_heads": HEADS[size], "num_key_value_heads": KV_HEADS[size]}
    shape: dict[str, Any] = {**SIZES[size], **heads, "tie_word_embeddings": True}
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(LlamaConfig(**shape, pad_token_id=0, eos_token_id=1))
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def save_members(base: Path, folder: Path, members: int) -> None:
    """Save an ensemble of adapters of random weights; its first member is the single model."""
    models: list[Any] = []
    for seed in range(members):
        torch.manual_seed(seed)
        lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
        models = RewardEnsemble([*models, RewardModel.from_backbone(base, lora=lora)]).members  # one base at a time
    RewardEnsemble(models).save_pretrained(folder)


def load(which: str, folder: Path) -> RewardModel | RewardEnsemble:
    """The single model or the ensemble, on a GPU if there is one."""
    one = which == ONE
    model = RewardModel.from_pretrained(folder / "member-0") if one else RewardEnsemble.from_pretrained(folder)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def held(model: torch.nn.Module) -> int:
    """Bytes of a model's weights, each once."""
    tensors = {each.data_ptr(): each for each in (*model.parameters(), *model.buffers())}
    return sum(each.numel() * each.element_size() for each in tensors.values())


def memory_of(which: str, folder: Path, encoded: list[Encoded]) -> dict[str, int]:
    """Bytes of weights, of the process after loading and at most, loading and a pass included."""
    before = reset_peak()
    model = load(which, folder)
    loaded = memory()["now"] - before
    prompts, responses = map(list, zip(*encoded, strict=True))
    model.score_ids(prompts, responses)
    return {"weights": held(model), "loaded": loaded, "peak": memory()["peak"] - before}


def seconds_of(folder: Path, encoded: list[Encoded], runs: int) -> dict[str, Any]:
    """Seconds of scoring, in turns after one to warm up."""
    models = {which: load(which, folder) for which in (ONE, ENSEMBLE)}
    prompts, responses = map(list, zip(*encoded, strict=True))
    seconds: dict[str, list[float]] = {which: [] for which in models}
    for _ in range(1 + runs):
        for which, model in models.items():
            start = time.perf_counter()
            model.score_ids(prompts, responses)  # ends with numbers on the CPU, so it waits for a GPU
            seconds[which].append(time.perf_counter() - start)
    ratios = [many / one for one, many in zip(seconds[ONE][1:], seconds[ENSEMBLE][1:], strict=True)]
    return {
        **{which: statistics.median(took[1:]) for which, took in seconds.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def rows(options: argparse.Namespace) -> list[Encoded]:
    """Two responses to each prompt, of random tokens."""
    prompt, response = options.tokens
    return [(p, r) for p, responses in documents(options.prompts, 2, prompt, response) for r in responses]


def run_alone(part: str, folder: Path, options: argparse.Namespace) -> Any:
    """What a process of its own measures."""
    fixed = ["--prompts", options.prompts, "--tokens", *options.tokens, "--runs", options.runs]
    command = [sys.executable, "-m", "benchmarks.ensemble_cost", "--part", part, "--folder", folder, *fixed]
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the figures of an ensemble, or those of one part in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", choices=SIZES, help="a base of random weights of this size")
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--tokens", type=int, nargs=2, default=[110, 50], metavar=("PROMPT", "RESPONSE"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--part", choices=(ONE, ENSEMBLE, "time"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.set_verbosity_error()
    if options.part:
        encoded = rows(options)
        if options.part == "time":
            print(json.dumps(seconds_of(options.folder, encoded, options.runs)))
        else:
            print(json.dumps(memory_of(options.part, options.folder, encoded)))
        return
    with TemporaryDirectory() as scratch:
        with redirect_stdout(sys.stderr):  # it says that it unpacks
            base = (
                random_base(options.random, Path(scratch, "base")) if options.random else embedded_model(Path(scratch))
            )
        save_members(base, Path(scratch, "ensemble"), options.members)
        parts = {part: run_alone(part, Path(scratch, "ensemble"), options) for part in (ONE, ENSEMBLE, "time")}
    size = ["--random", options.random] if options.random else []
    counts = ["--members", options.members, "--prompts", options.prompts, "--tokens", *options.tokens]
    shown = " ".join(map(str, [*size, *counts, "--runs", options.runs]))
    result = {
        "command": f"python -m benchmarks.ensemble_cost {shown}",
        "machine": {**describe_machine(), "threads": torch.get_num_threads()},
        "versions": {"hf_align": __version__, "torch": torch.__version__, "commit": commit()},
        "members": options.members,
        "responses": 2 * options.prompts,
        "memory": {ONE: parts[ONE], ENSEMBLE: parts[ENSEMBLE]},
        "times_memory": {name: parts[ENSEMBLE][name] / parts[ONE][name] for name in parts[ONE]},
        "seconds": parts["time"],
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
