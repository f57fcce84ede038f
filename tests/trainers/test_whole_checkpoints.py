"""A disk that runs full in a save, and a process that is killed in one, leave the checkpoints before whole."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hf_align.files import UNFINISHED
from hf_align.full_disk import DiskFull
from hf_align.trainers.checkpoints import checkpoint_problem, checkpoints_in
from hf_align.trainers.disk import disk_needs
from hf_align.trainers.whole_checkpoints import rotate
from tests.file_limit import files_no_larger_than
from tests.trainers import killed_saves

CHECKPOINT = (
    *("adapter_config.json", "adapter_model.safetensors", "base_fingerprint.json"),
    *("tokenizer.json", "tokenizer_config.json", "value_head.safetensors"),
    *("optimizer.pt", "scheduler.pt", "rng_state.pth", "ppo_state.json", "rollout_0.safetensors"),
    *("trainer_state.json", "resume.json"),
)
MODEL = (*CHECKPOINT[:6], "README.md")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A PPO trainer in the middle of a rollout, whose checkpoint has every kind of file."""
    trainer = killed_saves.ppo(tmp_path_factory.mktemp("run"), max_steps=1)
    trainer.train()
    return trainer


def save_next(trainer: Any) -> None:
    trainer.state.global_step = 3  # again within a rollout
    try:
        trainer._save_checkpoint(trainer.model, None)
    finally:
        trainer.state.global_step = 1


@pytest.fixture
def full_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Files with this ending can't be flushed, as where a disk or quota notices late that it is full."""

    def fill(ending: str) -> None:
        def flush(descriptor: int) -> None:
            if os.readlink(f"/proc/self/fd/{descriptor}").endswith(ending):
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", flush)

    return fill


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc, which names open files")
@pytest.mark.parametrize("name", CHECKPOINT)
def test_a_disk_that_is_full_at_any_file_of_a_checkpoint(name: str, saved: Any, full_at: Any) -> None:
    run = Path(saved.args.output_dir)
    before = content(run / "checkpoint-1")
    assert set(before) == set(CHECKPOINT), "each file is tried"
    full_at(f"checkpoint-3/{name}" if name not in MODEL else name)
    with pytest.raises(DiskFull) as caught:
        save_next(saved)
    assert caught.value.path == run / "checkpoint-3" / name
    assert caught.value.needed == sum(map(len, before.values())), "as large as the one before"
    assert content(run / "checkpoint-1") == before and checkpoint_problem(run / "checkpoint-1") is None
    assert sorted(os.listdir(run)) == ["checkpoint-1", "run.sqlite"], "nothing is left of the other"


@pytest.mark.parametrize("name", ["tokenizer.json", "optimizer.pt", "adapter_model.safetensors", "rng_state.pth"])
def test_a_disk_that_takes_only_a_part_of_a_file(name: str, saved: Any) -> None:
    run = Path(saved.args.output_dir)
    before = content(run / "checkpoint-1")
    larger = [each for each in before if len(before[each]) >= len(before[name])]
    with files_no_larger_than(len(before[name]) - 1), pytest.raises(DiskFull, match="larger than files may") as caught:
        save_next(saved)
    shown = caught.value.path.name
    assert caught.value.path.parent == run / "checkpoint-3" and (shown in larger or shown == "*.safetensors")
    assert content(run / "checkpoint-1") == before and sorted(os.listdir(run)) == ["checkpoint-1", "run.sqlite"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc, which names open files")
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "tokenizer.json", "README.md", "trainer_state.json"])
def test_a_disk_that_is_full_when_the_model_is_saved(name: str, saved: Any, full_at: Any) -> None:
    run = Path(saved.args.output_dir)
    full_at(
        f"{name.rpartition('.')[0]}{UNFINISHED}-{os.getpid()}{Path(name).suffix}" if name not in MODEL[:6] else name
    )
    save = saved.save_state if name == "trainer_state.json" else saved.save_model
    with pytest.raises(DiskFull) as caught:
        save()
    assert caught.value.path == run / name
    assert checkpoint_problem(run / "checkpoint-1") is None and UNFINISHED not in os.listdir(run)
    for path in run.iterdir():
        if path.name not in ("checkpoint-1", "run.sqlite"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_first_checkpoint_needs_its_weights_and_their_optimizer(saved: Any, tmp_path: Path) -> None:
    needs = disk_needs(saved.args, saved.model, 1)
    assert saved.model_bytes() == round(needs.model)
    assert saved._checkpoint_bytes(tmp_path) == round(needs.checkpoint) > saved.model_bytes()


def test_a_run_that_wont_fit_is_warned_of_and_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free, used = shutil.disk_usage(tmp_path), SimpleNamespace(free=300_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: used)
    killed_saves.ppo(tmp_path, max_steps=2, save_total_limit=1).train()
    assert caplog.text.count("output_dir: this writes about") == 1
    assert "293 KiB are free; set save_total_limit" in caplog.text and "The training begins; it ends" in caplog.text
    assert [path.name for path in checkpoints_in(tmp_path)] == ["checkpoint-2"]
    caplog.clear()
    used.free = free.free
    killed_saves.ppo(tmp_path / "other", max_steps=1).train()
    assert "this writes about" not in caplog.text


def test_rotation_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    def left() -> list[str]:
        return [path.name for path in checkpoints_in(tmp_path)]

    for number in (2, 10, 9, 30):
        (tmp_path / f"checkpoint-{number}").mkdir()
    rotate(tmp_path, None, None)
    rotate(tmp_path, 0, None)
    assert left() == ["checkpoint-2", "checkpoint-9", "checkpoint-10", "checkpoint-30"]
    rotate(tmp_path, 3, str(tmp_path / "checkpoint-2"))
    assert left() == ["checkpoint-2", "checkpoint-10", "checkpoint-30"]
    rotate(tmp_path, 1, str(tmp_path / "checkpoint-2"))
    assert left() == ["checkpoint-2", "checkpoint-30"], "two that must stay"
    rotate(tmp_path, 1, None)
    assert left() == ["checkpoint-30"]


def same_tensors(one: Path, other: Path) -> None:
    """The same tensors; safetensors writes the metadata of a header in any order."""
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys(), one
    assert all(torch.equal(first[name], second[name]) for name in first), one


def looks_whole_and_is(folder: Path, reference: Path) -> None:
    """Every folder that a run or a reader would take for a checkpoint or model is one, with the right weights."""
    for checkpoint in folder.glob("checkpoint-*"):
        assert checkpoint_problem(checkpoint) is None, checkpoint
        expected = content(reference / checkpoint.name)
        found = content(checkpoint)
        assert found.keys() == expected.keys(), checkpoint
        for name in (each for each in found if each.endswith(".safetensors")):
            same_tensors(checkpoint / name, reference / checkpoint.name / name)
        for name in ("optimizer.pt", "scheduler.pt"):
            torch.load(checkpoint / name, weights_only=True)
    if any((folder / mark).exists() for mark in ("adapter_config.json", "config.json")):
        for path in folder.glob("*.safetensors"):
            same_tensors(path, reference / path.name)


def kills() -> Iterator[tuple[str, str]]:
    """60 kills: at counted openings, renames and deletions of a run, and in the middle of a write."""
    for kind, count in (("dpo", 30), ("ppo", 12), ("sft", 12)):
        yield from ((kind, f"call {place}/{count}") for place in range(count))
    yield from (("full", f"size {size}") for size in (2_000, 5_000, 20_000, 60_000, 90_000, 130_000))


@pytest.mark.slow
def test_no_kill_leaves_a_folder_that_looks_whole_and_isnt(tmp_path: Path) -> None:
    """50 and more SIGKILLs inside saving and rotation, each in a process of its own."""
    cases = list(kills())
    assert len(cases) >= 50
    command = [sys.executable, "-m", "tests.trainers.killed_saves", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    told = "\n".join(" ".join(case) for case in cases)
    subprocess.run(command, input=told, text=True, check=True, env=environment, timeout=1500, stdout=subprocess.DEVNULL)
    killed = sorted((tmp_path / "killed").iterdir())
    assert len(killed) >= 50, "each of them was killed"
    for folder in killed:
        looks_whole_and_is(folder, tmp_path / f"reference-{folder.name.partition('-')[0]}")
    assert sum(bool(checkpoints_in(folder)) for folder in killed) >= 25, "most had saved before"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB in memory; skipped only where mounting isn't permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system isn't permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_really_full_at_many_places(small_disk: Path, tiny_model_dir: str, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    sizes = [*range(8_192, 400_000, 28_672), 4_000_000]  # blocks of 4 KiB
    command = [sys.executable, "-m", "tests.trainers.full_disks", str(small_disk), str(results), tiny_model_dir]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    told = " ".join(map(str, sizes))
    subprocess.run(command, input=told, text=True, check=True, env=environment, timeout=900, stdout=subprocess.DEVNULL)
    failed_at = set()
    for size in sizes:
        status, error = (results / f"{size}.status").read_text(), (results / f"{size}.err").read_text()
        for checkpoint in (results / str(size)).glob("checkpoint-*"):
            assert checkpoint_problem(checkpoint) is None
            load_file(checkpoint / "adapter_model.safetensors")
        if size == sizes[-1]:
            assert (status, error) == ("0", "")
            continue
        assert status == "1", (size, error)
        assert error.count("\n") == 1 and "can't be written: the disk is full" in error, error
        failed_at.add(error.split(" can't be written")[0])
    assert len(failed_at) >= 3, failed_at
