import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from hf_align import RewardEnsemble
from hf_align.cli.main import main
from hf_align.models.reward import RewardModel, load_reward_model

LORA = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
PAIRS = [
    {"prompt": "Say hi.", "chosen": " Hi!", "rejected": " No."},
    {"prompt": "Say bye.", "chosen": " Bye!", "rejected": " Never."},
]


@pytest.fixture(scope="module")
def saved(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model, which no test changes."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("saved") / "reward"
    RewardModel.from_backbone(tiny_model_dir).save_pretrained(folder)
    return folder


@pytest.fixture
def reward_folder(saved: Path, tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, "reward")
    Path("policy").symlink_to(tiny_model_dir)
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))


@pytest.fixture
def reward_model(reward_folder: None) -> RewardModel:
    return load_reward_model("reward")


def score(*words: str) -> int:
    return main(["score", "--model", "reward", "pairs.jsonl", "out.jsonl", *words])


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def test_pairs_are_scored(reward_model: RewardModel, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert score("--labels", "--max-length", "12", "--json", "figures.json") == 0
    shown = capsys.readouterr().out
    assert "4 responses in 2 rows of chosen + rejected: mean score" in shown
    assert "the chosen response scores higher in" in shown
    assert "longer than 12 tokens: 2 responses lost the beginning of their prompt, 0 their own end" in shown
    assert "template: none: prompt and response are concatenated" in shown and "2 rows in out.jsonl (" in shown
    assert json.loads(Path("figures.json").read_text())["responses"] == 4
    assert list(lines("out.jsonl")[0]) == ["prompt", "chosen", "rejected", "score_chosen", "score_rejected", "label"]
    assert score("--json", "-", "--overwrite", "--column", "r") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 2
    expected = reward_model.score([row["prompt"] for row in PAIRS], [row["chosen"] for row in PAIRS])
    assert [row["r_chosen"] for row in lines("out.jsonl")] == pytest.approx(expected, abs=1e-5)


def test_the_best_of_several_samples_are_kept(reward_model: RewardModel, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--best-of", "3", "--policy", "policy", "--max-new-tokens", "4", "--seed", "1", "--batch-size", "3"]
    assert score(*flags, "--temperature", "0.9", "--top-p", "0.9") == 0
    shown = capsys.readouterr().out
    assert "6 samples to 2 prompts: mean score" in shown and "cut at 4 tokens" in shown
    assert "of the 2 rows hold a cut response: training on it teaches to stop there" in shown
    assert list(lines("out.jsonl")[0]) == ["prompt", "completion", "score", "scores", "finished"]
    assert score(*flags, "--keep", "pairs", "--overwrite", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["keep"] == "pairs"
    assert all(row["margin"] > 0 for row in lines("out.jsonl"))


def test_a_judge_keeps_the_best_of_several_samples(
    reward_model: RewardModel, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = ["--judge", "{model: policy, bias: 0.5, name: small}", "--max-new-tokens", "4"]
    assert main(["score", *judge, "pairs.jsonl", "out.jsonl", *BEST, "--keep", "all", "--json", "figures.json"]) == 0
    assert "score: mean preference over the prompt's other samples, by small" in capsys.readouterr().out
    assert json.loads(Path("figures.json").read_text())["model"] == "small"
    assert all(sum(row["scores"]) == pytest.approx(1.0) for row in lines("out.jsonl"))
    assert not Path("out.jsonl.partial").exists()


BEST = ("--best-of", "2", "--policy", "policy")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy", "policy"], "--policy goes with --best-of N"),
        (["--keep", "pairs"], "--keep goes with --best-of N"),
        (["--seed", "1"], "--seed goes with --best-of N"),
        (["--finished-only"], "--finished-only goes with --best-of N"),
        (["--judge", "policy"], "--judge goes with --best-of N"),
        ([*BEST, "--judge", "policy"], "--judge and model are both given"),
        ([*BEST, "--labels"], "--labels goes without --best-of N"),
        ([*BEST, "--column", "r"], "--column goes without --best-of N"),
        (["--best-of", "2"], "--best-of needs --policy P"),
        (["--best-of", "1", "--policy", "policy"], "--best-of is 1; give at least 2"),
        ([*BEST, "--temperature", "0"], "--temperature is 0.0; give a number above 0"),
        ([*BEST, "--policy", "reward"], "--policy: reward is a reward model"),
        ([*BEST, "--policy", "./nowhere"], "--policy: './nowhere' doesn't exist"),
        (["--model", "policy"], "policy has no reward head"),
        (["--model", "./nowhere"], "--model: './nowhere' doesn't exist"),
        (["--output", "3"], "--output is '3', and reward has 0: LABEL_0"),
        (["--chat-template", "x.jinja"], "--chat-template: there is no file x.jinja"),
        (["--max-length", "1"], "--max-length must be at least 2"),
        (["--limit", "0"], "--limit is 0"),
        (["--keep", "worst"], "invalid choice: 'worst'"),
        (["--colunm", "x"], "did you mean --column?"),
    ],
)
def test_mistakes_exit_with_2(
    words: list[str], message: str, reward_folder: None, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert score(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("hf-align: error: ") and error.count("\n") == 1
    assert message in error
    assert not Path("out.jsonl").exists() and not Path("out.jsonl.partial").exists()


def test_data_and_out_are_checked_first(reward_model: RewardModel, capsys: pytest.CaptureFixture[str]) -> None:
    def error(data: str, out: str) -> str:
        assert main(["score", "--model", "reward", data, out]) == 2
        return capsys.readouterr().err

    assert "error: data: there is no file gone.jsonl" in error("gone.jsonl", "out.jsonl")
    assert main(["score", "pairs.jsonl", "out.jsonl", *BEST]) == 2
    assert "--model is missing; name a reward model by --model, or a judge by --judge" in capsys.readouterr().err
    assert "error: OUT: out.txt is neither one of" in error("pairs.jsonl", "out.txt")
    assert "error: OUT: pairs.jsonl exists; add --overwrite" in error("pairs.jsonl", "pairs.jsonl")
    Path("bad.jsonl").write_text('{"prompt": "a", "response": ""}\n')
    assert "error: data: 1 row has an empty response (row 0)" in error("bad.jsonl", "out.jsonl")
    assert main(["score", "--model", "reward", "pairs.jsonl", "out.jsonl", "--json", "pairs.jsonl/x.json"]) == 2
    assert "--json: pairs.jsonl/x.json can't be written" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(
    reward_model: RewardModel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", interrupt)
    assert score() == 130
    assert "interrupted. Nothing was scored yet; the same command starts again." in capsys.readouterr().err
    Path("out.jsonl.partial").mkdir()
    Path("out.jsonl.partial/1.json").touch()
    assert score() == 130
    assert "interrupted. The same command goes on from out.jsonl.partial; delete" in capsys.readouterr().err
    assert not Path("out.jsonl").exists()


def test_an_ensemble_scores_with_its_members_deviation(
    reward_model: RewardModel, tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [RewardModel.from_backbone(tiny_model_dir, lora=LORA) for _ in range(3)]
    ensemble = RewardEnsemble(members, "median")
    ensemble.normalize(PAIRS, "two pairs")
    ensemble.save_pretrained("three")
    flags = ["score", "--model", "three", "pairs.jsonl", "three.jsonl"]
    assert main([*flags, "--uncertainty"]) == 0
    rows = lines("three.jsonl")
    assert list(rows[0])[3:] == ["score_chosen", "score_rejected", "score_chosen_std", "score_rejected_std"]
    for side in ("chosen", "rejected"):
        given = ([row["prompt"] for row in PAIRS], [row[side] for row in PAIRS])
        expected, measured = ensemble.score(*given, return_uncertainty=["std"])
        assert [row[f"score_{side}"] for row in rows] == pytest.approx(expected, abs=1e-4)
        assert [row[f"score_{side}_std"] for row in rows] == pytest.approx(measured["std"], abs=1e-4)
    capsys.readouterr()
    assert score("--uncertainty", "--overwrite") == 2
    assert "--uncertainty is the deviation of an ensemble's members, and this is a single" in capsys.readouterr().err
    assert main([*flags, "--overwrite", "--best-of", "2", "--policy", "policy", "--max-new-tokens", "3"]) == 0
    assert all(row["score"] == max(row["scores"]) for row in lines("three.jsonl"))
    evaluated = ["evaluate", "reward", "--model", "three", "--data", "pairs.jsonl", "--robustness-texts", "0"]
    capsys.readouterr()
    assert main([*evaluated, "--resamples", "20", "--json", "-"]) == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert facts["ensemble"] == {"members": 3, "method": "median"} and facts["model"] == "three"
    judged = ["evaluate", "policy", "--model", "policy", "--data", "pairs.jsonl", "--judge", "three", "--json", "-"]
    assert main([*judged, "--max-new-tokens", "3", "--resamples", "20"]) == 0
    sample = json.loads(capsys.readouterr().out)["samples"][0]
    expected = ensemble.score([PAIRS[0]["prompt"]], [sample["policy"]["text"]], [False])
    assert sample["policy"]["score"] == pytest.approx(expected[0], abs=1e-3)
