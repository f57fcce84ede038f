"""The report on policies as a whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_align import RewardModel, load_policy
from hf_align.errors import UserError
from hf_align.evaluation import policy_report
from hf_align.model_cards.facts import CardFacts
from hf_align.model_cards.files import save_card
from hf_align.model_cards.rewards import head_keys
from hf_align.rewards import Judgement, judge_orders
from hf_align.rollouts import SamplingRequest
from tests.tiny import save_tiny, tiny_model

SECTIONS = [
    *("win_rate", "length_controlled", "scores", "kl", "diversity", "length", "lost_ability", "best_and_worst"),
    "domains",
]
QUICK: dict[str, Any] = {"max_new_tokens": 4, "human_texts": 3, "resamples": 30}


def letters(prompts: list[Any], responses: list[str]) -> list[float]:
    return [float(sum(map(str.isalpha, text))) for text in responses]


def rows(count: int = 6) -> list[dict[str, Any]]:
    return [{"prompt": f"Film {n % 5}?", "domain": "ab"[n % 2], "tone": n} for n in range(count)]


@pytest.fixture(scope="module")
def adapter(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An adapter that writes something else than its base."""
    folder = str(tmp_path_factory.mktemp("policies") / "dpo")
    torch.manual_seed(0)  # before the adapter, which is drawn, too
    model = load_policy(tiny_model_dir, lora=True)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.1)
    model.save_pretrained(folder)
    return folder


def test_an_adapter_is_compared_with_its_base_on_one_backbone(
    adapter: str, tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = str(tmp_path / "base")
    shutil.copytree(tiny_model_dir, copy)
    loaded: list[Any] = []
    load = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM,
        "from_pretrained",
        lambda *a, **k: loaded.append(a) or load(*a, **k),  # type: ignore[func-returns-value]
    )
    report = policy_report([tiny_model_dir, adapter], rows(), judge=letters, **QUICK)
    assert len(loaded) == 1
    apart = policy_report([copy, adapter], rows(), judge=letters, **QUICK)
    assert len(loaded) == 3
    assert list(report.metrics) == SECTIONS and not report.facts["missing"]
    json.dumps([report.metrics, report.facts])
    for section in ("win_rate", "scores", "kl", "diversity", "length", "lost_ability"):
        one, two = (each.metrics[section]["policies"][adapter] for each in (report, apart))
        assert list(one) == list(two)
        for name, value in one.items():
            expected = (
                two[name] if isinstance(value, str) else pytest.approx(two[name], rel=1e-4, abs=1e-5, nan_ok=True)
            )
            assert value == expected, (section, name)
    assert report.samples == [
        {key.replace(copy, tiny_model_dir): value for key, value in row.items()} for row in apart.samples
    ]
    assert report.facts["labels"][adapter] == "dpo" and report.facts["units"] == 5
    kl = report.metrics["kl"]["policies"][adapter]
    assert kl["k3"] > 0 and kl["responses"] == 6
    assert set(report.by_domain) == {"all", "a", "b"} and len(report.samples) == 6
    assert {"few_units", "cut", "template_unused"} <= {remark.kind for remark in report.remarks}


def test_other_vocabularies_have_no_kl_and_ability_per_byte(tiny_model_dir: str, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other")
    file = tmp_path / "other" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocab = tokenizer["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    file.write_text(json.dumps(tokenizer))
    prompts = [[{"role": "user", "content": f"Film {n}?"}] for n in range(3)]
    judges = {"letters": letters, "VADER": "vader"}
    report = policy_report([other], prompts, judge=judges, reference=tiny_model_dir, **QUICK)
    assert report.facts["policies"] == [tiny_model_dir, other] and report.facts["judges"] == ["letters", "VADER"]
    assert "vocabulary is not the reference's" in report.metrics["kl"]["policies"][other]["why"]
    assert report.metrics["lost_ability"]["policies"][other]["unit"] == "byte"
    assert set(report.metrics["win_rate"]["others"]["VADER"]) == {other}
    assert list(report.facts["missing"]) == ["domains"]
    assert "has none: its vocabulary" in str(report) and "Win rates by other judges" in report.to_html()


def test_the_same_weights_and_a_judge_without_opinion_are_called_so(tiny_model_dir: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy")
    shutil.copytree(tiny_model_dir, copy)
    report = policy_report([tiny_model_dir, copy], ["a", "b"], judge=lambda p, r: [1.0] * len(r), **QUICK)
    kinds = [remark.kind for remark in report.remarks]
    assert kinds[:2] == ["constant_scores", "identical"]
    assert report.metrics["win_rate"]["policies"][copy]["win_rate"] == 0.5
    assert report.metrics["kl"]["policies"][copy]["k1"] == 0
    assert report.metrics["lost_ability"]["policies"][copy]["increase"] == 0
    assert str(report).startswith("Unknown: the judge scores all responses alike.")
    alone = policy_report(copy, ["a"], judge=letters, quantization="4bit", **{**QUICK, "human_texts": 0})
    assert alone.facts["quantization"] == "4bit"
    empty = {"win_rate", "length_controlled", "kl", "best_and_worst", "domains", "lost_ability"}
    assert set(alone.facts["missing"]) == empty == {key for key, figures in alone.metrics.items() if figures is None}


def test_judges_of_pairs_give_wins_and_say_how_often_they_contradict_themselves(
    adapter: str, tiny_model_dir: str
) -> None:
    def always_first(prompts: list[Any], firsts: list[str], seconds: list[str]) -> list[Judgement]:
        return judge_orders(lambda *pair: [0.9] * len(pair[0]), prompts, firsts, seconds)

    positions: Any = SimpleNamespace(name="positions", compare=always_first)
    report = policy_report(
        [tiny_model_dir, adapter], rows(), judge={"positions": positions, "letters": letters}, **QUICK
    )
    assert report.metrics["win_rate"]["policies"][adapter]["ties"] == 6
    judged = report.facts["pairs"]["positions"]["judged"]  # equal responses are tied unasked
    assert 0 < judged <= 6 and report.facts["pairs"] == {
        "positions": {"judged": judged, "flipped": judged, "no_opinion": 0}
    }
    said = {remark.kind: remark.sentence for remark in report.remarks}
    assert f"in {judged} of {judged} pairs, which count half" in said["flips"] and "constant_scores" in said
    assert "the probability that a response is better than" in " ".join(str(report.to_html()).split())
    assert report.metrics["win_rate"]["others"]["letters"][adapter]["wins"] > 0
    with pytest.raises(UserError, match="'positions' compares responses, and there is one policy"):
        policy_report(tiny_model_dir, rows(), judge=positions, **QUICK)


def test_a_judge_that_is_the_training_reward_is_said_loudly(adapter: str, tiny_model_dir: str, tmp_path: Path) -> None:
    reward = RewardModel.from_backbone(tiny_model_dir)
    reward.save_pretrained(str(tmp_path / "judge"))
    trained = str(tmp_path / "ppo")
    shutil.copytree(adapter, trained)
    save_card(trained, CardFacts(kind="ppo", name="ppo", rewards={"reward": head_keys(reward), "letters": []}))
    report = policy_report([tiny_model_dir, trained], ["a"], judge=str(tmp_path / "judge"), **QUICK)
    assert report.remarks[0].kind == "judge_is_reward" and "trained on: a policy learns" in report.remarks[0].sentence
    assert "But that is the reward that was trained on." in " ".join(str(report).split())
    assert report.facts["judge"] == "judge", "the last part of a folder"
    by_name = policy_report([tiny_model_dir, trained], ["a"], judge=letters, **QUICK)
    assert by_name.remarks[0].kind == "judge_may_be_reward"
    assert "judge_may_be_reward" not in {
        remark.kind for remark in policy_report([tiny_model_dir, adapter], ["a"], judge=letters, **QUICK).remarks
    }


def test_policies_get_the_prompts_of_training_and_columns_keep_their_names(tiny_model_dir: str, tmp_path: Path) -> None:
    seen: list[str] = []

    def engine(model: Any, request: SamplingRequest) -> list[list[int]]:
        seen.extend(str(request.tokenizer.decode(list(ids))) for ids in request.prompt_ids)
        return [[258] for _ in request.prompt_of]

    policy = str(tmp_path / "policy")
    shutil.copytree(tiny_model_dir, policy)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.chat_template = "{{ tools[0].name }} {{ mood }} " + str(tokenizer.chat_template)
    tokenizer.save_pretrained(policy)
    row = {"tools": [{"name": "clock"}], "chat_template_kwargs": {"mood": "calm"}}
    data = Dataset.from_list([row | {"prompt": [{"role": "user", "content": text}]} for text in ("Hi", "Ho")])
    report = policy_report(policy, data, judge=letters, engine=engine, **QUICK)
    assert len(seen) == 2 and all(text.startswith("clock calm <|im_start|>user\nH") for text in seen)
    assert report.metrics["length"]["policies"][policy]["ended"] == 1
    for name in ("prompt_ids", "response_ids", "finished"):
        with pytest.raises(UserError, match=f"data has a column {name}, which the trainer adds; rename or remove"):
            policy_report(policy, data.add_column(name, [[1]] * 2), judge=letters)  # type: ignore[arg-type]


def test_what_cannot_be_measured_is_refused_before_a_weight_is_loaded(tiny_model_dir: str, tmp_path: Path) -> None:
    (tmp_path / "reward").mkdir()
    RewardModel.from_backbone(tiny_model_dir).save_pretrained(str(tmp_path / "reward"))
    for policies, prompts, options, message in (
        ([tiny_model_dir] * 2, ["a"], {}, r"^model names the same policy twice"),
        ([tiny_model_dir, f"{tiny_model_dir}/."], ["a"], {}, r"^model names the same policy twice"),
        ([], ["a"], {}, r"^policies needs the folder or Hub id"),
        ([tiny_model()], ["a"], {}, r"^policies needs the folder or Hub id"),
        ([tiny_model_dir], [], {}, r"^data has no prompts"),
        ([tiny_model_dir], ["a", " "], {}, r"^data: 1 row has an empty prompt \(row 1\)"),
        ([tiny_model_dir], ["a" * 3000], {}, r"positions and the longest prompt takes"),
        ([tiny_model_dir], ["a"], {"max_new_tokens": 2048}, r"^max_new_tokens is 2048"),
        ([tiny_model_dir], ["a"], {"batch_size": 0}, r"^batch_size is 0"),
        ([tiny_model_dir], ["a"], {"human_texts": -1}, r"^human_texts is -1"),
        ([tiny_model_dir], ["a"], {"judge": None}, r"^judge is missing"),
        ([tiny_model_dir], ["a"], {"judge": {}}, r"^judge is empty"),
        ([tiny_model_dir], ["a"], {"judge": tiny_model_dir}, r"^judge: .* has no reward head"),
        ([tiny_model_dir], ["a"], {"judge": lambda prompts, responses, tone: []}, "asks for 'tone'"),
        ([str(tmp_path / "reward")], ["a"], {}, "is a reward model"),
    ):
        with pytest.raises(UserError, match=message):
            policy_report(policies, prompts, **{"judge": letters, **options})  # type: ignore[arg-type]
