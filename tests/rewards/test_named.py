import sys
from pathlib import Path

import pytest

from hf_align.errors import UserError
from hf_align.rewards.named import read_reward

CODE = """
import math

def length(prompts, responses, **columns):
    return [float(len(response)) for response in responses]

scale = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])  # to which the folder is added
    (tmp_path / "rewards_of_mine.py").write_text(CODE)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "model").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["rewards_of_mine.py:length", "./rewards_of_mine.py:length", "rewards_of_mine:length"])
def test_functions_of_files_and_modules(here: Path, name: str) -> None:
    assert read_reward(name)(["p"], ["four"]) == [4.0]


def test_an_installed_module() -> None:
    import posixpath

    assert read_reward("os.path:join") is posixpath.join


def test_names_are_left_alone(here: Path) -> None:
    assert read_reward("./model") == "./model"
    assert read_reward("org/model") == "org/model"


def test_weighted_lists(here: Path) -> None:
    listed = [{"reward": "org/model", "weight": 2}, {"reward": "rewards_of_mine.py:length"}, "org/other"]
    first, (weight, function), last = read_reward(listed)
    assert (first, weight, last) == ((2.0, "org/model"), 1.0, (1.0, "org/other"))
    assert function([], ["ab"]) == [2.0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("none.py:f", "there is no file none.py"),
        ("no.such.module:f", "no.such.module can't be imported: ModuleNotFoundError"),
        ("broken.py:f", "broken.py can't be imported: ZeroDivisionError: division by zero"),
        ("rewards_of_mine.py:lenght", "has no function lenght"),
        ("rewards_of_mine.py:scale", "has no function scale"),
        ("./none", "there is no folder ./none"),
        ("none", "there is no folder none"),
        ([], "expects a reward"),
        (3, "expects a reward"),
        ([3], "entry 1 expects {reward"),
        ([{"reward": "a/b", "wieght": 1}], "entry 1 expects {reward"),
        (["a/b", {"reward": "a/b", "weight": "much"}], "entry 2: weight expects a number, got 'much'"),
        ([{"reward": "none.py:f"}], "entry 1: there is no file none.py"),
    ],
)
def test_mistakes_name_their_place(here: Path, value: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_reward(value, "r.yaml, line 2: reward")
    assert str(caught.value).startswith("r.yaml, line 2: reward")
    assert message in str(caught.value)
