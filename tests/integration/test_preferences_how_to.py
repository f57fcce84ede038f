"""The five commands of the how-to page, from an empty store to a reward model on a stand-in of the Hub."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from safetensors.torch import load_file

from benchmarks.feedback.browser.tab import PATIENCE, chromium, open_browser
from benchmarks.feedback.browser.tasks import plain
from hf_align import load_reward_model
from hf_align.collators.rows import Side, text_of
from hf_align.feedback import PreferenceStore
from hf_align.feedback.page.markup import to_html
from hf_align.files import write_json
from tests.cards import card_data
from tests.docs.pages import DOCS, blocks
from tests.hub.conftest import environment, read_files
from tests.hub.stand_in import StandIn

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SECONDS = 600


def commands() -> list[list[str]]:
    """Words of the page's commands, without the program's name."""
    [block] = [text for language, _, text in blocks(DOCS / "how-to" / "preferences.md") if not language]
    return [shlex.split(line.replace("ORG/", "team/"))[1:] for line in block.splitlines()]


class Terminal:
    """Runs commands of hf-align in a folder."""

    def __init__(self, folder: Path, hub: StandIn) -> None:
        self.folder, self.environment = folder, environment(hub, folder / "home")
        self.program = str(Path(sys.executable).with_name("hf-align"))

    def start(self, words: list[str]) -> subprocess.Popen[str]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([self.program, *words], cwd=self.folder, env=self.environment, **pipes)

    def run(self, words: list[str]) -> str:
        process = self.start(words)
        out, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, out
        return out


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """The first group of a pattern in what a process prints."""
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError(printed)


def as_seen(side: Side) -> str:
    """Letters and digits of a response as the page shows it."""
    return plain(unescape(re.sub("<[^>]*>", "", to_html(text_of(side)))))


def answer_all(url: str) -> list[tuple[str, str]]:
    """Prefer the longer response on the page until nothing is left; the texts of winner and loser."""
    clicked = []
    with open_browser() as browser:
        page = browser.new_page()
        page.goto(url)
        while True:
            page.wait_for_selector("#left, .notice")
            time.sleep(PATIENCE)
            if page.locator(".notice").count():
                return clicked
            task = "document.querySelector('.task').dataset.showing"
            showing, left, right = page.evaluate(task), page.inner_text("#left"), page.inner_text("#right")
            better = "left" if len(left) >= len(right) else "right"
            clicked.append((left, right) if better == "left" else (right, left))
            page.click(f"#choose-{better}")
            page.wait_for_function(f"showing => {task} !== showing", arg=showing)


@pytest.mark.slow
@pytest.mark.skipif(chromium() is None, reason="no chromium is installed")
def test_five_commands_lead_from_an_empty_store_to_a_pushed_reward_model(cut_base_dir: str, tmp_path: Path) -> None:
    lines = commands()
    assert [words[0] for words in lines] == ["collect", "annotate", "export", "reward", "push"]
    wanted = int(lines[0][lines[0].index("--n") + 1])
    with StandIn().running() as hub:
        hub.add(MODEL, read_files(Path(cut_base_dir)))
        terminal = Terminal(tmp_path, hub)
        terminal.run(lines[0])
        store = PreferenceStore(f"sqlite:///{tmp_path / 'prefs.db'}")
        assert len(store.tasks()) >= wanted and list(store.answers()) == []

        page = terminal.start(lines[1])
        clicked = answer_all(read_until(page, r"(http://\S+)"))
        page.send_signal(signal.SIGINT)
        out, _ = page.communicate(timeout=60)
        assert page.returncode == 0 and f"{len(clicked)} answers stored" in out
        assert len(clicked) == len(store.tasks()) == len(list(store.answers()))
        assert {answer.annotator for answer in store.answers()} == {"anna"}

        for words in lines[2:]:
            terminal.run(words)
        files = hub.repositories["team/my-reward-model"].files
        assert "adapter_model.safetensors" in files and card_data(files["README.md"]).base_model == MODEL
    rows: Any = load_dataset(str(tmp_path / "preferences"), split="train")
    pairs = Counter((as_seen(row["chosen"]), as_seen(row["rejected"])) for row in rows)
    assert pairs == Counter((plain(winner), plain(loser)) for winner, loser in clicked)
    trained = tmp_path / "out" / "reward"
    config = json.loads((trained / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == MODEL
    write_json(trained / "adapter_config.json", {**config, "base_model_name_or_path": cut_base_dir})
    weights = load_file(trained / "adapter_model.safetensors")
    assert all(weight.any() for name, weight in weights.items() if "lora_B" in name), "they were zero before training"
    assert len(load_reward_model(str(trained)).score(["Write a tweet."], ["A good day."])) == 1
