"""Cards: metadata that the Hub's client reads back, and escaped text."""

from __future__ import annotations

import html
import re

import pytest
from huggingface_hub import ModelCard, ModelCardData
from markdown_it import MarkdownIt

from hf_align.errors import UserError
from hf_align.model_cards import CardFacts, Evaluation, as_evaluations, render_card
from hf_align.model_cards.options import describe_loss
from hf_align.model_cards.render import figure, markdown_text
from hf_align.trainers.named_losses import read_losses
from tests.cards import card_data

KINDS = ("sft", "reward", "dpo", "ipo", "ppo", "model")
NASTY = [
    "<script>alert(1)</script>",
    "a | b\n| --- |\n# Not a heading",
    "**bold** _soft_ `code` ~~gone~~ $$x$$",
    "[click](https://evil.example) ![x](https://evil.example/x.png) <https://evil.example>",
    "{{ 7 * 7 }}{% for x in y %}",
    "---\nlicense: stolen\n---",
    "- item\n1. one\n> quoted",
    "&lt;b&gt; C:\\temp snake_case 3.5 -1",
]


def facts(kind: str = "dpo", **changes: object) -> CardFacts:
    values = {
        "kind": kind,
        "name": "tuned",
        "base_model": "org/base",
        "library": "peft",
        "adapter": {"r": 8, "target_modules": ["k_proj", "q_proj"]},
        "conversational": True,
        "license": "mit",
        "language": ["en"],
        "dataset_ids": ["org/pairs"],
        "hyperparameters": {"learning_rate": 5e-5, "margin_mode": "weight"},
        "evaluation": [
            Evaluation("rewards/accuracies", 0.75, (0.7, 0.8), rows=400, dataset_id="org/pairs", split="test"),
            Evaluation("loss", 0.5),
        ],
        "samples": [{"prompt": "Hi", "before": "x", "after": "y", "score": 0.5}],
        "versions": {"torch": "2.13.0"},
    }
    return CardFacts(**{**values, **changes})  # type: ignore[arg-type]


def tables(card: str) -> list[list[list[str]]]:
    """The text of every cell of every table, as a browser shows it."""
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(ModelCard(card).text)
    result = []
    for table in re.findall(r"<table>(.*?)</table>", page, re.DOTALL):
        rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
        result.append([[html.unescape(cell.replace("<br>", "\n")) for cell in row] for row in cells])
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_of_a_card_is_what_the_hub_s_client_reads_back(kind: str):
    data = card_data(render_card(facts(kind), "org/tuned"))
    assert data.pipeline_tag == ("text-classification" if kind == "reward" else "text-generation")
    assert (data.library_name, data.base_model, data.license) == ("peft", "org/base", "mit")
    assert (data.language, data.datasets, data.model_name) == (["en"], ["org/pairs"], "tuned")
    assert "hf-align" in data.tags and (kind in data.tags) == (kind != "model")
    results = data.eval_results
    assert [(row.metric_type, row.metric_name, row.metric_value) for row in results] == [
        ("accuracy", "rewards/accuracies", 0.75),
        ("loss", "loss", 0.5),
    ]
    assert results[0].metric_args == {"interval_95": [0.7, 0.8]}
    assert (results[0].dataset_type, results[0].dataset_split) == ("org/pairs", "test")
    assert isinstance(data, ModelCardData) and ModelCardData(**vars(data)).to_dict() == data.to_dict()


def test_without_an_evaluation_there_is_no_model_index():
    card = render_card(facts(evaluation=[Evaluation("loss", float("nan"))]))
    assert "model-index" not in ModelCard(card).data.to_dict()
    assert "has not been evaluated" in card


@pytest.mark.parametrize("nasty", NASTY)
def test_text_from_data_models_and_users_stays_text(nasty: str):
    card = render_card(
        facts(
            samples=[{"prompt": nasty, "before": nasty, "after": nasty}],
            datasets=[nasty],
            data={nasty: nasty},
            evaluation=[Evaluation(nasty, 1.0, dataset=nasty)],
            hyperparameters={"stop_strings": [nasty]},
        )
    )
    plain = " ".join(nasty.split()) if "\n" not in nasty else nasty
    cells = tables(card)
    assert ["Prompt", "Before", "After"] in [table[0] for table in cells]
    (row,) = [table[1] for table in cells if table[0] == ["Prompt", "Before", "After"]]
    assert row == [plain] * 3
    assert any(table[1] == [plain, plain] for table in cells)
    assert all(len(line) == len(table[0]) for table in cells for line in table)
    assert card_data(card).license == "mit"
    page = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(ModelCard(card).text)
    assert "<script" not in page and "evil.example" not in "".join(re.findall(r"(?:href|src)=\"[^\"]*", page))
    assert not {"<del>", "<s>"} & set(re.findall(r"<\w+>", page))


def test_a_name_cannot_break_out_of_the_code():
    for name in ('a"; import os #', "x\n```\n# y", "a\\"):
        (code,) = re.findall(r"```python\n(.*?)\n```", render_card(facts(name=name)), re.DOTALL)
        compile(code, "card", "exec")
        (line,) = [line for line in code.splitlines() if line.startswith("model_id")]
        space: dict[str, str] = {}
        exec(line, space)
        assert space["model_id"] == name


def test_every_kind_says_how_it_was_trained_and_cites_it():
    texts = {kind: render_card(facts(kind)) for kind in KINDS}
    assert "Bradley-Terry" in texts["reward"] and "bradley1952rank" in texts["reward"]
    assert "multiplies its loss" in render_card(facts("reward", data={"Margin": "mean 2"}))
    assert "rafailov2023direct" in texts["dpo"] and "rafailov2023direct" not in texts["ipo"]
    assert "azar2024general" in texts["ipo"] and "schulman2017proximal" in texts["ppo"]
    assert "of the completions" in texts["sft"] and "vonwerra2020trl" in texts["sft"]
    whole = facts("sft", hyperparameters={"assistant_only_loss": True})
    assert "of the assistant's messages" in " ".join(html.unescape(render_card(whole)).split())
    for text in texts.values():
        assert text.count("## Citations") == 1 and "hu2022lora" in text
        assert "dettmers2023qlora" not in text
        assert "&amp;" not in text
    assert "dettmers2023qlora" in render_card(facts(quantization="4bit"))
    assert "hu2022lora" not in render_card(facts(adapter=None, library="transformers"))


@pytest.mark.parametrize("kind", ["dpo", "ipo", "ppo", "online-dpo"])
def test_a_card_says_that_the_reference_moved(kind: str):
    options = {"sync_ref_model": True, "ref_model_mixup_alpha": 0.6, "ref_model_sync_steps": 64}
    said = "every 64 steps its weights became 0.6"
    assert said in " ".join(render_card(facts(kind, hyperparameters=options)).split())
    assert "reference followed" not in render_card(facts(kind))


def prose(**changes: object) -> str:
    """A reward model's card on one line, as HTML reads."""
    return " ".join(html.unescape(render_card(facts("reward", **changes))).replace("\N{MINUS SIGN}", "-").split())


def test_a_reward_model_s_card_says_which_loss_labels_and_margin_it_was_trained_with():
    plain = prose()
    assert "Trained on pairs of responses" in plain and "sigmoid(r(a) - r(b))" in plain and "over the pairs." in plain
    assert not {"Labels", "smoothing", "margin m", "Besides"} & set(plain.split())
    listwise = prose(rankings=True, hyperparameters={"loss_type": "plackett_luce"})
    assert "Trained on rankings" in listwise and "Plackett-Luce (1975)" in listwise and "plackett1975" in listwise
    assert "bradley1952rank" not in listwise
    assert "over all pairs of each ranking" in prose(rankings=True)
    assert "max(0, m - (r(a) - r(b)))" in prose(hyperparameters={"loss_type": "hinge"})
    hinge: dict[str, object] = {"hyperparameters": {"loss_type": "hinge", "margin_mode": "weight"}}
    assert "m is 1" in prose(**hinge) and "m is the pair's margin" in prose(**hinge, data={"Margin": "mean 2"})
    none: dict[str, object] = {"hyperparameters": {"margin_mode": "none"}, "data": {"Margin": "mean 2"}}
    assert "margin m has no effect" in prose(**none)
    scored: dict[str, object] = {"hyperparameters": {"margin_mode": "shift"}, "data": {"Score": "mean 2"}}
    assert "margin m, the gap of its scores, is subtracted" in prose(rankings=True, **scored)
    assert "share of people who preferred" in prose(labels="soft")
    assert "single people's votes, drawn anew" in prose(labels="drawn")
    assert "wrong with probability 0.1" in prose(hyperparameters={"label_smoothing": 0.1})
    assert "penalty of 0.01" in prose(hyperparameters={"center_rewards_coefficient": 0.01})


def test_a_reward_model_s_card_says_what_else_it_predicts_and_what_was_frozen():
    options = {"task_weights": {"helpful": 0.5}, "freeze_layers": 4, "contrastive_coefficient": 0.2}
    text = prose(
        head="attention",
        outputs={"helpful": "regression", "safe": "binary", "tone": 3},
        projection=True,
        hyperparameters=options,
    )
    assert "`helpful`: a number; its loss has weight 0.5" in text and "`safe`: yes or no; its loss has weight 1" in text
    assert "`tone`: 3 classes" in text and "weighted by attention" in text
    assert "first 4 layers were not trained" in text and "with weight 0.2" in text and "khosla2020" in text


NORMALIZATION = {"name": "held-out pairs", "rows": 200, "mean": 3.0, "std": 2.0, "offset": -1.5}


def test_a_card_says_who_adds_the_offset_of_the_reference_set():
    for library, said in (("peft", "by transformers and peft alone"), ("transformers", "by transformers alone")):
        text = prose(normalization=NORMALIZATION, library=library)
        assert "normalised on held-out pairs (200 rows)" in text and "offset, -1.5, is in `reward_config.json`" in text
        assert said in text and "scores are without it" in text
        assert "without the offset of its reference set" in text and "load_reward_model" in text
    travelling = prose(normalization=NORMALIZATION, library="transformers", head="mlp")
    assert "by hf-align and by the code that travels" in travelling and "without it" not in travelling
    assert "is added by hf-align. D" in prose(normalization=NORMALIZATION, head="mlp")
    assert "offset" not in prose()


@pytest.mark.parametrize("conversational", [True, False])
def test_the_ways_to_load_a_reward_model_are_those_that_work(conversational: bool):
    def ways(**changes: object) -> list[str]:
        card = render_card(facts("reward", conversational=conversational, **changes))
        codes = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
        for code in codes:
            compile(code, "card", "exec")
        names = {"load_reward_model": "ours", "trust_remote_code=True": "code", "PeftModel": "peft"}
        return [next((way for name, way in names.items() if name in code), "plain") for code in codes]

    whole: dict[str, object] = {"library": "transformers", "adapter": None}
    assert ways() == ["peft"] and ways(**whole) == ["plain"]
    assert ways(head="mlp") == ways(own_class=True) == ways(outputs={"a": 2}) == ["ours"]
    assert ways(pooling="mean", **whole) == ways(own_class=True, **whole) == ["ours", "code"]
    assert ways(projection=True, outputs={"a": "binary"}, **whole) == ["ours", "code"]
    assert ways(head="attention", **whole) == (["ours", "code"] if conversational else ["ours"])
    assert ways(normalization=NORMALIZATION, **whole) == ["plain", "ours"]


def test_tables_have_their_columns():
    cells = tables(render_card(facts()))
    (evaluation,) = [table for table in cells if table[0][0] == "Data"]
    assert evaluation[1] == ["held-out rows (test)", "rewards/accuracies", "0.75", "0.7 to 0.8", "400"]
    assert evaluation[2] == ["held-out rows", "loss", "0.5", "", ""]
    (samples,) = [table for table in cells if table[0][0] == "Prompt"]
    assert samples == [["Prompt", "Before", "After", "Score"], ["Hi", "x", "y", "0.5"]]
    only_after = tables(render_card(facts(samples=[{"prompt": "Hi", "after": "y"}])))
    assert [["Prompt", "Response"], ["Hi", "y"]] in only_after


@pytest.mark.parametrize(
    ("options", "method", "text", "cited"),
    [
        ({}, "PPO with a value head", "generalised advantage estimation", "schulman2017proximal"),
        (
            {"baseline": "group"},
            "RLOO with a penalty",
            "minus the mean of the prompt's other responses",
            "ahmadian2024",
        ),
        (
            {"baseline": "group", "group_scaling": True, "policy_loss": "reinforce"},
            "GRPO with a penalty",
            "divided by the standard deviation",
            "shao2024",
        ),
        (
            {"baseline": "none", "policy_loss": "reinforce"},
            "REINFORCE with a penalty",
            "the return as A",
            "ziegler2019",
        ),
    ],
)
def test_a_card_says_which_policy_gradient_it_was(options: dict[str, object], method: str, text: str, cited: str):
    card = " ".join(render_card(facts("ppo", hyperparameters={"learning_rate": 1e-5, **options})).split())
    assert method in card and text in card and cited in card
    assert ("without a value head" in card) is ("baseline" in options)
    assert ("clip(r," in card) is (options.get("policy_loss") != "reinforce")


def test_facts_survive_json():
    import json

    whole = facts("ppo", value_head="shared")
    again = CardFacts.from_dict(json.loads(json.dumps(whole.to_dict())))
    assert again == whole
    assert CardFacts.from_dict({**whole.to_dict(), "from_a_later_version": 1}) == whole


def test_figures_are_taken_as_users_give_them():
    assert as_evaluations({"win rate": 1}) == [Evaluation("win rate", 1.0)]
    assert as_evaluations([{"metric": "r", "value": 0.5, "interval": [0.4, 0.6]}]) == [Evaluation("r", 0.5, (0.4, 0.6))]
    with pytest.raises(UserError, match=r"evaluation\[0\] has an unknown 'valeu'"):
        as_evaluations([{"metric": "r", "valeu": 0.5}])
    with pytest.raises(UserError, match=r"evaluation\[1\] has no metric or no value"):
        as_evaluations([{"metric": "r", "value": 0.5}, {"metric": "r"}])


def test_numbers_and_times_read_well():
    assert [figure(value) for value in (1024, 5e-5, 0.25, True, ["a", 2], "x")] == [
        "1,024",
        "5e-05",
        "0.25",
        "True",
        "a, 2",
        "x",
    ]
    assert markdown_text("snake_case 3.5 -1") == "snake_case 3.5 -1"


def test_a_card_has_the_losses_of_its_pairs():
    def card_of(loss_type: str | list[str], kind: str = "dpo") -> str:
        losses = [describe_loss(each) for each in read_losses(loss_type)]
        return " ".join(ModelCard(render_card(facts(kind, losses=losses))).text.split())

    simpo = card_of("simpo")
    assert "with SimPO" in simpo and "`-log sigmoid(beta (p+ / |y+| - p- / |y-|) - gamma)`" in simpo
    assert "There is no reference" in simpo and "arxiv.org/abs/2405.14734" in simpo and "rafailov" not in simpo
    both = card_of(["sigmoid", "sft"])
    assert "with DPO and NLL" in both and "the weighted sum of these losses" in both and "The reference is" in both
    assert "h = r+ - r-" in both and "h = r+ - r-" not in simpo
    own = card_of("operator:attrgetter", "online-dpo")
    assert "attrgetter" in own and "a function of its trainer's" in own and "Guo et al., 2024" in own
    assert all(
        "rafailov2023direct" in card_of(each) and "Papers" not in card_of(each) for each in ("sigmoid", ["sigmoid"])
    )
