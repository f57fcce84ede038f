import json
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("stored", [0, 1, 3])
def test_of_parts_stored_together_a_killed_job_finds_all_or_none(tmp_path: Path, stored: int) -> None:
    class Dying(Parts):
        left = stored

        def put(self, key: Any, part: Any) -> None:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            super().put(key, part)

    together = [([number], {"text": f"é{number}"}) for number in range(4)]
    with pytest.raises(KeyboardInterrupt):
        Dying(tmp_path).put_together(together)
    assert len(list(tmp_path.iterdir())) == stored + 1
    again = Parts(tmp_path)
    assert [again.find(key) for key, _ in together] == [part for _, part in together]
    assert len(list(tmp_path.iterdir())) == 4


def interrupt() -> None:
    raise KeyboardInterrupt
