import json
from pathlib import Path
from typing import Any

import pytest

from hf_align.cli.main import main
from hf_align.feedback.judges.endpoint.usage import Meter
from tests.feedback.judges.endpoint.stand_in import StandIn

ROWS = [
    {
        "prompt": f"Film {n}?",
        "chosen": "I loved it." if n % 4 else "Bad, bad, bad film.",
        "rejected": f"I hated number {n}.",
        "chosen_ratings": [n % 3 + 1, 2, 3],
        "rejected_ratings": [0, 1, -1],
    }
    for n in range(40)
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("judges.py").write_text("def left(prompt, first, second):\n    return 'first'\n")


def run(*arguments: str) -> int:
    return main(["evaluate", "judge", "--data", "pairs.jsonl", "--resamples", "50", *arguments])


def test_the_report_is_printed_and_written_as_page_and_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--judge", "vader", "--report", "judge.html", "--json", "figures.json") == 0
    shown, figures = capsys.readouterr().out, json.loads(Path("figures.json").read_text())
    assert shown.startswith("Fit to judge pairs like these.") and max(map(len, shown.splitlines())) <= 100
    assert figures["metrics"]["agreement"]["judge"] == 0.75 and figures["facts"]["data"] == "pairs.jsonl"
    assert figures["facts"]["command"].startswith("hf-align evaluate judge") and figures["metrics"]["fit"]["fit"]
    assert "Is this judge fit?" in Path("judge.html").read_text()


def test_a_mapping_as_in_recipes_names_a_judge(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--judge", "{function: judges.py:left, name: left}", "--json", "-", "--limit", "30") == 0
    figures: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert figures["facts"]["judge"] == "left" and figures["facts"]["rows"] == 30
    assert figures["metrics"]["position"]["first_shown"] == 1 and figures["metrics"]["fit"]["fit"] is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--judge", "vader", "--max-pairs", "0"), "--max-pairs is 0; give a whole number from 1"),
        (("--judge", "vader", "--gaps", "2", "1"), "gaps is [2.0, 1.0]"),
        (("--judge", "vader", "--report", "page.txt"), "report is page.txt"),
        (("--judge", "vader", "--split", "test"), "split is test, but pairs.jsonl has no splits"),
        (("--judge", "{function: [}"), "judge is not valid YAML"),
        (("--judge", "{function: judges.py:right}"), "judges.py"),
        (("--judge", "nowhere/at/all/x"), "nowhere/at/all/x"),
    ],
)
def test_wrong_input_is_refused_in_one_line(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "Traceback" not in error and len(error.splitlines()) == 1


def test_what_an_endpoint_took_is_told_after_success_and_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with StandIn().running() as stand_in:
        judge = (
            f"{{endpoint: m, url: '{stand_in.url}', cache: a.sqlite, concurrency: 1, "
            "prices: {prompt: 10, completion: 100}, max_requests: 3}"
        )
        assert run("--judge", judge, "--limit", "2", "--again", "0") == 2
        took = f"m at endpoint {stand_in.url}: 3 requests, 3 answers, 0 from the cache, 300 tokens read, 30 written"
        assert capsys.readouterr().err.splitlines()[-1] == f"{took}, cost 0.006"
        stand_in.script.append(500)
        judge = judge.replace("max_requests: 3", "first_wait: 0")
        assert run("--judge", judge, "--limit", "2", "--again", "0", "--json", "-") == 0
        shown = capsys.readouterr()
        took = "2 requests, 1 failed (500 1), 1 answers, 3 from the cache, 100 tokens read, 10 written, cost 0.002"
        assert shown.err.splitlines()[-1].endswith(took) and json.loads(shown.out)["facts"]["judge"] == "m"


def test_what_was_asked_before_a_command_is_not_its(capsys: pytest.CaptureFixture[str]) -> None:
    Meter("earlier", None, None, None).send()
    assert run("--judge", "no-such-judge.py:f") == 2
    assert "earlier" not in capsys.readouterr().err
