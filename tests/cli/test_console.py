import json
import logging
from pathlib import Path

import pytest
from rich.console import Console

from hf_align.cli.console import Screen, print_json, quiet_libraries
from hf_align.cli.main import main

HOSTILE = "\x1b[2J[/red] [bold]:smile:\x9b\u202e"
SHOWN = r"\u001b[2J[/red] [bold]:smile:\u009b\u202e"


def test_names_in_lines_and_tables_are_neither_obeyed_nor_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """Names of runs, columns and models come from others, and rich reads [/red] as the end of a style."""
    screen = Screen()
    screen.line(HOSTILE)
    screen.table(HOSTILE, [HOSTILE, "n"], [[HOSTILE, "1"]])
    shown = capsys.readouterr().out
    assert shown.count(SHOWN) == 4 and shown.replace("\n", "").isprintable()


def test_long_texts_go_on_below_their_beginning_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for terminal, columns in ((True, 36), (True, 20), (False, 36)):
        screen = Screen()
        screen.console = Console(force_terminal=terminal, color_system=None, width=columns, height=25, soft_wrap=True)
        screen.field("name", "a text of some more than thirty letters", 8)
        screen.field("a longer name", "first second third", 8)
        shown.append(capsys.readouterr().out.splitlines())
    whole = ["name    a text of some more than thirty letters", "a longer namefirst second third"]
    wrapped = [
        *("name    a text of some more than", "        thirty letters"),
        *("a longer namefirst second third",),
    ]
    assert shown == [wrapped, whole, whole]


def test_figures_for_programs_are_json_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({HOSTILE: ["é\n"]})
    shown = capsys.readouterr().out
    assert json.loads(shown) == {HOSTILE: ["é\n"]} and shown.replace("\n", "").isprintable()


def test_errors_warnings_and_reports_show_texts_of_the_data_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"prompt": f"p {HOSTILE}", "chosen": f"same {HOSTILE}", "rejected": f"same {HOSTILE}"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (tmp_path / "names.jsonl").write_text(json.dumps({HOSTILE: "a", "chosen": "b"}))
    assert main(["inspect", "rows.jsonl"]) == 0
    assert main(["convert", "names.jsonl", "out.jsonl"]) == 2
    with quiet_libraries(Screen()):
        logging.getLogger("hf_align.data").warning("%s", HOSTILE)
    shown = capsys.readouterr()
    assert SHOWN in shown.out and SHOWN in shown.err
    assert (shown.out + shown.err).replace("\n", "").isprintable()


def test_libraries_are_as_loud_afterwards_as_before() -> None:
    def levels() -> list[int]:
        return [logging.getLogger(name).level for name in ("hf_align", "transformers", "datasets")]

    with quiet_libraries(Screen()):
        pass  # they are imported
    before = levels()
    with quiet_libraries(Screen()):
        assert levels()[1:] == [logging.ERROR] * 2
    assert levels() == before
