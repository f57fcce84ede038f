"""The how-to page's code runs and prints the output shown."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "prepare-data.md"


def test_the_page_prints_what_it_shows(base_dir, tmp_path, monkeypatch, capsys):
    (tmp_path / "hf-align-quickstart").mkdir()
    (tmp_path / "hf-align-quickstart" / "base").symlink_to(base_dir)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(python|text)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    printed, shown = "", 0
    for language, block in blocks:
        if language == "python":
            exec(block, names)
            printed = capsys.readouterr().out
        else:
            assert printed == block
            shown += 1
    assert shown == 3
    assert names["findings"].bad_rows == [1, 2]
    assert list(names["findings"].doubtful.values()) == [[3]]
    assert len(names["tokenize_preferences"]([names["prefilled"]], names["tokenizer"])) == 1
