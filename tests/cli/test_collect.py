import json
import multiprocessing
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from hf_align.cli.main import main
from hf_align.evaluation import vader_scores
from hf_align.feedback import Response, Task, open_store

FUNCTIONS = """
def shorter(prompt, first, second):
    return "first" if len(first) < len(second) else "second"

def length(prompts, responses):
    return [float(len(response)) for response in responses]

def domain(prompt):
    return "all"
"""

INTERRUPTED = """
from pathlib import Path

def interrupted(prompt, first, second):
    if Path("stop").exists() and list(Path().glob("answered")):
        raise KeyboardInterrupt
    Path("answered").touch()
    return "first"
"""
SLOWLY = """
import hashlib, time

def number(*of):
    return hashlib.sha256(repr(of).encode()).digest()[0]

def judge(prompt, first, second):
    time.sleep(0.02)
    return "first" if number(first) > number(second) else "second"

def odd(prompt, first, second):
    answer = judge(prompt, first, second)
    return answer if number(prompt) % 3 else {"first": "second", "second": "first"}[answer]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("judges.py").write_text(FUNCTIONS)
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Say {n} things."}) + "\n" for n in range(6)))
    talk = {"prompt": [{"role": "user", "content": "Is water wet?"}], "chosen": "Yes.", "rejected": "Bananas."}
    Path("talks.jsonl").write_text(json.dumps(talk) + "\n")
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
    assert "2 of 2 valid comparisons (0 ties) in 1 round" in out and "short (model): 2 answers" in out
    figures = json.loads(Path("figures.json").read_text())
    assert (figures["valid"], figures["enough"], figures["annotators"]["short"]["answers"]) == (2, True, 2)
    assert run(*flags, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == figures
    with sqlite3.connect("prefs.db") as store:
        assert store.execute("select count(*) from answers").fetchone() == (2,)


def test_a_language_model_judges_in_both_orders(folder: Path, tiny_model_dir: str) -> None:
    judge = f"[{{judge: {{model: {tiny_model_dir}, bias: 0.5}}, name: tiny, group: models}}]"
    flags = ("--models", tiny_model_dir, "--max_new_tokens", "6", "--min_responses", "2", "--near", "1", "--n", "1")
    assert run(*flags, "--annotators", judge, "--annotators_per_task", "1") == 0
    store = open_store("prefs.db")
    answer = next(iter(store.answers()))
    assert (answer.annotator, answer.left, len(answer.details["orders"])) == ("tiny", None, 2)
    assert (store.annotators()["tiny"].kind, store.annotators()["tiny"].group) == ("model", "models")
    store.close()


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
        (["--annotators", "[3]"], "entry 1 expects a name or a mapping with judge, reward, function or name, got 3"),
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


def test_ctrl_c_keeps_all_answers_and_names_the_command_that_goes_on(
    folder: Path, tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("judges.py").write_text(INTERRUPTED)
    Path("stop").touch()
    flags = ["--models", tiny_model_dir, "--max_new_tokens", "6", "--min_responses", "2", "--near", "1"]
    flags += ["--annotators", "[{function: judges.py:interrupted}]"]
    assert run(*flags) == 130
    said = " ".join(capsys.readouterr().err.split())
    assert "All answers are stored; the same command goes on: hf-align collect --config recipe.yaml" in said
    assert said.endswith("--annotators '[{function: judges.py:interrupted}]'")
    assert len(held("prefs.db")[-1]) == 1
    Path("stop").unlink()
    assert run(*flags) == 0
    assert len(held("prefs.db")[-1]) == 2


def held(path: str) -> tuple[list[str], list[Response], list[Task], set[tuple[Any, ...]]]:
    """All that a store holds but times."""
    store = open_store(path)
    events = {(each.id, each.task_id, each.annotator, each.kind, each.preference, each.left) for each in store.events()}
    found = list(store.prompts()), [*store.responses().values()], [*store.tasks().values()], events
    store.close()
    return found


@pytest.mark.slow
def test_killed_at_random_moments_and_run_again_equals_an_unbroken_run(folder: Path, tiny_model_dir: str) -> None:
    Path("judges.py").write_text(SLOWLY)
    rows = [{"prompt": f"Say {number} things.", "domain": "ab"[number % 2]} for number in range(40)]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"prompt": f"Known {n}?", "chosen": f"yes {n}", "rejected": "no", "domain": "a"} for n in range(9)]
    Path("gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judges = [{"function": "judges.py:judge", "name": name} for name in "xyz"] + [{"function": "judges.py:odd"}]
    # Blocks of one prompt: what is sampled together has one seed.
    flags = ["--models", tiny_model_dir, "--max_new_tokens", "6", "--near", "1", "--sampling_batch_size", "1"]
    flags += ["--annotators", json.dumps(judges), "--annotators_per_task", "3", "--n", "40", "--batch_size", "3"]
    flags += ["--gold", "gold.jsonl"]
    assert run(*flags, "--store", "whole.db") == 0
    whole = held("whole.db")
    assert max(task.wanted for task in whole[2]) > 3, "the case has to ask more annotators"
    moments, killed = random.Random(0), 0

    def written() -> int:
        """Events, prompts and kept responses that there are."""
        files = sum(1 for _ in Path("prefs.db.responses").rglob("*")) if Path("prefs.db.responses").exists() else 0
        try:
            with sqlite3.connect("file:prefs.db?mode=ro", uri=True) as store:
                rows = store.execute("select id from answers union all select id from prompts")
                count = len(rows.fetchall())
        except sqlite3.OperationalError:  # not there yet
            count = 0
        return count + files

    # Each is a process of its own; what a command imports, a server imports once for all of them.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hf_align.cli.commands.collect", "transformers.models.llama.modeling_llama"])
    for _ in range(10):
        process = context.Process(target=main, args=(["collect", "--config", "recipe.yaml", *flags],))
        process.start()
        goal = written() + 1 + moments.randrange(len(whole[-1]) // 8)
        while process.is_alive() and written() < goal:
            time.sleep(0.005)
        time.sleep(moments.random() * 0.1)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    assert killed >= 8
    assert run(*flags) == 0
    assert held("prefs.db") == whole


@pytest.mark.parametrize("dry", [["--dry-run"], []])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--annotators", "[anna, anna]"], "annotators has 'anna' twice"),
        (["--annotators", "['']"], "name '' can't be used"),
        (["--annotators", "[anna, <b>]"], "name '<b>' can't be used"),
        (["--annotators", "[{name: ' anna'}]"], "name ' anna' can't be used; leave out the space around it"),
        (["--annotators", "[{function: judges.py:shorter, name: ' '}]"], "a model with the name ' '"),
        (["--annotators", "[{function: judges.py:longer}]"], "judges.py has no function longer"),
        (["--annotators", "[{reward: judges.py:length, tie_band: -1}]"], "tie_band is -1"),
        (["--annotators", "[{judge: {model: no/model, promt: x}}]"], "entry 1: judge: promt is not a valid key; did"),
        (["--annotators", "[{judge: judges.py:length, tie_band: 1}]"], "entry 1: tie_band is not a valid key"),
        (["--annotators_per_task", "2"], "annotators_per_task is 2, and annotators has 1: short"),
        (["--adjudicators", "short"], "annotators and adjudicators both have 'short'"),
        (["--adjudicators", "'a/b'"], "name 'a/b' can't be used"),
        (["--selection", "disagreement"], "selection is 'disagreement' and there is no ensemble"),
        (["--features", "m"], "features is for selection 'information'"),
        (["--selection", "information", "--prompts", "null", "--models", "null"], "'information' and there is no"),
        (["--reward", "[vader, vader]"], "reward is for selection 'disagreement' or 'information', which is 'random'"),
        (["--selection", "disagreement", "--reward", "judges.py:length"], "reward is no ensemble"),
        (["--gold", "talks.jsonl"], "the prompts of 'gold' are messages and those to collect for are text"),
        (["--gold", "prompts.jsonl"], "none of the known layouts; it has prompt"),
        ([], "from the Hub id or folder 'no/model'"),
        (["--models", "./none"], "'./none' doesn't exist"),
        (["--annotators", "[{reward: ./none}]"], "there is no folder ./none"),
        (["--annotators", "[{reward: no/reward}]"], "from the Hub id or folder 'no/reward'"),
        (["--selection", "disagreement", "--reward", "[vader, ./none]"], "there is no folder ./none"),
        (
            ["--prompts", "null", "--models", "null", "--selection", "information", "--features", "./none"],
            "'./none' doesn't exist",
        ),
        (["--store", "none/prefs.db"], "there is no folder none"),
    ],
)
def test_what_cannot_work_is_refused_by_a_dry_run_too_and_makes_no_store(
    folder: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str, dry: list[str]
) -> None:
    assert run("--models", "no/model", *flags, *dry) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err
    assert not Path("prefs.db").exists()


def test_a_dry_run_refuses_prompts_that_nobody_answers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--models", "no/model", "--annotators", "[{name: anna, domains: law}]", "--dry-run") == 2
    assert "no domain of the prompts" in capsys.readouterr().err


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
