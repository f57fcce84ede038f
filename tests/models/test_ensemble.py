"""A member of an ensemble scores as it does alone, however members share a backbone and wherever they were saved."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig

from hf_align import RewardEnsemble, RewardModel, load_policy, load_reward_model
from hf_align.errors import UserError
from hf_align.layout.branches import build_branches
from hf_align.models.aggregation import aggregate
from hf_align.models.fitted_aggregation import Stacking
from hf_align.models.reward_adapter import SharedRewardModel
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.weight_average import weight_average
from hf_align.rewards import AdapterReward
from tests.models.layouts import pair_tokenizer
from tests.tiny import save_tiny, tiny_model

PROMPTS = ["Write a tweet.", "Write two tweets.", "Review this film at some length.", "Hi"]
RESPONSES = [" So happy!", " Dull, dull, dull.", " A joy.", " Hello there."]
ROWS = [{"prompt": f"Review {n}.", "chosen": f" Warm, {n}.", "rejected": f" Dull, {n * n}."} for n in range(12)]
CONFIGS = (RewardModelConfig(), RewardModelConfig(pooling="mean", head="mlp"), RewardModelConfig(head="attention"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("ensemble") / "base")


def adapters(base: str, count: int = 3, **settings: Any) -> list[RewardModel]:
    """Members of different ranks, layers, heads and poolings on one base."""
    models = []
    for number, target in enumerate((["q_proj"], ["v_proj", "down_proj"], ["o_proj"])[:count]):
        torch.manual_seed(number)
        lora = LoraConfig(r=2 + number, target_modules=target, init_lora_weights=False, lora_dropout=0.5)
        models.append(RewardModel.from_backbone(base, CONFIGS[number], lora=lora, **settings).eval())
    return models


def heads(base: str) -> list[RewardModel]:
    """Members that are different heads on one base."""
    models = []
    for number, config in enumerate(CONFIGS):
        torch.manual_seed(number)
        models.append(RewardModel.from_backbone(base, config))
    return models


def scores(model: Any) -> list[float]:
    return model.score(PROMPTS, RESPONSES)


def scored_by_pair(model: Any) -> list[float]:
    return [model.score([prompt], [response])[0] for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]


Saved = tuple[Path, list[RewardModel], list[list[float]]]


def save_normalised(folder: Path, members: list[RewardModel]) -> Saved:
    for number, model in enumerate(members):
        model.normalize(ROWS, "twelve pairs")
        model.save_pretrained(folder / f"{number}")
    return folder, members, [scores(model) for model in members]


@pytest.fixture(scope="module")
def on_one_base(base: str, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Normalised members with adapters, in folders and in memory, and their scores alone."""
    return save_normalised(tmp_path_factory.mktemp("adapters"), adapters(base))


@pytest.fixture(scope="module")
def with_heads(base: str, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return save_normalised(tmp_path_factory.mktemp("heads"), heads(base))


@pytest.fixture(scope="module")
def members(on_one_base: Saved) -> list[Any]:
    """Members of an ensemble, normalised, on one backbone."""
    return RewardEnsemble([on_one_base[0] / f"{number}" for number in range(3)]).members


@pytest.mark.parametrize("kind", ["adapters", "heads"])
def test_a_member_is_to_the_bit_what_it_is_alone(kind: str, request: pytest.FixtureRequest):
    """Of folders and of models in memory, together and by itself; in other batches but for float32's rounding."""
    folder, alone, expected = request.getfixturevalue("on_one_base" if kind == "adapters" else "with_heads")
    for sources in ([folder / f"{number}" for number in range(3)], list(alone)):
        ensemble = RewardEnsemble(sources, "median")
        assert ensemble.kind == kind and len({id(member.model) for member in ensemble.members}) == 1
        assert ensemble.member_scores(PROMPTS, RESPONSES).tolist() == expected
        assert scores(ensemble) == torch.tensor(expected).median(0).values.tolist()
        for member, model, wanted in zip(ensemble.members, alone, expected, strict=True):
            assert scores(member) == wanted and member.normalization == model.normalization
            assert scored_by_pair(member) == pytest.approx(wanted, rel=2e-6, abs=5e-6)
    assert [scores(model) for model in alone] == expected
    shared = [PROMPTS[0]] * 4  # responses are branches
    assert ensemble.member_scores(shared, RESPONSES).tolist() == [model.score(shared, RESPONSES) for model in alone]


@pytest.mark.parametrize("kind", ["adapters", "heads"])
def test_a_member_is_what_it_is_alone_in_every_layout(kind: str, request: pytest.FixtureRequest):
    """Branches, plain rows, packed rows, padding on either side, and under autocast."""
    folder, alone, expected = request.getfixturevalue("on_one_base" if kind == "adapters" else "with_heads")
    ensemble = RewardEnsemble([folder / f"{number}" for number in range(3)]).eval()
    documents = [([5, 6, 7, 8], [[9, 10, 258], [11, 258]]), ([5, 6], [[7, 258]]), ([9] * 9, [[4, 4, 258], [8, 258]])]
    branches = build_branches(documents, pad_token_id=259)
    for batch in (branches, branches.as_separate(), build_branches(documents, pad_token_id=259, row_tokens=40)):
        with torch.no_grad():
            for member, model in zip(ensemble.members, alone, strict=True):
                assert torch.equal(member(batch), model(batch))
    for member in ensemble.members:
        member.tokenizer.padding_side = "left"
    assert ensemble.member_scores(PROMPTS, RESPONSES).tolist() == expected
    with torch.autocast("cpu", torch.bfloat16):
        assert ensemble.member_scores(PROMPTS, RESPONSES).tolist() == [scores(model) for model in alone]


@pytest.mark.parametrize("kind", ["adapters", "heads"])
def test_a_saved_ensemble_and_each_of_its_members_load_the_same(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
):
    folder, _, expected = request.getfixturevalue("on_one_base" if kind == "adapters" else "with_heads")
    RewardEnsemble([folder / f"{number}" for number in range(3)], "min").save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "notes.txt").write_text("mine")
    loaded = RewardEnsemble.from_pretrained(tmp_path / "saved")
    assert (loaded.method, loaded.kind) == ("min", kind)
    assert loaded.member_scores(PROMPTS, RESPONSES).tolist() == expected
    loaded.save_pretrained(tmp_path / "saved")  # over itself
    assert (tmp_path / "saved" / "notes.txt").read_text() == "mine"
    for number, wanted in enumerate(expected):
        member = load_reward_model(tmp_path / "saved" / f"member-{number}")
        assert type(member) is RewardModel and scores(member) == wanted
    assert not list((tmp_path / "saved").rglob("member-*/README.md"))


SCORE = """
import json, sys
from hf_align import RewardEnsemble
folder, prompts, responses = json.load(sys.stdin)
print(json.dumps(RewardEnsemble.from_pretrained(folder).member_scores(prompts, responses).tolist()))
"""


@pytest.mark.slow
def test_a_saved_ensemble_gives_the_same_scores_in_a_new_process(on_one_base: Saved, members: Any, tmp_path: Path):
    RewardEnsemble(list(members)).save_pretrained(tmp_path / "saved")
    given = json.dumps([str(tmp_path / "saved"), PROMPTS, RESPONSES])
    ran = subprocess.run([sys.executable, "-c", SCORE], input=given, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout.splitlines()[-1]) == on_one_base[2]


@pytest.mark.parametrize(
    "settings",
    [
        {"quantization": "4bit"},
        pytest.param({"quantization": "8bit"}, marks=pytest.mark.slow),
        {"dtype": torch.bfloat16},
    ],
    ids=["4bit", "8bit", "bf16"],
)
def test_members_share_a_quantised_base_and_one_in_16_bits(base: str, tmp_path: Path, settings: dict[str, Any]):
    alone = adapters(base, 2, **settings)
    RewardEnsemble(alone).save_pretrained(tmp_path / "saved")
    ensemble = RewardEnsemble.from_pretrained(tmp_path / "saved", **settings)
    assert ensemble.kind == "adapters"
    assert ensemble.member_scores(PROMPTS, RESPONSES).tolist() == [scores(model) for model in alone]


def test_members_of_other_bases_read_the_same_texts_in_their_tokens(base: str, tmp_path: Path):
    other = save_tiny(tmp_path / "other", seed=3)
    small = tiny_model(4, vocab_size=259, eos_token_id=257, bos_token_id=256, pad_token_id=258)
    small.save_pretrained(tmp_path / "small")
    tokenizer = pair_tokenizer(eos_token="[SEP]")
    tokenizer.save_pretrained(tmp_path / "small")
    bases = (base, other, str(tmp_path / "small"))
    alone = [adapters(each, 1)[0] for each in bases] + adapters(base, 2)[1:]
    ensemble = RewardEnsemble(alone)
    assert ensemble.kind == "mixed" and not ensemble.takes_ids
    assert ensemble.members[3].model is ensemble.members[0].model
    assert [type(member) for member in ensemble.members] == [RewardModel] * 3 + [SharedRewardModel]
    expected = [scores(model) for model in alone]
    assert ensemble.member_scores(PROMPTS, RESPONSES).tolist() == expected
    with pytest.raises(UserError, match="different tokenizers; score texts"):
        ensemble.score_ids([[1]], [[2]])
    assert alone[3].normalization is None  # the ensemble has a copy
    assert ensemble.normalize(ROWS, "pairs")[3] == alone[3].normalize(ROWS, "pairs")
    assert ensemble.normalization == alone[0].normalization
    ensemble.save_pretrained(tmp_path / "saved")
    assert torch.equal(
        RewardEnsemble.from_pretrained(tmp_path / "saved").member_scores(PROMPTS, RESPONSES),
        ensemble.member_scores(PROMPTS, RESPONSES),
    )


def test_a_base_is_shared_by_its_weights_and_only_then(base: str):
    def model(init: Any = False, bias: Any = "none") -> RewardModel:
        lora = LoraConfig(r=2, init_lora_weights=init, bias=bias, target_modules=["q_proj"])
        return RewardModel.from_backbone(base, lora=lora)

    changed = model()
    cast(Any, changed.model).get_base_model().model.layers[1].mlp.up_proj.weight.data[0, 16] += 1
    alone = [model(), changed, model(bias="lora_only"), model(init="pissa")]
    ensemble = RewardEnsemble(alone)
    assert ensemble.members == alone and ensemble.kind == "models"
    head, moved, other = (RewardModel.from_backbone(base) for _ in range(3))
    cast(Any, moved.model).model.norm.weight.data[3] += 1e-3
    assert RewardEnsemble([head, moved, other]).members[:2] == [head, moved]
    assert RewardEnsemble([head, other]).kind == "heads"


def test_methods_that_compare_members_want_them_on_one_scale(base: str, caplog: pytest.LogCaptureFixture):
    members = RewardEnsemble(adapters(base)).members
    for method in ("median", "trimmed_mean", "min", "uncertainty_weighted", "dynamic"):
        with pytest.raises(UserError, match=rf"aren't normalised on one set.*method='{method}'.*normalize\(rows"):
            scores(RewardEnsemble(members, method, trim=0.4))
    ensemble = RewardEnsemble(members)
    cast(Any, logging.Logger).warning_once.cache_clear()  # another test may have had the warning before
    with caplog.at_level(logging.WARNING):
        assert scores(ensemble) == ensemble.member_scores(PROMPTS, RESPONSES).mean(0).tolist()
    assert "aren't normalised on one set" in caplog.text
    with caplog.at_level(logging.WARNING):
        RewardEnsemble(members, "mean").score(PROMPTS, RESPONSES, return_uncertainty=["std"])
    assert "std is of these scales more than of what members disagree on" in caplog.text
    with pytest.raises(UserError, match="entropy and variance_ratio compare them with that set's mean"):
        ensemble.score(PROMPTS, RESPONSES, return_uncertainty=True)
    for member, name in zip(members, ("one", "other", "other"), strict=True):
        member.normalize(ROWS, name)
    ensemble = RewardEnsemble(members, "min")
    with pytest.raises(UserError, match="normalize"):
        scores(ensemble)
    ensemble.normalize(ROWS, "twelve pairs")
    sides = [([row["prompt"] for row in ROWS], [row[side] for row in ROWS]) for side in ("chosen", "rejected")]
    values = torch.cat([ensemble.member_scores(*side) for side in sides], 1)
    torch.testing.assert_close(values.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(values.std(1, correction=0), torch.ones(3), atol=1e-5, rtol=0)
    assert scores(ensemble) == ensemble.member_scores(PROMPTS, RESPONSES).amin(0).tolist()


def test_uncertainty_is_what_it_is_asked_for(members: list[Any]):
    ensemble = RewardEnsemble(members, "uncertainty_weighted")
    of_members = ensemble.member_scores(PROMPTS, RESPONSES)
    expected = aggregate(of_members, "uncertainty_weighted").tolist()
    values, uncertainty = ensemble.score(PROMPTS, RESPONSES, return_uncertainty=True)
    assert values == expected and set(uncertainty) == {"std", "entropy", "variance_ratio", "mc_dropout"}
    assert uncertainty["std"] == pytest.approx(of_members.std(0, correction=0).tolist())
    assert min(uncertainty["mc_dropout"]) > 1e-3
    odds = torch.tensor([[member.log_odds] for member in ensemble.members])
    p = (of_members * odds).sigmoid().mean(0)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    assert uncertainty["entropy"] == pytest.approx(entropy.tolist(), abs=1e-5)
    assert ensemble.score(PROMPTS, RESPONSES, return_uncertainty=["std"])[1].keys() == {"std"}
    assert ensemble.score(PROMPTS, RESPONSES) == expected  # dropout is off again
    with pytest.raises(UserError, match="'spread'; use True, or some of std, entropy"):
        ensemble.score(PROMPTS, RESPONSES, return_uncertainty=["spread"])


@pytest.mark.parametrize("method", ["stacking", pytest.param("dynamic", marks=pytest.mark.slow)])
def test_a_fitted_method_is_saved_with_the_ensemble(members: list[Any], tmp_path: Path, method: str):
    ensemble = RewardEnsemble(members, method)
    with pytest.raises(UserError, match=f"method='{method}' isn't fitted; call fit"):
        ensemble.score(PROMPTS, RESPONSES)
    assert ensemble.fit(ROWS) is ensemble
    expected = ensemble.score(PROMPTS, RESPONSES)
    if method == "stacking":
        fitted = cast(Stacking, ensemble.aggregator)
        assert ensemble.log_odds == 1.0
        weights = ensemble.member_scores(PROMPTS, RESPONSES).T @ fitted.weight + fitted.bias
        assert expected == pytest.approx(weights.tolist(), abs=1e-5)
    ensemble.save_pretrained(tmp_path / "saved")
    loaded = RewardEnsemble.from_pretrained(tmp_path / "saved")
    assert loaded.score(PROMPTS, RESPONSES) == expected
    assert ensemble.aggregator is not None and loaded.log_odds == ensemble.aggregator.log_odds
    loaded.normalize(ROWS, "the same rows")
    assert loaded.aggregator is None  # of another scale
    with pytest.raises(UserError, match="method='mean' has nothing to fit"):
        RewardEnsemble(members).fit(ROWS)


def test_averaged_weights_score_in_place_of_the_members(base: str, tmp_path: Path):
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    alone = [RewardModel.from_backbone(base, lora=lora) for _ in range(2)]
    ensemble = RewardEnsemble(alone, "weight_average", [1.0, 3.0])
    ensemble.normalize(ROWS, "twelve pairs")
    expected = scores(weight_average(ensemble.members, [1.0, 3.0]))
    values, uncertainty = ensemble.score(PROMPTS, RESPONSES, return_uncertainty=["std"])
    assert scores(ensemble) == values == expected
    of_members = ensemble.member_scores(PROMPTS, RESPONSES)
    assert uncertainty["std"] == pytest.approx(of_members.std(0, correction=0).tolist())
    ensemble.save_pretrained(tmp_path / "saved")
    loaded = RewardEnsemble.from_pretrained(tmp_path / "saved")
    assert scores(loaded) == expected and torch.equal(loaded.member_scores(PROMPTS, RESPONSES), of_members)


def test_prompts_are_weighed_by_the_bases_state_of_their_last_token(base: str, members: list[Any]):
    ensemble = RewardEnsemble(members, "dynamic")
    ids = [list(map(int, ensemble.tokenizer(prompt)["input_ids"])) for prompt in PROMPTS]
    with torch.no_grad():
        model = load_policy(base).model
        expected = torch.stack([model(torch.tensor([each])).last_hidden_state[0, -1] for each in ids])
    states = ensemble._prompt_states(ensemble._passes.encode((PROMPTS, RESPONSES, None, None)))
    torch.testing.assert_close(states, expected, atol=1e-4, rtol=1e-4)


def test_error_correlation_is_that_of_wrong_orders_and_stays_with_the_ensemble(
    on_one_base: Saved, members: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    ensemble = RewardEnsemble([*members, on_one_base[0] / "0"])
    rows = [{"prompt": f"{n}", "chosen": f" {n * n}", "rejected": f" {n + 1}."} for n in range(24)]
    with caplog.at_level(logging.WARNING):
        measured = ensemble.error_correlation(rows, "24 pairs")
    first = ensemble.member_scores([row["prompt"] for row in rows], [row["chosen"] for row in rows])
    second = ensemble.member_scores([row["prompt"] for row in rows], [row["rejected"] for row in rows])
    wrong = (first < second).double()
    torch.testing.assert_close(torch.tensor(measured.matrix), torch.corrcoef(wrong).float(), atol=1e-6, rtol=0)
    assert measured.errors == pytest.approx(wrong.mean(1).tolist()) and measured.pairs == 24
    assert (0, 3) in measured.high and "0 and 3 (1.00)" in caplog.text
    ensemble.save_pretrained(tmp_path / "saved")
    assert RewardEnsemble.from_pretrained(tmp_path / "saved").measured_errors == measured
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "24 pairs" in card and f"{measured.mean:.4g}" in card


def test_any_object_that_scores_is_a_member(base: str, on_one_base: Saved, tmp_path: Path):
    folder, _, expected = on_one_base
    policy = load_policy(base, lora=LoraConfig(r=2, target_modules=["k_proj"], init_lora_weights=False))
    ensemble = RewardEnsemble([AdapterReward(policy, folder / f"{number}") for number in range(2)], "min")
    values = ensemble.member_scores(PROMPTS, RESPONSES)
    torch.testing.assert_close(values, torch.tensor(expected[:2]), atol=1e-4, rtol=1e-4)
    assert ensemble.takes_ids and scores(ensemble) == values.amin(0).tolist()
    with pytest.raises(UserError, match="Member 0 is a AdapterReward, which can't be saved"):
        ensemble.save_pretrained(tmp_path / "saved")


def test_whoever_loads_one_model_says_what_to_do_with_an_ensemble(members: list[Any], tmp_path: Path):
    RewardEnsemble(members).save_pretrained(tmp_path / "saved")
    for load in (load_reward_model, load_policy, RewardModel.from_backbone):
        with pytest.raises(UserError, match=r"holds an ensemble.*RewardEnsemble.from_pretrained.*member-0"):
            load(tmp_path / "saved")


def test_what_no_ensemble_can_be_made_of_is_refused(base: str, tmp_path: Path):
    reward = RewardModel.from_backbone(base)
    for members, message in (
        (reward, "a single reward model; give a list"),
        ([reward, reward], "in members twice"),
        ([reward, 3], r"members\[1\] is a int"),
        ([base], "reward head"),
        ([], "members is empty"),
    ):
        with pytest.raises(UserError, match=message):
            RewardEnsemble(cast(Any, members))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and holds no ensemble"):
        RewardEnsemble([reward]).save_pretrained(tmp_path / "full")
    RewardEnsemble([reward]).save_pretrained(tmp_path / "saved")
    with pytest.raises(UserError, match="is an ensemble itself"):
        RewardEnsemble([tmp_path / "saved"])
    file = tmp_path / "saved" / "ensemble.json"
    content = json.loads(file.read_text())
    for change, message in (
        ({"members": ["../secret"]}, "not a list of folders"),
        ({"members": ["member-7"]}, "no folder member-7"),
        ({"format": 99}, "later hf-align"),
        ({"trim": None, "members": []}, "not a list of folders"),
        ({"trim": "x"}, "its trim is 'x', not a number"),
        ({"uncertainty_coef": None}, "its uncertainty_coef is None, not a number"),
        ({"weights": ["a"]}, "not a list of numbers"),
        ({"method": "stacking", "fitted": True}, "aggregator.safetensors as what was fitted"),
    ):
        file.write_text(json.dumps(content | change))
        with pytest.raises(UserError, match=message):
            RewardEnsemble.from_pretrained(tmp_path / "saved")
    with pytest.raises(UserError, match=r"holds no ensemble: it has no ensemble\.json"):
        RewardEnsemble.from_pretrained(base)
    with pytest.raises(UserError, match="neither a folder nor a Hub id of an ensemble"):
        RewardEnsemble.from_pretrained(str(tmp_path / "nowhere"))
