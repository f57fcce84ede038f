"""Short runs that save and delete checkpoints, killed by SIGKILL at a counted call or in the middle of a write.

As a program: the folder for the runs; on standard input a kind and a kill on each line, as in "dpo call 3/30".
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig

from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from hf_align.trainers.sft import SFTConfig, SFTTrainer
from tests.tiny import tiny_model, tiny_tokenizer
from tests.trainers.pairs import options, text_pairs
from tests.trainers.toy import toy_model, toy_reward, toy_tokenizer, varied_prompts

SAVING: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "optim": "adamw_torch", "learning_rate": 0.01}
STEPS = 4
WATCHED = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}


def _lora() -> LoraConfig:
    return LoraConfig(r=2, target_modules="all-linear")


def dpo(out: Path, lora: bool = True, **changes: Any) -> DPOTrainer:
    args = DPOConfig(**options(out, **{**SAVING, **changes}))
    tokenizer = tiny_tokenizer()
    more: dict[str, Any] = {"processing_class": tokenizer, "peft_config": _lora() if lora else None}
    return DPOTrainer(tiny_model(), args=args, train_dataset=text_pairs(8), **more)


def full(out: Path, **changes: Any) -> DPOTrainer:
    return dpo(out, lora=False, **changes)


def sft(out: Path, **changes: Any) -> SFTTrainer:
    rows = Dataset.from_list([{"prompt": f"Say {n}:", "completion": f" {n}."} for n in range(8)])
    args = SFTConfig(**options(out, max_length=64, **{**SAVING, **changes}))
    return SFTTrainer(tiny_model(), args, rows, peft_config=_lora(), processing_class=tiny_tokenizer())


def ppo(out: Path, **changes: Any) -> PPOTrainer:
    shape = {"per_device_train_batch_size": 4, "num_mini_batches": 2, "num_ppo_epochs": 1, "max_new_tokens": 3}
    return PPOTrainer(
        toy_model(),
        args=PPOConfig(**options(out, **{**SAVING, **shape, **changes})),
        train_dataset=varied_prompts(40),
        processing_class=toy_tokenizer(),
        reward=toy_reward(3),
        peft_config=_lora(),
    )


BUILD: dict[str, Callable[..., Any]] = {"dpo": dpo, "full": full, "sft": sft, "ppo": ppo}


def run(kind: str, out: Path, **changes: Any) -> None:
    """Train and save the model twice, the second time over the first."""
    trainer = BUILD[kind](out, max_steps=STEPS, **changes)
    trainer.train()
    trainer.save_model()
    trainer.save_model()


def _counted(out: Path, on_call: Callable[[], None]) -> None:
    """Call a function whenever something below a folder is opened for writing, made, renamed or deleted."""
    below = str(out)

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        else:
            path, writes = args[0] if args else None, event in WATCHED
        if (
            writes
            and isinstance(path, str | os.PathLike)
            and str(path).startswith(below)
            and ".sqlite" not in str(path)
        ):
            on_call()

    sys.addaudithook(watch)


def _in_child(work: Callable[[], None]) -> int:
    """Run in a forked process, which imports nothing again; its status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def _calls_of(kind: str, out: Path, counts: Path) -> int:
    """Number of calls of a run that isn't killed."""

    def work() -> None:
        calls = [0]

        def count() -> None:
            calls[0] += 1

        _counted(out, count)
        run(kind, out, save_total_limit=1)
        counts.write_text(str(calls[0]))

    assert _in_child(work) == 0
    return int(counts.read_text())


def main() -> None:
    """Train a reference of each kind, then run and kill what standard input says."""
    folder = Path(sys.argv[1])
    cases = [line.split() for line in sys.stdin.read().splitlines()]
    calls: dict[str, int] = {}
    for kind in sorted({case[0] for case in cases}):
        assert _in_child(lambda kind=kind: run(kind, folder / f"reference-{kind}")) == 0
        calls[kind] = _calls_of(kind, folder / "counted" / kind, folder / f"calls-{kind}")
    (folder / "killed").mkdir()
    for number, (kind, how, what) in enumerate(cases):
        out = folder / "killed" / f"{kind}-{number}"

        def work(kind: str = kind, how: str = how, what: str = what, out: Path = out) -> None:
            if how == "size":  # a write beyond it kills, with the part before it in the file
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_FSIZE, (int(what), int(what)))
                run(kind, out, save_total_limit=1, record=False)
                return
            place, total = map(int, what.split("/"))
            left = [1 + place * calls[kind] // total]

            def kill() -> None:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            _counted(out, kill)
            run(kind, out, save_total_limit=1)

        status = _in_child(work)
        assert os.WIFSIGNALED(status), f"{kind} {how} {what} wasn't killed: {status}"


if __name__ == "__main__":
    main()
