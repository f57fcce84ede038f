"""Curricula: the stages' rows and steps, counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_align.errors import UserError
from hf_align.trainers.curriculum import CurriculumSampler, make_schedule, read_curriculum
from hf_align.trainers.reward import RewardConfig


def test_each_stage_passes_over_the_easiest_rows_in_whole_steps() -> None:
    curriculum = read_curriculum({"stages": 3, "epochs": [1, 2, 1], "batch": [1, 2, 3]}, batch=9)
    schedule = make_schedule(curriculum, 10, accumulation=2, processes=2)
    # 4, 7 and 10 rows in steps of 4, 8 and 12: 4/4, 14/8 and 10/12 of them, rounded up.
    found = [(each.rows, each.step_rows, each.first, each.steps) for each in schedule.stages]
    assert found == [(4, 4, 0, 1), (7, 8, 1, 2), (10, 12, 3, 1)]
    assert schedule.steps == 4 and schedule.rows_drawn == 4 + 16 + 12
    assert [schedule.stage_of(step) for step in range(5)] == [0, 1, 1, 2, 2]
    assert [schedule.pass_of(step) for step in range(4)] == [0, 1, 2, 4]  # stages of 1, 3 and 2 passes

    order = np.array([7, 3, 9, 1, 0, 2, 8, 4, 6, 5])
    of_processes = [list(CurriculumSampler(schedule, order, process=process, seed=1)) for process in range(2)]
    sampler = CurriculumSampler(schedule, order, process=0, seed=1)
    assert list(sampler) == of_processes[0] and len(sampler) == len(of_processes[0]) == 8
    assert [len(batch) for batch in of_processes[0]] == [1, 1, 2, 2, 2, 2, 3, 3]
    drawn = [row for batches in zip(*of_processes, strict=True) for batch in batches for row in batch]
    for rows, part in ((4, drawn[:4]), (7, drawn[4:20]), (10, drawn[20:])):
        passes = [part[start : start + rows] for start in range(0, len(part), rows)]
        assert all(sorted(each) == sorted(order[:rows]) for each in passes if len(each) == rows)
        assert len(set(passes[-1])) == len(passes[-1]) and set(passes[-1]) <= set(order[:rows].tolist())
    assert drawn[4:11] != drawn[11:18], "each pass has its own order"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stage": 2}, "curriculum has no stage; did you mean stages?"),
        ({"stages": 0}, "curriculum: stages is 0; give a whole number of at least 1."),
        ({"epochs": [1, 2]}, "curriculum: epochs has 2 numbers for 3 stages; give one for each."),
        ({"batch": 1.5}, "curriculum: batch has 1.5; give a whole number of at least 1."),
        ({"epochs": 0}, "curriculum: epochs has 0; give a number above 0."),
        ({"lr_decay": 0}, "curriculum: lr_decay is 0; give a number above 0, such as 0.5."),
        ({"fresh_optimizer": 1}, "curriculum: fresh_optimizer is 1; give true or false."),
        ({"difficulty": 3}, "curriculum: difficulty is 3; give a column"),
        ([3], "curriculum is .3.; give a mapping"),
    ],
)
def test_mistakes_in_a_curriculum_are_named(values: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        RewardConfig(str(tmp_path), curriculum=values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 5}, "max_steps is 5, and a curriculum takes as many steps as its stages' epochs; leave it out."),
        ({"num_train_epochs": 2}, "num_train_epochs is 2, and a curriculum has its own epochs for each stage; leave"),
        ({"restore_callback_states_from_checkpoint": True}, "restore_callback_states_from_checkpoint is True, which a"),
        ({"ignore_data_skip": True}, "ignore_data_skip is True, which a curriculum can't follow; leave it out."),
        (
            {"train_sampling_strategy": "sequential"},
            "train_sampling_strategy is 'sequential', which a curriculum can't",
        ),
        (
            {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"},
            "lr_scheduler_type 'reduce_lr_on_plateau' sets the rate by evaluations, not by stages; leave lr_decay out",
        ),
    ],
)
def test_options_that_contradict_a_curriculum_are_refused(options: Any, message: str, tmp_path: Path) -> None:
    curriculum = {"lr_decay": 0.5}
    with pytest.raises(UserError, match=message):
        RewardConfig(str(tmp_path), curriculum=curriculum, **options)
    config = RewardConfig(str(tmp_path), curriculum=curriculum)
    assert RewardConfig(str(tmp_path), curriculum=curriculum, num_train_epochs=config.num_train_epochs)


def test_a_stage_needs_a_row() -> None:
    with pytest.raises(UserError, match="curriculum: 3 stages need as many rows, and train_dataset has 2"):
        make_schedule(read_curriculum({}, batch=1), 2, accumulation=1, processes=1)


def test_a_difficulty_of_code_stands_in_json_by_its_name(tmp_path: Path) -> None:
    config = RewardConfig(str(tmp_path), curriculum={"stages": 2, "difficulty": len})
    assert '"difficulty": "len"' in config.to_json_string() and config.curriculum == {"stages": 2, "difficulty": len}
