"""The digest of a function's code."""

from __future__ import annotations

import functools
import math
from pathlib import Path

from hf_align.data.code import code_digest
from hf_align.rewards.named import read_function


def test_another_text_of_its_file_is_another_digest_and_the_same_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    digests = []
    for text in ("return 1", "return 1", "return 2"):
        file.write_text(f"def f(x):\n    {text}\ndef g(x):\n    {text}\n")
        f, g = (read_function(f"{file}:{name}", "judge") for name in "fg")
        digests.append(code_digest(f))
        assert code_digest(f) != code_digest(g) and code_digest(functools.partial(f, 1)) == code_digest(f)
    assert digests[0] == digests[1] != digests[2]


def test_without_a_file_the_compiled_code_counts_and_built_ins_their_name() -> None:
    def made(inner: str) -> str:
        names: dict = {"__name__": "nowhere"}
        exec(f"def f(x):\n    def g(y): return {inner}\n    return g(x)", names)
        return code_digest(names["f"])

    assert made("y in {'a', 'b'}") == made("y in {'b', 'a'}") != made("y in {'a', 'c'}")
    assert made("y.lower()") != made("y.upper()")
    assert code_digest(math.sqrt) != code_digest(math.exp)
