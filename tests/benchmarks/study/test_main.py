"""The study's commands, as the docs give them."""

import re
import shlex
from pathlib import Path

import pytest

from benchmarks.study.__main__ import COMMANDS, make_parser
from benchmarks.study.settings import Settings

DOCS = Path(__file__).parents[3] / "docs" / "results"
LINES = [
    line
    for page in ("README.md", "study.md")
    for line in re.findall(
        r"^python -m benchmarks\.study (.+)", (DOCS / page).read_text().replace("\\\n", " "), re.MULTILINE
    )
]


@pytest.mark.parametrize("line", LINES)
def test_commands_of_the_docs_are_understood(line: str):
    assert make_parser().parse_args(shlex.split(line)).command in COMMANDS


def test_a_run_takes_every_setting():
    options = vars(
        make_parser().parse_args(["run", "--cache", "c", "--head", "linear", "attention", "--flips", "0.25"])
    )
    assert options["head"] == ["linear", "attention"] and options["flips"] == [0.25]
    assert set(Settings.__dataclass_fields__) - {"frozen_layers"} <= set(options)
