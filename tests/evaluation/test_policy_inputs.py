"""Prompts that policies are asked."""

from datasets import Dataset

from hf_align.evaluation.policy_inputs import read_asked


def test_units_of_the_bootstrap_are_numbered_by_rows_so_that_every_process_draws_the_same():
    asked = read_asked(Dataset.from_dict({"prompt": ["f", "b", "e", "b", "a", "f", "d", "c"]}))
    assert asked.units.tolist() == [0, 1, 2, 1, 3, 0, 4, 5]
