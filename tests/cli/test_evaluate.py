import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_align.cli.main import main
from hf_align.feedback import LanguageModelJudge
from hf_align.models.loading import load_policy
from hf_align.models.reward import RewardModel, load_reward_model
from tests.tiny import save_tiny

PAIRS = [
    {"prompt": "Say hi.", "chosen": "Hi!", "rejected": "No."},
    {"prompt": "Say bye.", "chosen": "Bye!", "rejected": "Never."},
    {"prompt": "Count.", "chosen": "One, two.", "rejected": "Two, one."},
]
JUDGE = """
def letters(prompts, responses, **columns):
    return [float(len(text)) for text in responses]
def tokens(prompts, responses, response_ids):
    return [float(len(ids)) for ids in response_ids]
"""


@pytest.fixture(scope="module")
def saved(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model and a policy's adapter, which no test changes."""
    folder = tmp_path_factory.mktemp("saved")
    RewardModel.from_backbone(tiny_model_dir).save_pretrained(folder / "reward")
    load_policy(tiny_model_dir, lora=True).save_pretrained(str(folder / "policy"))
    return folder


@pytest.fixture
def reward_folder(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved / "reward", "reward")
    Path("judge.py").write_text(JUDGE)


@pytest.fixture
def reward_model(reward_folder: None) -> RewardModel:
    return load_reward_model("reward")


def write(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def figures(*arguments: str) -> dict[str, Any]:
    assert main(["evaluate", *arguments, "--json", "figures.json", "--resamples", "50"]) == 0
    return json.loads(Path("figures.json").read_text())


@pytest.mark.parametrize("implicit", [False, True])
def test_accuracy_on_pairs(reward_model: RewardModel, implicit: bool, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, Any]] = PAIRS
    if implicit:
        sides = ("chosen", "rejected")
        rows = [{side: f"{row['prompt']} {row[side]}" for side in sides} for row in PAIRS]
    scores = [
        reward_model.score([row["prompt"]] * 2, [f"{' ' * implicit}{row[side]}" for side in ("chosen", "rejected")])
        for row in PAIRS
    ]
    actual = figures("reward", "--model", "reward", "--data", write("pairs.jsonl", rows), "--robustness-texts", "0")
    accuracy = actual["metrics"]["accuracy"]
    assert accuracy["pairs"] == 3
    assert accuracy["accuracy"] == pytest.approx(sum(a > b for a, b in scores) / 3)
    deviation = float(np.std(scores))
    assert accuracy["margin"] == pytest.approx(sum(a - b for a, b in scores) / 3 / deviation, abs=1e-4)
    assert actual["facts"]["data"] == "pairs.jsonl" and actual["facts"]["template"].startswith("none: prompt and")
    assert actual["metrics"]["robustness"] is None
    shown = capsys.readouterr().out
    titles = re.findall(r"^([1-8]) (Accuracy|Rank|Calib|Robust|Length|Subsets|Best|The worst)", shown, re.MULTILINE)
    assert [int(number) for number, _ in titles] == list(range(1, 9))
    assert max(map(len, shown.splitlines())) <= 120
    assert "tokenizer's chat template isn't used" in " ".join(shown.split())


def test_correlation_with_ratings(reward_model: RewardModel, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["Good.", "Bad.", "So so.", "Great!"]
    scores = reward_model.score(["Say."] * 4, texts)
    rows = [
        {"prompt": "Say.", "response": text, "rating": 2 * score + 1} for text, score in zip(texts, scores, strict=True)
    ]
    common = ("reward", "--model", "reward", "--robustness-texts", "0", "--data")
    accuracy = figures(*common, write("rated.jsonl", rows))["metrics"]["accuracy"]
    assert accuracy["pairs"] == 6 and accuracy["accuracy"] == 1
    assert accuracy["people"]["all"]["r"] == pytest.approx(1) and "human_r" not in accuracy["people"]["all"]
    capsys.readouterr()

    several = [{**row, "ratings": [row["rating"] - 1, row["rating"] + 1]} for row in rows]
    people = figures(*common, write("many.jsonl", several))["metrics"]["accuracy"]["people"]["all"]
    assert people["r"] == pytest.approx(1) and people["human_r"] == pytest.approx(1)
    assert "one person's r" in capsys.readouterr().out

    figures(*common, write("equal.jsonl", [{**row, "rating": 2.0} for row in rows]))
    assert "undefined: all ratings are equal" in capsys.readouterr().out


def test_rated_responses_to_different_prompts_are_ranked_if_asked_for(
    reward_model: RewardModel, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"Say {n}.", "response": "Good.", "rating": n} for n in range(3)]
    common = ("reward", "--model", "reward", "--data", write("rated.jsonl", rows), "--robustness-texts", "0")
    assert main(["evaluate", *common]) == 2
    assert "with --across-prompts within a subset" in capsys.readouterr().err
    across = figures(*common, "--across-prompts")
    assert across["facts"]["across_prompts"] is True and across["metrics"]["accuracy"]["pairs"] == 3
    assert "Pairs cross prompts" in capsys.readouterr().out


def test_the_report_is_a_page_and_figures_on_standard_output(
    reward_model: RewardModel, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--limit", "12", "--resamples", "50", "--robustness-texts", "0", "--judge", "judge.py:letters"]
    common = ["evaluate", "reward", "--model", "reward", "--data", "embedded:ratings", *flags]
    assert main([*common, "--report", "new/report.html", "--json", "-"]) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert list(printed["metrics"])[:4] == ["accuracy", "tau", "calibration", "robustness"]
    assert printed["facts"]["judge"] == "letters" and printed["facts"]["command"].endswith("--json -")
    assert printed["remarks"][-1]["kind"] == "made_prompts"
    assert "report: new/report.html" in captured.err
    assert '<h2 id="worst_rows">' in Path("new/report.html").read_text()


def test_a_benchmark_is_named_and_its_result_written_as_its_script_does(
    reward_model: RewardModel, capsys: pytest.CaptureFixture[str]
) -> None:
    subsets = ("alpacaeval-easy", "mt-bench-hard", "donotanswer", "hep-go")
    rows = [{**PAIRS[n % 3], "subset": subset, "id": n} for n, subset in enumerate(subsets)]
    common = ("reward", "--model", "reward", "--data", write("bench.jsonl", rows), "--robustness-texts", "0")
    actual = figures(*common, "--result", "result.json", "--outputs", "out.jsonl", "--card")
    shown = capsys.readouterr().out
    assert "data: RewardBench (4 rows)" in shown and "RewardBench, by its own formula" in shown
    turns = [[{"role": role, "content": row[key]}] for row in rows for role, key in (("user", "prompt"),)]
    chosen, rejected = (
        reward_model.score(turns, [[{"role": "assistant", "content": row[side]}] for row in rows])
        for side in ("chosen", "rejected")
    )
    right = [a > b for a, b in zip(chosen, rejected, strict=True)]
    assert actual["facts"]["benchmark"]["figures"]["overall"] == pytest.approx(sum(right) / 4)
    result = json.loads(Path("result.json").read_text())
    assert result["accuracy"] == sum(right) / 4 and result["num_prompts"] == 4
    assert result["chat_template"] == "the tokenizer's chat template"
    assert result["extra_results"] == dict(zip(subsets, map(float, right), strict=True))
    assert f"| reward report on pairs | accuracy | {sum(right) / 4:.4g} |" in Path("reward/README.md").read_text()
    outputs = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["scores_chosen"] for row in outputs] == pytest.approx(chosen, abs=1e-5)
    assert outputs[1]["id"] == 1 and outputs[1]["text_rejected"] == rows[1]["rejected"]
    assert figures(*common, "--chat-template", "none")["facts"]["template"].startswith("none:")


def test_policies_beside_each_other(
    reward_model: RewardModel, tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other").symlink_to(tiny_model_dir)
    data = write("prompts.jsonl", [{"prompt": row["prompt"], "domain": "d"} for row in PAIRS])
    common = ["--data", data, "--max-new-tokens", "5", "--limit", "2", "--human-texts", "0"]
    common += ["--model", tiny_model_dir, "--model", "other"]
    actual = figures("policy", *common, "--judge", "judge.py:letters")
    shown = capsys.readouterr().out
    assert "distinct-2" in shown and max(map(len, shown.splitlines())) <= 120
    assert len(actual["samples"]) == actual["report"]["all"]["prompts"] == 2
    first, second = actual["report"]["all"]["policies"].values()
    lengths = [len(row[tiny_model_dir]["text"]) for row in actual["samples"]]
    assert first["score"] == pytest.approx(sum(lengths) / 2)
    assert "gain" not in first
    assert second["gain"] == 0, "the same weights, prompts and seed"
    assert set(actual["report"]) == {"all", "d"}

    assert main(["evaluate", "policy", *common, "--judge", "./reward", "--json", "-", "--resamples", "50"]) == 0
    printed = json.loads(capsys.readouterr().out)
    texts = [row["other"]["text"] for row in printed["samples"]]
    assert printed["report"]["all"]["policies"]["other"]["ended"] == 0
    expected = reward_model.score([row["prompt"] for row in PAIRS[:2]], texts, finished=[False] * 2)
    assert [row["other"]["score"] for row in printed["samples"]] == pytest.approx(expected, abs=1e-4)


def test_the_report_on_policies_is_a_page_and_figures(
    reward_model: RewardModel, tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other").symlink_to(tiny_model_dir)
    data = write("prompts.jsonl", [{"prompt": row["prompt"]} for row in PAIRS])
    people = write("people.jsonl", [{"text": "A dull film."}, {"text": "Great!"}])
    flags = ["--max-new-tokens", "2", "--human-text", people, "--judge", "judge.py:letters", "--judge", "vader"]
    common = ["evaluate", "policy", "--model", "other", "--reference", tiny_model_dir, "--data", data, *flags]
    pages = ["--report", "new/r.html", "--front", "front.json"]
    assert main([*common, "--resamples", "20", *pages, "--json", "-"]) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert list(printed) == ["data", "judge", "seed", "facts", "remarks", "metrics", "report", "samples"]
    assert printed["facts"]["reference"] == tiny_model_dir and printed["facts"]["command"].endswith("--json -")
    assert printed["facts"]["judges"] == ["judge.py:letters", "VADER"] and printed["judge"] == "judge.py:letters"
    assert (printed["metrics"]["lost_ability"]["texts"], printed["facts"]["human_text"]) == (2, "given texts")
    front = json.loads(Path("front.json").read_text())["figures"]
    assert front["objectives"] == ["judge.py:letters", "VADER"] and len(front["points"]) == 2
    assert "report: new/r.html" in captured.err and '<h2 id="domains">' in Path("new/r.html").read_text()


def test_a_language_model_compares_policies_in_both_orders(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "other", initializer_range=0.2)
    data = write("prompts.jsonl", [{"prompt": row["prompt"]} for row in PAIRS])
    common = ["--data", data, "--max-new-tokens", "3", "--human-texts", "0", "--model", tiny_model_dir, "--model"]
    flags = ["--judge", f"{{model: {tiny_model_dir}, bias: 0.5, name: small}}", "--report", "r.html"]
    actual = figures("policy", *common, "other", *flags)
    judge = LanguageModelJudge(tiny_model_dir, bias=0.5)
    texts = [[row[name]["text"] for row in actual["samples"]] for name in (tiny_model_dir, "other")]
    judgements = judge.compare([row["prompt"] for row in PAIRS], texts[1], texts[0])
    assert [row["other"]["score"] for row in actual["samples"]] == pytest.approx([j.preference for j in judgements])
    assert {row[tiny_model_dir]["score"] for row in actual["samples"]} == {0.5}
    rate = actual["metrics"]["win_rate"]["policies"]["other"]
    assert rate["win_rate"] == pytest.approx(sum(judgement.label or 0.0 for judgement in judgements) / 3)
    flipped = sum(judgement.flipped for judgement in judgements)
    assert actual["facts"]["pairs"] == {"small": {"judged": 3, "flipped": flipped, "no_opinion": 0}}
    assert "choices that change with the order" in Path("r.html").read_text()


def test_vader_is_the_default_judge(reward_model: RewardModel, tiny_model_dir: str) -> None:
    actual = figures(
        "policy", "--model", tiny_model_dir, "--data", "embedded:ratings", "--limit", "3", "--human-texts", "3"
    )
    assert actual["judge"] == "vader"
    assert all(-1 <= row[tiny_model_dir]["score"] <= 1 for row in actual["samples"])


@pytest.mark.parametrize(
    ("kind", "rows", "flags", "message"),
    [
        ("reward", [{"text": "a"}], [], "--data has the columns text"),
        ("reward", PAIRS, ["--model", "MODEL"], "MODEL has no reward head and would score at random"),
        ("reward", PAIRS, ["--report", "r.pdf"], "--report is r.pdf; a report is saved as .html or .json"),
        ("reward", PAIRS, ["--json", "judge.py/x.json"], "--json: judge.py/x.json can't be written"),
        ("reward", PAIRS, ["--card", "--model", "org/name"], "--card is for a saved model's folder, and there is none"),
        ("reward", PAIRS, ["--card", "--model", "written"], "--card: written/README.md was written by hand"),
        ("reward", PAIRS, ["--result", "x.json"], "--result is for rows of RewardBench"),
        ("reward", PAIRS, ["--judge", "judge.py:words"], "--judge: judge.py has no function words"),
        ("reward", PAIRS, ["--output", "best"], "--output is 'best', and reward has 0: LABEL_0"),
        ("reward", PAIRS, ["--chat-template", "no.jinja"], "--chat-template: there is no file no.jinja"),
        (
            "reward",
            PAIRS,
            ["--robustness-text", "1"],
            "does not know --robustness-text; did you mean --robustness-texts",
        ),
        ("reward", [{"prompt": "a", "chosen": "b", "rejected": "b"}], [], "identical chosen and rejected (row 0)"),
        (
            "reward",
            [{"prompt": "a", "response": "b", "rating": None}],
            [],
            "1 row has no rating that is a number (row 0)",
        ),
        ("reward", PAIRS, ["--limit", "0"], "--limit is 0"),
        ("reward", PAIRS, ["--across-prompts"], "--across-prompts compares rated responses"),
        ("reward", [{"prompt": "a", "response": "b", "rating": 1e39}], [], "no rating that is a number"),
        ("policy", [{"prompt": ""}], [], "an empty prompt (row 0)"),
        ("policy", [{"text": "a"}], [], "no column prompt"),
        ("policy", PAIRS, ["--judge", "vader", "--front", "f.html"], "--front: draws policies by several judges"),
        ("policy", PAIRS, ["--judge", "judge.py:words"], "--judge: judge.py has no function words"),
        ("policy", PAIRS, ["--judge", "judge.py:tokens"], "'tokens' asks for 'response_ids', which is not a column"),
        ("policy", PAIRS, ["--judge", "{reward: policy}"], "policy has no reward head"),
        ("policy", PAIRS, ["--judge", "{model: policy, promt: x}"], "--judge: promt is not a valid key; did you mean"),
        ("policy", PAIRS, ["--judge", "{model: policy"], "--judge is not valid YAML"),
        ("policy", PAIRS, ["--judge", "policy"], "--judge 'policy' compares responses, and there is one policy"),
        ("policy", PAIRS, ["--judge", "./empty"], "--judge: './empty' holds no model"),
        ("policy", PAIRS, ["--model", "reward"], "--model: reward is a reward model"),
        ("policy", PAIRS, ["--model", "./empty"], "--model: './empty' holds no model"),
        ("policy", PAIRS, ["--model", "./nowhere"], "--model: './nowhere' doesn't exist"),
        ("policy", PAIRS, ["--report", "r.pdf"], "--report is r.pdf; a report is saved as .html or .json"),
        ("policy", PAIRS, ["--human-text", "no.jsonl"], "--human-text: there is no file no.jsonl"),
        ("policy", PAIRS, ["--human-text", "data.jsonl"], "--human-text has no column text: it has prompt, chosen"),
        ("policy", PAIRS, ["--reference", "./nowhere"], "--reference: './nowhere' doesn't exist"),
        ("policy", PAIRS, ["--max-new-tokens", "2048"], "--max-new-tokens is 2048; MODEL has 2048 positions and the"),
        ("policy", [{"prompt": "a " * 2048}], [], "--data: MODEL has 2048 positions and the longest prompt takes"),
        ("policy", [{"prompt": "a"}], ["--data", "embedded:rating"], "--data: there is no embedded:rating; did you"),
        ("reward", PAIRS, ["--model", "./empty"], "--model: './empty' holds no model"),
    ],
)
def test_mistakes_exit_with_2(
    kind: str,
    rows: list[dict[str, Any]],
    flags: list[str],
    message: str,
    reward_folder: None,
    saved: Path,
    tiny_model_dir: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = "reward" if kind == "reward" else tiny_model_dir
    Path("policy").symlink_to(saved / "policy")
    Path("empty").mkdir()
    Path("written").mkdir()
    Path("written/README.md").write_text("By hand.")
    capsys.readouterr()  # the loading bar
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    flags, message = [flag.replace("MODEL", tiny_model_dir) for flag in flags], message.replace("MODEL", tiny_model_dir)
    assert main(["evaluate", kind, "--model", model, "--data", write("data.jsonl", rows), *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hf-align: error: ")
    assert error.count("\n") == 1
    assert message in error


def test_figures_that_cannot_be_written(
    reward_model: RewardModel, tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data", write("data.jsonl", PAIRS), "--max-new-tokens", "1", "--json", "judge.py/x.json"]
    assert main(["evaluate", "policy", "--model", tiny_model_dir, *flags]) == 2
    assert "--json: judge.py/x.json can't be" in capsys.readouterr().err
