import json
from pathlib import Path

import pytest

from hf_align.data.parts import Parts


def test_a_part_is_computed_once_for_what_determines_it(tmp_path: Path) -> None:
    values = [0.1 + 0.2, -1e-300, 1 / 3]
    folder = tmp_path / "job"
    assert Parts(folder).get({"a": 1}, lambda: values) == values
    again = Parts(folder)
    assert again.get({"a": 1}, lambda: pytest.fail("computed again")) == values, "bitwise"
    assert again.get({"a": 2}, lambda: [2.0]) == [2.0] and again.found == 1
    assert len(list(folder.iterdir())) == 2
    assert Parts().get({"a": 1}, lambda: [3.0]) == [3.0]


def test_parts_are_found_one_by_one_once_they_are_put(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    assert parts.find("a") is None and parts.found == 0
    parts.put("a", [])
    assert parts.find("a") == [] and parts.found == 1
    nowhere = Parts()
    nowhere.put("a", [1])
    assert nowhere.find("a") is None


def test_a_part_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Parts(tmp_path / "job").get(1, interrupt)
    assert not (tmp_path / "job").exists()
    Parts(tmp_path / "job").get(1, lambda: "é")
    assert [json.loads(file.read_text(encoding="utf-8")) for file in (tmp_path / "job").iterdir()] == ["é"]


def interrupt() -> None:
    raise KeyboardInterrupt
