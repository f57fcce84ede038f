"""Scores of a whole data set, against the reward model's own."""

import math
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import MistralConfig, MistralForSequenceClassification

from hf_align import RewardModel, RewardModelConfig, load_reward_model
from hf_align.data.comparison_rows import read_comparisons
from hf_align.data.parts import Parts
from hf_align.errors import UserError
from hf_align.evaluation import score_dataset
from hf_align.evaluation.described import remarks_on_model
from hf_align.evaluation.scored import BLOCK
from hf_align.models.normalization import Normalization
from hf_align.models.outputs import Output
from hf_align.models.scorer import Scorer, load_scorer
from tests.models.layouts import LAYOUTS, SMALL, llama
from tests.tiny import tiny_tokenizer

ASK = [{"role": "user", "content": "Say hi."}]
HI = [{"role": "assistant", "content": "Hi!"}]
TEXTS = [" yes", " no, never in all my life", " maybe", " y", " perhaps not"]


@pytest.fixture(scope="module")
def model(tiny_model_dir: str) -> RewardModel:
    torch.manual_seed(1)
    return RewardModel.from_backbone(tiny_model_dir, RewardModelConfig(pooling="mean", head="mlp"))


def scores_of(model: RewardModel, prompt: Any, texts: list[Any], **settings: Any) -> Any:
    return pytest.approx(model.score([prompt] * len(texts), texts, **settings), abs=1e-5)


def test_every_layout_gets_the_scores_of_the_reward_model(model: RewardModel) -> None:
    row: dict[str, Any] = {"id": 3, "prompt": "Well?", "tags": ["a"]}
    single = score_dataset(model, [{**row, "response": text} for text in TEXTS], column="reward")
    assert single.added == ("reward",)
    assert single.rows["reward"][:] == scores_of(model, "Well?", TEXTS)
    assert single.rows.remove_columns("reward").to_list() == [{**row, "response": text} for text in TEXTS]

    pairs = score_dataset(model, [{**row, "chosen": TEXTS[0], "rejected": text} for text in TEXTS[1:]], labels=True)
    assert pairs.rows.column_names == [*row, "chosen", "rejected", "score_chosen", "score_rejected", "label"]
    assert pairs.rows["score_chosen"][:] == scores_of(model, "Well?", TEXTS[:1] * 4)
    assert pairs.rows["score_rejected"][:] == scores_of(model, "Well?", TEXTS[1:])
    gaps = [each["score_chosen"] - each["score_rejected"] for each in pairs.rows.to_list()]
    assert pairs.rows["label"][:] == pytest.approx([1 / (1 + math.exp(-gap)) for gap in gaps])
    assert pairs.figures["agreement"] == sum(gap > 0 for gap in gaps) / 4

    ranking = score_dataset(model, [{**row, "responses": TEXTS}, {**row, "responses": TEXTS[:1]}])
    assert ranking.rows["scores"][0] == scores_of(model, "Well?", TEXTS)
    assert len(ranking.rows["scores"][1]) == 1 and ranking.figures["responses"] == 6

    turns = score_dataset(model, [{"messages": [*ASK, *HI]}])
    assert turns.rows["score"][:] == scores_of(model, ASK, [HI])
    assert "chat template" in turns.figures["template"] and "none" in single.figures["template"]
    values = single.rows["reward"]
    assert single.figures["mean"] == pytest.approx(sum(values) / 5) and single.figures["max"] == max(values)


def test_a_cut_response_is_scored_without_an_end_and_a_long_row_is_cut_and_counted(model: RewardModel) -> None:
    cut = score_dataset(model, [{"prompt": "Well?", "responses": TEXTS[:2], "finished": [False, True]}])
    assert cut.rows["scores"][0] == scores_of(model, "Well?", TEXTS[:2], finished=[False, True])
    assert cut.figures["unfinished"] == 1
    short = score_dataset(model, [{"prompt": "Well?", "response": " yes"}], max_length=8)
    assert (short.figures["prompts_cut"], short.figures["responses_cut"], short.figures["max_length"]) == (1, 0, 8)
    assert short.rows["score"][:] == scores_of(model, "ll?", [" yes"])


class Stop:
    """Progress that stops the job once so many responses are scored."""

    def __init__(self, after: int) -> None:
        self.after = after

    def line(self, text: str, style: str = "") -> None: ...

    def table(self, *args: Any) -> None: ...

    @contextmanager
    def task(self, label: str, total: int) -> Any:
        def advance(done: int, note: str) -> None:
            if done >= self.after:
                raise KeyboardInterrupt

        yield advance


def windowed(seed: int = 0) -> RewardModel:
    """A model whose layout of a row depends on the widest rows on which it compared its layouts."""
    torch.manual_seed(seed)
    settings: Any = {"num_labels": 1, "sliding_window": 60, "pad_token_id": 259}
    config = MistralConfig(**SMALL, num_key_value_heads=2, **settings)
    return RewardModel(MistralForSequenceClassification(config).eval(), tiny_tokenizer())


def test_a_stopped_job_goes_on_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    long = [{"prompt": f"{n:030}", "responses": [f"{n + 7 * k:027}" for k in range(3)]} for n in range(BLOCK // 3 + 1)]
    short = [{"prompt": f"{n:010}", "responses": [f"{n + 7 * k:020}" for k in range(3)]} for n in range(40)]
    data = Dataset.from_list(long + short)

    def score(parts: Parts, progress: Any = None, seed: int = 0) -> list[Any]:
        return score_dataset(windowed(seed), data, parts=parts, progress=progress).rows["scores"][:]

    whole = score(Parts())
    folder = tmp_path / "job"
    with pytest.raises(KeyboardInterrupt):
        score(Parts(folder), Stop(after=BLOCK + 2))
    assert len(list(folder.iterdir())) == 1
    resumed = Parts(folder)
    assert score(resumed) == whole and resumed.found == 1
    assert score(changed := Parts(folder), seed=1) != whole and changed.found == 0, "another model's are not taken"


def test_scores_of_a_normalised_model_are_moved() -> None:
    plain, moved = windowed(), windowed()
    moved.set_normalization(Normalization("a set", rows=2, mean=0.5, std=1.0))
    rows = [{"prompt": "a", "response": text} for text in TEXTS]
    before, after = (score_dataset(model, rows).rows["score"][:] for model in (plain, moved))
    assert after == pytest.approx([score - 0.5 for score in before], abs=1e-5)


def test_labels_are_probabilities_and_a_remark_says_so_also_where_rewards_are_normalised() -> None:
    rows = [{"prompt": f"{n}", "chosen": text, "rejected": " so so"} for n, text in enumerate(TEXTS)]
    plain, normalised = windowed(), windowed()
    normalised.set_normalization(Normalization("a set", rows=5, mean=0.5, std=0.25))
    before, after = (score_dataset(model, rows, labels=True).rows["label"][:] for model in (plain, normalised))
    assert after == pytest.approx(before, abs=1e-5)
    data = read_comparisons(rows)
    scorers = (Scorer("m", model, Output(0, "reward", 1)) for model in (plain, normalised))
    said = [
        [remark for remark in remarks_on_model(each, data, None) if remark.kind == "normalized"] for each in scorers
    ]
    assert not said[0] and "a temperature of 4 " in said[1][0].sentence


def test_any_classifier_scores_a_data_set(tmp_path: Path) -> None:
    """Also encoders, which write texts themselves, and one of several outputs."""
    folders = {name: LAYOUTS[name](tmp_path / name) for name in ("encoder", "ten outputs")}
    rows = [{"prompt": "Well?", "chosen": a, "rejected": b} for a, b in pairwise(TEXTS)]
    for name, output in (("encoder", None), ("ten outputs", "9")):
        scored = score_dataset(folders[name], rows, output=output)
        scorer = load_scorer(folders[name], output=output)
        for side in ("chosen", "rejected"):
            expected = scorer.score(["Well?"] * 4, [row[side] for row in rows])
            assert scored.rows[f"score_{side}"][:] == pytest.approx(expected, abs=1e-5)
        assert scored.figures["output"] == str(scorer.output)
    with pytest.raises(UserError, match=r"ten outputs has 10 outputs .* choose the one that is the reward by output"):
        score_dataset(folders["ten outputs"], rows)
    with pytest.raises(UserError, match="no chat template"):
        score_dataset(folders["encoder"], [{"messages": [*ASK, *HI]}])


def test_a_quantised_model_scores_a_data_set(model: RewardModel, tmp_path: Path) -> None:
    quantization: Any = "4bit"
    model.save_pretrained(tmp_path)
    row = {"prompt": "Well?", "responses": TEXTS}
    scored = score_dataset(str(tmp_path), [row], quantization=quantization, parts=Parts(tmp_path / "parts"))
    quantised = load_reward_model(tmp_path, quantization=quantization)
    assert scored.rows["scores"][0] == pytest.approx(quantised.score(["Well?"] * 5, TEXTS), abs=1e-3)
    assert scored.rows["scores"][0] != scores_of(model, "Well?", TEXTS)
    again = Parts(tmp_path / "parts")
    assert score_dataset(str(tmp_path), [row], quantization=quantization, parts=again).figures == scored.figures
    assert again.found == 1, "quantised again it is the same model"


def test_tokens_that_the_model_lacks_are_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<new>"])
    with pytest.raises(UserError, match=r"^data: row 1 has the token '<new>' \(260\)"):
        score_dataset(RewardModel(llama(), tokenizer), [{"prompt": "a", "response": text} for text in ("b", "<new>")])


def test_scores_that_are_no_numbers_are_refused() -> None:
    class Overflowing(RewardModel):
        def score_ids(self, prompt_ids: Any, response_ids: Any, **_: Any) -> list[float]:
            return [math.nan if len(ids) > 5 else 1.0 for ids in response_ids]

    model = Overflowing(llama(), tiny_tokenizer())
    with pytest.raises(UserError, match=r"^data: 1 rows get a score that is no finite number \(row 1\)"):
        score_dataset(model, [{"prompt": "a", "response": text} for text in TEXTS[:2]])


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ({"text": "a"}, {}, "data has the columns text, and none of these"),
        ({"prompt": "a", "response": "b", "score": 1}, {}, "data has a column score already; rename or remove it, or"),
        ({"prompt": "a", "response": "b"}, {"labels": True}, "labels are for pairs"),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "label": 1},
            {"labels": True},
            "data has a column label already",
        ),
        ({"prompt": "a", "response": ""}, {}, r"data: 1 row has an empty response \(row 0\)"),
        ({"prompt": "a", "response": "b"}, {"max_length": 1}, "max_length must be at least 2"),
        (
            {"messages": [{"role": "tool", "content": "x"}, *HI], "tools": "["},
            {},
            "data: 1 row has tools that are neither",
        ),
    ],
)
def test_mistakes_are_named_before_the_weights_are_loaded(
    row: dict[str, Any], settings: dict[str, Any], message: str, tiny_model_dir: str, tmp_path: Path
) -> None:
    RewardModel.from_backbone(tiny_model_dir).save_pretrained(tmp_path)
    for weights in tmp_path.glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(UserError, match=f"^{message}"):
        score_dataset(str(tmp_path), [row], **settings)
