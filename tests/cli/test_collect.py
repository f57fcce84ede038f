import json
import sqlite3
from pathlib import Path

import pytest

from hf_align.cli.main import main
from hf_align.evaluation import vader_scores
from hf_align.feedback import open_store

FUNCTIONS = """
def shorter(prompt, first, second):
    return "first" if len(first) < len(second) else "second"

def length(prompts, responses):
    return [float(len(response)) for response in responses]

def domain(prompt):
    return "all"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("judges.py").write_text(FUNCTIONS)
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Say {n} things."}) + "\n" for n in range(6)))
    Path("recipe.yaml").write_text(
        "store: prefs.db\nprompts: prompts.jsonl\nn: 2\nannotators_per_task: 1\nannotators:\n"
        "  - {function: judges.py:shorter, name: short}\n"
    )
    return tmp_path


def run(*arguments: str) -> int:
    return main(["collect", "--config", "recipe.yaml", *arguments])


def test_a_recipe_is_collected_and_the_same_command_adds_nothing(
    folder: Path, tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--models", tiny_model_dir, "--max_new_tokens", "6", "--min_responses", "2", "--near", "1")
    assert run(*flags, "--json", "figures.json") == 0
    out = capsys.readouterr().out
    assert "2 of 2 valid comparisons" in out and "short (model): 2 answers" in out
    figures = json.loads(Path("figures.json").read_text())
    assert (figures["valid"], figures["enough"], figures["annotators"]["short"]["answers"]) == (2, True, 2)
    assert run(*flags, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == figures
    with sqlite3.connect("prefs.db") as store:
        assert store.execute("select count(*) from answers").fetchone() == (2,)


def test_a_dry_run_says_what_is_asked_for_and_makes_no_store(
    folder: Path, tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--models", tiny_model_dir, "--classify", "judges.py:domain", "--dry-run")
    assert run(*flags, "--annotators", "[anna, {name: ben, domains: all}, {reward: judges.py:length}]") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "prompts 6 (0 repeated rows left out)" in out and "domains all 6" in out
    assert "annotators anna, ben, judges.py:length" in out and "Nothing was collected" in out
    assert not Path("prefs.db").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--anotators", "[a]"], "--anotators is not a valid key; did you mean annotators?"),
        (["--n", "many"], "--n expects a whole number, got 'many'"),
        (["--models", "null"], "models is missing"),
        (["--n", "0"], "n is 0; give the number of valid comparisons wanted"),
        (["--n", "-1", "--dry-run"], "n is -1; give the number of valid comparisons wanted"),
        (["--annotators", "[{reward: judges.py:length, tieband: 1}]"], "entry 1: tieband is not a valid key; did you"),
        (["--annotators", "[{reward: judges.py:length, tie_band: x}]"], "entry 1: tie_band expects a number or null"),
        (["--annotators", "[3]"], "entry 1 expects a name or a mapping with reward, function or name, got 3"),
        (["--annotators", "[{group: a}]"], "entry 1 has no name"),
        (["--min_agreement", "2"], "--min_agreement is 2"),
        (["--prompts", "none.jsonl"], "prompts: there is no file none.jsonl"),
        (["--quantization", "2bit"], "--quantization expects '8bit' or '4bit' or null"),
        (["--annotators_per_task", "2"], "annotators_per_task is 2, and annotators has 1: short"),
        (["--annotators", "[{function: judges.py:longer}]"], "judges.py has no function longer"),
    ],
)
def test_mistakes_are_refused_in_one_line(
    folder: Path, tiny_model_dir: str, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert run("--models", tiny_model_dir, *flags) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err


@pytest.mark.slow
def test_a_lexicon_compares_what_the_real_model_writes(
    base_dir: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = Path(__file__).parents[2] / "recipes" / "collect-models.yaml"
    command = ["collect", "--config", str(recipe), "--models", base_dir, "--n", "12"]
    assert main([*command, "--json", "figures.json"]) == 0
    figures = json.loads(Path("figures.json").read_text())
    assert figures["valid"] == figures["annotators"]["vader"]["answers"] == 12 and figures["enough"]
    store = open_store("prefs-models.db")
    texts = store.responses()
    for answer in store.answers():
        task = store.tasks()[answer.task_id]
        first, second = vader_scores([str(texts[id].content) for id in (task.first_id, task.second_id)])
        assert answer.preference == (0.5 if abs(first - second) <= 0.05 + 1e-6 else float(first > second))
    temperatures = {response.settings["temperature"] for response in texts.values()}
    assert {0.7, 0.9, 1.1} <= temperatures
    before = (len(texts), len(list(store.events())))
    assert main(command) == 0
    assert (len(store.responses()), len(list(store.events()))) == before
    store.close()
