"""A run is prepared from its recipe before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hf_align.algorithms import ALGORITHMS
from hf_align.errors import UserError
from hf_align.experiments.recipe import read_recipe
from hf_align.experiments.run import Inputs, Run, prepare
from hf_align.progress import Silent
from hf_align.trainers import DPOTrainer
from tests.trainers.pairs import pairs


def prepared(tmp_path: Path, *lines: str, flags: tuple[str, ...] = ()) -> Run:
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join(["model: m", "train_dataset: d.jsonl", f"output_dir: {tmp_path / 'out'}", *lines]))
    return prepare(ALGORITHMS["dpo"], read_recipe(str(path), list(flags)))


@pytest.mark.parametrize(("value", "resumes"), [("true", True), ("false", False), ("null", False)])
def test_a_word_says_whether_the_newest_checkpoint_is_resumed(value: str, resumes: bool, tmp_path: Path) -> None:
    run = prepared(tmp_path, f"resume_from_checkpoint: {value}")
    assert run.resume_last is resumes and run.args.resume_from_checkpoint is None
    if not resumes:
        assert run.find_checkpoint() is None
    other = prepared(tmp_path, f"resume_from_checkpoint: {value}", flags=("--resume_from_checkpoint", "false"))
    assert not other.resume_last, "a flag goes before the file"


def test_a_refused_option_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"recipe.yaml, line 4: label_smoothing_factor is 0.1: it smooths the labels"):
        prepared(tmp_path, "label_smoothing_factor: 0.1")
    with pytest.raises(UserError, match=r"^--use_liger_kernel is True: its kernels replace layers"):
        prepared(tmp_path, flags=("--use_liger_kernel",))


class NoEvaluation(DPOTrainer):
    """A trainer whose evaluation fails."""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        raise LookupError("the judge is gone")


def test_the_model_is_saved_before_an_evaluation_that_fails(tiny_model_dir: str, tmp_path: Path) -> None:
    flags = ("--model", tiny_model_dir, "--lora", "true", "--max_steps", "1", "--save_strategy", "no")
    run = prepared(tmp_path, "report_to: none", "use_cpu: true", "bf16: false", flags=flags)
    run.trainer = NoEvaluation
    rows = {"train_dataset": pairs(), "eval_dataset": pairs(2)}
    with pytest.raises(LookupError):
        run.execute(Inputs(rows, None), Silent())
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
