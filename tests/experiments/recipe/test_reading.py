from pathlib import Path

import pytest

from hf_align.errors import UserError
from hf_align.experiments.recipe import read_recipe
from tests.experiments.recipe.files import write


def test_yaml_scalars_are_what_they_look_like(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, "a: 1e-5\nb: no\nc: .5\nd: 2024-01-01\ne: null\nf: true\ng: 007\nh: -3\n"), [])
    assert recipe.values == {
        "a": 1e-5, "b": "no", "c": 0.5, "d": "2024-01-01", "e": None, "f": True, "g": "007", "h": -3
    }  # fmt: skip


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        read_recipe(str(tmp_path / "none.yaml"), [])
    with pytest.raises(UserError, match="can't be read"):
        read_recipe(str(tmp_path), [])


@pytest.mark.parametrize(
    ("text", "what"),
    [("- a\n- b\n", "a list"), ("model:m\ntrain_dataset:d\n", "plain text"), ("3\n", "a single value")],
)
def test_a_file_without_keys_is_no_recipe(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(UserError, match=rf"r\.yaml: a recipe is made of `key: value` lines .*, not {what}; write"):
        read_recipe(write(tmp_path, text), [])
