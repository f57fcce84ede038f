"""The best of several samples, against an independent scoring."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hf_align import RewardModel, load_reward_model
from hf_align.collators import check_preferences
from hf_align.collators.demonstrations import read_demonstrations
from hf_align.collators.rankings import read_ranking
from hf_align.data.parts import Parts
from hf_align.errors import UserError
from hf_align.evaluation import Sampling, sample_best
from hf_align.evaluation.best_of import Sample
from hf_align.evaluation.best_of_kept import _all, _best, _pair
from hf_align.rewards import Judgement, judge_orders

ASK = [{"role": "user", "content": "Say hi."}]
ROWS: list[dict[str, Any]] = [
    {"prompt": "Well?", "chosen": "b", "rejected": "c", "margin": 1.0, "domain": "x"},
    {"prompt": "And a longer one:", "chosen": "b", "rejected": "c", "margin": 1.0, "domain": "y"},
    {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1.0, "domain": "z"},
]
SAMPLING = Sampling(n=4, max_new_tokens=5, batch_size=8)


@pytest.fixture(scope="module")
def reward(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("reward")
    RewardModel.from_backbone(tiny_model_dir).save_pretrained(folder)
    return str(folder)


def test_the_best_sample_is_the_one_that_the_reward_model_scores_highest(tiny_model_dir: str, reward: str) -> None:
    every = sample_best(tiny_model_dir, reward, ROWS, SAMPLING, keep="all").rows
    best = sample_best(tiny_model_dir, reward, ROWS, SAMPLING)
    pairs = sample_best(tiny_model_dir, reward, ROWS, SAMPLING, keep="pairs").rows
    assert every.column_names == ["prompt", "domain", "responses", "scores", "finished"]
    assert best.rows.column_names == ["prompt", "domain", "completion", "score", "scores", "finished"]
    assert pairs.column_names == [
        "prompt",
        "domain",
        "chosen",
        "rejected",
        "margin",
        "score_chosen",
        "score_rejected",
        "finished",
    ]
    model = load_reward_model(reward)
    for row, top, pair in zip(every.to_list(), best.rows.to_list(), pairs.to_list(), strict=True):
        alone = [  # one at a time
            model.score([row["prompt"]], [text], finished=[ended])[0]
            for text, ended in zip(row["responses"], row["finished"], strict=True)
        ]
        assert row["scores"] == pytest.approx(alone, abs=1e-5)
        order = sorted(range(len(alone)), key=alone.__getitem__)
        assert top["completion"] == pair["chosen"] == row["responses"][order[-1]]
        assert pair["rejected"] == row["responses"][order[0]]
        assert top["score"] == max(top["scores"]) and len(top["scores"]) == 4
        assert pair["margin"] == pair["score_chosen"] - pair["score_rejected"] > 0
        assert row["prompt"] == top["prompt"] and row["domain"] == pair["domain"]
    assert pairs["finished"][0] == [
        every[0]["finished"][every[0]["responses"].index(pairs[0][side])] for side in ("chosen", "rejected")
    ]
    assert best.figures["samples"] == 12 and best.figures["kept_cut"] == sum(
        not ended for ended in best.rows["finished"]
    )
    assert best.figures["mean_best"] == pytest.approx(sum(best.rows["score"]) / 3)
    # What the next command reads:
    read_demonstrations(best.rows, "data")
    check_preferences(pairs)
    for row in every.to_list():
        read_ranking(row)


def test_samples_follow_the_seed_and_a_stopped_job_ends_with_the_same_bits(
    tiny_model_dir: str, reward: str, tmp_path: Path
) -> None:
    def rows(seed: int = 0, folder: Path | None = None) -> list[dict[str, Any]]:
        parts.append(Parts(folder))
        sampling = Sampling(n=4, max_new_tokens=5, batch_size=4, seed=seed)
        return sample_best(tiny_model_dir, reward, ROWS, sampling, keep="all", parts=parts[-1]).rows.to_list()

    parts: list[Parts] = []
    whole = rows(folder=tmp_path)
    stored = sorted(tmp_path.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    assert len(stored) == 4, "three blocks of one prompt each, and their scores"
    for file in stored[1:]:
        file.unlink()
    assert rows(folder=tmp_path) == whole and parts[-1].found == 1
    assert rows() == whole != rows(seed=1)


class Judging:
    """Prefers the text with more letters; no opinion where one holds none; always what is shown first where equal."""

    name = "letters"

    def __init__(self) -> None:
        self.asked = 0

    def compare(self, prompts: Any, firsts: Any, seconds: Any) -> list[Judgement]:
        self.asked += len(prompts)

        def ask(_: Any, shown_first: Any, shown_second: Any) -> list[float | None]:
            counts = [
                [sum(map(str.isalpha, text)) for text in pair] for pair in zip(shown_first, shown_second, strict=True)
            ]
            return [None if 0 in (one, two) else 0.8 if one >= two else 0.4 for one, two in counts]

        return judge_orders(ask, prompts, firsts, seconds)


class KnownJudging(Judging):
    """What it says may be kept."""

    def identity(self) -> dict[str, str]:
        return {"name": self.name}


def test_a_judge_of_pairs_ranks_a_prompts_samples(tiny_model_dir: str) -> None:
    rows = [{"prompt": f"{n}"} for n in range(6)]
    sampling = Sampling(n=4, max_new_tokens=5, batch_size=8)
    best = sample_best(tiny_model_dir, Judging(), rows, sampling)
    every = sample_best(tiny_model_dir, Judging(), rows, sampling, keep="all")
    assert best.figures["judge"] == "letters" and len(best.rows) > 2 and "template" not in best.figures
    texts_of = {row["prompt"]: row["responses"] for row in every.rows.to_list()}
    for row in best.rows.to_list():
        assert all(any(map(str.isalpha, text)) for text in texts_of.get(row["prompt"], []))
        assert sum(row["scores"]) / len(row["scores"]) == pytest.approx(0.5)
        assert row["score"] == max(row["scores"])
        most = max(sum(map(str.isalpha, text)) for text in texts_of.get(row["prompt"], [row["completion"]]))
        assert sum(map(str.isalpha, row["completion"])) == most
    with pytest.raises(UserError, match=r"^max_length is for a reward model"):
        sample_best(tiny_model_dir, Judging(), rows, sampling, max_length=8)


def test_what_a_judge_said_is_kept_if_it_says_what_determines_it(tiny_model_dir: str, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}"} for n in range(6)]
    sampling = Sampling(n=4, max_new_tokens=5, batch_size=32)

    def asked(judge: Judging, folder: Path) -> tuple[int, list[Any]]:
        kept = sample_best(tiny_model_dir, judge, rows, sampling, keep="all", parts=Parts(folder)).rows.to_list()
        return judge.asked, kept

    for kind, again in ((KnownJudging, 0), (Judging, None)):
        first, whole = asked(kind(), tmp_path / kind.__name__)
        second, same = asked(kind(), tmp_path / kind.__name__)
        assert same == whole and first > 0 and second == (first if again is None else again)


def test_prompts_of_other_layouts_are_answered(tiny_model_dir: str, reward: str) -> None:
    turns = [{"messages": [*ASK, {"role": "assistant", "content": "Hi!"}], "id": 1}, {"messages": ASK, "id": 2}]
    best = sample_best(tiny_model_dir, reward, turns, SAMPLING).rows
    assert best.column_names == ["id", "prompt", "completion", "score", "scores", "finished"]
    assert best["prompt"][:] == [ASK, ASK]
    model = load_reward_model(reward)
    first = best[0]
    assert model.score([ASK], [first["completion"]], finished=[first["finished"]]) == pytest.approx(
        [first["score"]], abs=1e-5
    )
    read_demonstrations(best, "data")


def test_only_finished_samples_are_kept_if_asked_for(tiny_model_dir: str, reward: str) -> None:
    rows = [{"prompt": f"{n}"} for n in range(8)]
    sampling = Sampling(n=32, max_new_tokens=8, batch_size=256)
    kept = sample_best(tiny_model_dir, reward, rows, sampling, keep="all", finished_only=True)
    assert all(map(all, kept.rows["finished"])) and len(kept.rows)
    left_out = kept.figures["without_usable_sample"] + kept.figures["alike"]
    assert len(kept.rows) + left_out == 8 and kept.figures["cut"] > 0
    with pytest.raises(UserError, match=r"^data: no prompt has a sample that isn't empty or cut; raise max_new_tokens"):
        sample_best(tiny_model_dir, reward, rows[:1], Sampling(n=2, max_new_tokens=1), finished_only=True)


def test_what_is_kept_by_hand() -> None:
    a, b, cut = Sample("a", True), Sample("b", True), Sample("a", False)
    assert _best([a, b, cut], [1.0, 3.0, 3.0]) == {
        "completion": "b",
        "score": 3.0,
        "scores": [1.0, 3.0, 3.0],
        "finished": True,
    }
    pair = _pair([b, a, b, cut], [2.0, 1.0, 0.5, 0.0])
    assert pair == {
        "chosen": "b",
        "rejected": "a",
        "margin": 2.0,
        "score_chosen": 2.0,
        "score_rejected": 0.0,
        "finished": [True, False],
    }
    assert _pair([a, b], [1.0, 1.0]) is None, "tied"
    assert _pair([a, cut], [1.0, 0.5]) is None, "the same text"
    assert _all([b, a, cut], [1.0, 2.0, 3.0]) == {
        "responses": ["b", "a"],
        "scores": [1.0, 2.0],
        "finished": [True, True],
    }
    assert _all([a, cut], [1.0, 2.0]) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 1}, "best_of is 1; give at least 2"),
        ({"temperature": 0.0}, "temperature is 0.0; give a number above 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"keep": "worst"}, "keep is 'worst'; use one of best, pairs, all"),
        ({"max_new_tokens": 5000}, "max_new_tokens is 5000; .* has 2048 positions"),
        ({"policy": "REWARD"}, "policy: .* is a reward model"),
        ({"model": "POLICY"}, ".* has no reward head"),
        ({"rows": [{"prompt": ""}]}, r"data: 1 row has an empty prompt \(row 0\)"),
        ({"rows": [{"text": "a"}]}, "data has no column prompt, and the data set has none"),
    ],
)
def test_mistakes_are_named_before_anything_is_sampled(
    given: dict[str, Any], message: str, tiny_model_dir: str, reward: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    names = {"REWARD": reward, "POLICY": tiny_model_dir}
    settings: dict[str, Any] = {"policy": tiny_model_dir, "model": reward, "rows": ROWS, "keep": "best"} | given
    sampling = {"n": 2, "max_new_tokens": 4} | {
        key: settings.pop(key) for key in list(settings) if key not in ("policy", "model", "rows", "keep")
    }
    policy, model = (str(names.get(settings[key], settings[key])) for key in ("policy", "model"))
    with pytest.raises(UserError, match=f"^{message}"):
        sample_best(policy, model, settings["rows"], Sampling(**sampling), keep=settings["keep"])
