import json
from pathlib import Path
from typing import Any

import pytest

from hf_align.cli.main import main
from hf_align.models.loading import load_policy
from hf_align.models.reward import RewardModel, load_reward_model

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


@pytest.fixture
def reward_model(tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RewardModel:
    monkeypatch.chdir(tmp_path)
    RewardModel.from_backbone(tiny_model_dir).save_pretrained("reward")
    Path("judge.py").write_text(JUDGE)
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
    actual = figures("reward", "--model", "reward", "--data", write("pairs.jsonl", rows))
    assert actual["pairs"] == 3
    assert actual["accuracy"] == pytest.approx(sum(a > b for a, b in scores) / 3)
    assert actual["margin"] == pytest.approx(sum(a - b for a, b in scores) / 3, abs=1e-4)
    low, high = actual["margin_interval"]
    assert low <= actual["margin"] <= high
    assert "3 pairs" in capsys.readouterr().out


def test_correlation_with_ratings(reward_model: RewardModel, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["Good.", "Bad.", "So so.", "Great!"]
    scores = reward_model.score(["Say."] * 4, texts)
    rows = [
        {"prompt": "Say.", "response": text, "rating": 2 * score + 1} for text, score in zip(texts, scores, strict=True)
    ]
    report = figures("reward", "--model", "reward", "--data", write("rated.jsonl", rows))["report"]["all"]
    assert report["pairs"] == 6
    assert list(report["scorers"]) == ["reward model"]
    assert report["scorers"]["reward model"]["r"] == pytest.approx(1)
    assert report["scorers"]["reward model"]["pair_accuracy"] == 1
    capsys.readouterr()

    several = [{**row, "ratings": [row["rating"] - 1, row["rating"] + 1]} for row in rows]
    report = figures("reward", "--model", "reward", "--data", write("many.jsonl", several))["report"]["all"]
    assert set(report["scorers"]) == {"reward model", "single human"}
    assert report["scorers"]["reward model"]["r"] == pytest.approx(1)
    assert "single human" in capsys.readouterr().out


def test_rated_responses_to_different_prompts_are_ranked_if_asked_for(
    reward_model: RewardModel, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"Say {n}.", "response": "Good.", "rating": n} for n in range(3)]
    common = ("reward", "--model", "reward", "--data", write("rated.jsonl", rows))
    alone = figures(*common)
    assert alone["across_prompts"] is False and alone["report"]["all"]["pairs"] == 0
    shown = capsys.readouterr().out
    assert "pairs of one prompt" in shown and "no pairs" in shown and "--across-prompts compares any two" in shown
    across = figures(*common, "--across-prompts")
    assert across["across_prompts"] is True and across["report"]["all"]["pairs"] == 3
    assert "pairs of any prompts" in capsys.readouterr().out


def test_the_embedded_ratings(reward_model: RewardModel) -> None:
    report = figures("reward", "--model", "reward", "--data", "embedded:ratings", "--limit", "12")["report"]
    assert report["all"]["texts"] == 12


def test_policies_beside_each_other(
    reward_model: RewardModel, tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other").symlink_to(tiny_model_dir)
    data = write("prompts.jsonl", [{"prompt": row["prompt"], "domain": "d"} for row in PAIRS])
    common = ["--data", data, "--max-new-tokens", "5", "--limit", "2", "--model", tiny_model_dir, "--model", "other"]
    actual = figures("policy", *common, "--judge", "judge.py:letters")
    assert "distinct-2" in capsys.readouterr().out
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


def test_vader_is_the_default_judge(reward_model: RewardModel, tiny_model_dir: str) -> None:
    actual = figures("policy", "--model", tiny_model_dir, "--data", "embedded:ratings", "--limit", "3")
    assert actual["judge"] == "vader"
    assert all(-1 <= row[tiny_model_dir]["score"] <= 1 for row in actual["samples"])


@pytest.mark.parametrize(
    ("kind", "rows", "flags", "message"),
    [
        ("reward", [{"text": "a"}], [], "--data has the columns text"),
        ("reward", [{"prompt": "a", "chosen": "b", "rejected": "b"}], [], "identical chosen and rejected (row 0)"),
        (
            "reward",
            [{"prompt": "a", "response": "b", "rating": None}],
            [],
            "1 row has no rating that is a number (row 0)",
        ),
        ("reward", [{"prompt": "a", "response": "b", "ratings": [1]}], [], "fewer than two ratings"),
        ("reward", PAIRS, ["--limit", "0"], "--limit is 0"),
        ("reward", PAIRS, ["--across-prompts"], "--across-prompts is for rated responses"),
        ("reward", [{"prompt": "a", "response": "b", "rating": 1e39}], [], "no rating that is a number"),
        ("policy", [{"prompt": ""}], [], "an empty prompt (row 0)"),
        ("policy", [{"text": "a"}], [], "no column prompt"),
        ("policy", PAIRS, ["--judge", "judge.py:words"], "--judge: judge.py has no function words"),
        ("policy", PAIRS, ["--judge", "judge.py:tokens"], "'tokens' asks for 'response_ids', which is not a column"),
        ("policy", PAIRS, ["--judge", "MODEL"], "--judge: MODEL has no reward head"),
        ("policy", PAIRS, ["--judge", "policy"], "--judge: policy has no reward head"),
        ("policy", PAIRS, ["--judge", "./empty"], "--judge: './empty' holds no model"),
        ("policy", PAIRS, ["--model", "reward"], "--model: reward is a reward model"),
        ("policy", PAIRS, ["--model", "./empty"], "--model: './empty' holds no model"),
        ("policy", PAIRS, ["--model", "./nowhere"], "--model: './nowhere' doesn't exist"),
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
    reward_model: RewardModel,
    tiny_model_dir: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = "reward" if kind == "reward" else tiny_model_dir
    load_policy(tiny_model_dir, lora=True).save_pretrained("policy")
    Path("empty").mkdir()
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
