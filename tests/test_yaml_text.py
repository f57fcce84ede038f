"""YAML 1.2's scalars, and every fault as one problem with its line."""

from __future__ import annotations

import math

import pytest

from hf_align.yaml_text import LARGEST, YamlProblem, dump_yaml, read_yaml

DOUBLING = "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = "a: 1e-5\nb: no\nc: 017\nd: 0x1F\ne: 12:30:45\nf: 2024-01-31\ng: 1_000\nh: ~\ni: true\nj: .5\nk: '1'\n"
    values = {"a": 1e-5, "b": "no", "c": "017", "d": "0x1F", "e": "12:30:45", "f": "2024-01-31"}
    values |= {"g": 1000, "h": None, "i": True, "j": 0.5, "k": "1"}
    assert read_yaml(text)[1] == values
    assert read_yaml(dump_yaml(values))[1] == values
    assert math.isnan(read_yaml("a: .nan")[1]["a"])
    assert read_yaml("# nothing") == (None, None) and dump_yaml({}) == ""


def test_anchors_are_what_they_stand_for() -> None:
    assert read_yaml("a: &a {r: 4}\nb: [*a, *a]\n")[1]["b"] == [{"r": 4}, {"r": 4}]
    few = 'a: &a ["' + '", "'.join("x" * 900) + '"]\n'
    assert len(read_yaml(few + "b: [" + "*a, " * 100 + "]\n")[1]["b"]) == 100  # 90,000 values
    assert LARGEST == 100_000


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: !!int x\n", "r.yaml, line 2: not valid YAML: 'x' can't be read as int"),
        ("a: !!float x", "line 1: not valid YAML: 'x' can't be read as float"),
        ("a: !!bool x", "'x' can't be read as bool"),
        ("a: !!timestamp x", "'x' can't be read as timestamp"),
        (f"a: {'9' * 5000}", "'999999999999999999999999999999...' can't be read as int"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: 1\nb: &b {c: *b}\n", "line 2: not valid YAML: an alias stands inside of its own anchor"),
        ("a: &a [*a]", "an alias stands inside of its own anchor"),
        (DOUBLING, "its anchors stand for more than 100,000 values"),
        ("a: " + "[" * 3000, "r.yaml: not valid YAML: it is nested too deeply"),
        ("a: 1\nb: \0", "line 2: not valid YAML: the character U+0000 has no place in it"),
        ("a: [1\nb: 2", "line 2: not valid YAML: expected ',' or ']'"),
        ("? [a]\n: 1", "found unhashable key"),
        ("a: *b", "found undefined alias 'b'"),
    ],
)
def test_problems_are_told_with_their_lines(text: str, problem: str) -> None:
    with pytest.raises(YamlProblem) as told:
        read_yaml(text)
    assert problem in told.value.told("r.yaml")
