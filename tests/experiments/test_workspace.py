import json
from pathlib import Path

import pytest

from hf_align.errors import UserError
from hf_align.experiments.quickstart.workspace import MARKER, Workspace
from hf_align.files import write_json

SETTINGS = {"profile": "smoke", "seed": 0, "numbers": {"dpo": {"max_steps": 4, "learning_rate": 1e-4}}}


def started(root: Path) -> Workspace:
    workspace = Workspace(root)
    workspace.open(SETTINGS, resume=False, overwrite=False)
    workspace.finish("base", {"seconds": 1.0})
    return workspace


def test_a_new_or_empty_folder_is_taken(tmp_path: Path) -> None:
    started(tmp_path / "new" / "deep")
    (tmp_path / "empty").mkdir()
    assert started(tmp_path / "empty").result("base") == {"seconds": 1.0}


def test_a_second_run_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    workspace = started(tmp_path / "out")
    with pytest.raises(UserError, match="--resume to continue it or --overwrite"):
        workspace.open(SETTINGS, resume=False, overwrite=False)
    assert workspace.result("base") == {"seconds": 1.0}


def test_overwrite_deletes_an_earlier_run(tmp_path: Path) -> None:
    workspace = started(tmp_path / "out")
    workspace.open({**SETTINGS, "seed": 1}, resume=False, overwrite=True)
    assert workspace.result("base") is None
    assert json.loads((tmp_path / "out" / MARKER).read_text())["seed"] == 1


@pytest.mark.parametrize("flags", [{"resume": False, "overwrite": True}, {"resume": True, "overwrite": False}])
def test_a_foreign_folder_is_never_touched(tmp_path: Path, flags: dict[str, bool]) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not a quickstart folder"):
        Workspace(tmp_path).open(SETTINGS, **flags)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    with pytest.raises(UserError, match="is not a quickstart folder"):
        Workspace(tmp_path / "thesis.tex").open(SETTINGS, **flags)


def test_resume_keeps_finished_stages(tmp_path: Path) -> None:
    workspace = started(tmp_path / "out")
    workspace.open(SETTINGS, resume=True, overwrite=False)
    assert workspace.result("base") == {"seconds": 1.0}
    assert workspace.result("reward") is None


def test_resume_with_other_settings_names_the_setting(tmp_path: Path) -> None:
    workspace = started(tmp_path / "out")
    other = {**SETTINGS, "numbers": {"dpo": {"max_steps": 9, "learning_rate": 1e-4}}}
    with pytest.raises(UserError, match=r"numbers\.dpo\.max_steps = 4, not 9"):
        workspace.open(other, resume=True, overwrite=False)


def test_resume_needs_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run in"):
        Workspace(tmp_path / "none").open(SETTINGS, resume=True, overwrite=False)
    assert not (tmp_path / "none").exists()


def test_a_damaged_marker_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text("{")
    with pytest.raises(UserError, match="damaged"):
        Workspace(tmp_path).open(SETTINGS, resume=False, overwrite=True)
    assert (tmp_path / MARKER).exists()


def test_json_has_no_nan_and_no_leftovers(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": float("nan"), "y": [1.5, float("inf")], "z": (1, None)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": None, "y": [1.5, None], "z": [1, None]}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]
