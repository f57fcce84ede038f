"""The Python of the how-to pages runs unchanged, with a tiny model in place of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_align import RewardModel
from hf_align.coerce import coerce
from hf_align.experiments.recipe import read_recipe
from hf_align.feedback import Constitution, PreferenceStore, Prompt, Response, Task
from hf_align.feedback.judges.named import KINDS
from tests.docs.pages import DOCS, blocks
from tests.feedback.judges.endpoint.stand_in import StandIn


def python(page: str) -> str:
    return "\n".join(text for language, _, text in blocks(DOCS / "how-to" / page) if language == "python")


def test_a_collection_lays_out_tasks_of_which_models_answer_theirs(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("ORG").mkdir()
    Path("ORG/MODEL").symlink_to(tiny_model_dir)
    RewardModel.from_backbone(tiny_model_dir).save_pretrained("out/reward")
    names = {"rows": [{"prompt": "Name a fruit."}] * 2, "prefer": lambda prompt, first, second: 1.0}
    exec(compile(python("collect.md"), "collect.md", "exec"), names)
    answers, tasks = list(names["store"].answers()), names["store"].tasks()
    assert tasks and {answer.annotator for answer in answers} == {"reward", "judge"}
    assert set(names["result"].waiting) == set(tasks)  # for anna
    names["store"].close()


def test_a_constitution_makes_demonstrations_and_preferences(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("ORG").mkdir()
    Path("ORG/MODEL").symlink_to(tiny_model_dir)
    names: dict = {"rows": [{"prompt": f"Name a fruit with {n} letters."} for n in (3, 5)]}
    exec(compile(python("constitution.md"), "constitution.md", "exec"), names)
    assert names["data"].figures["prompts"]["repeated"] == 0 and Path("out/constitution/steps.jsonl").exists()


def test_judges_compare_are_calibrated_and_measured(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))  # the variable was read at import
    Path("HuggingFaceTB").mkdir()
    Path("HuggingFaceTB/SmolLM2-1.7B-Instruct").symlink_to(tiny_model_dir)
    text = python("judge.md").replace("max_pairs=400", "max_pairs=40, resamples=20")
    names: dict = {"prompts": ["Name a fruit."] * 2, "firsts": ["Apple.", "A pear."], "seconds": ["Stone.", "Apple."]}
    with StandIn().running() as endpoint:
        exec(compile(text.replace("http://localhost:8000/v1", endpoint.url), "judge.md", "exec"), names)
    assert abs(names["bias"].effect_after) < 1e-6 and names["bias"].pairs == 2
    assert len(names["judgements"]) == 2 and Path("judge.html").exists()


def test_the_judges_of_the_page_are_named_by_their_keys(tmp_path: Path):
    kinds = []
    for language, _, text in blocks(DOCS / "how-to" / "judge.md"):
        if language == "yaml":
            (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
            for entry in read_recipe(str(tmp_path / "recipe.yaml"), []).values["annotators"]:
                if isinstance(judge := entry["judge"], dict):
                    [kind] = [kind for kind in KINDS if kind in judge]
                    assert all(coerce(value, KINDS[kind].keys[key]) == value for key, value in judge.items())
                    kinds.append(kind)
    assert set(kinds) == set(KINDS)


def test_the_constitution_of_the_page_is_one(tmp_path: Path):
    texts = [text for language, _, text in blocks(DOCS / "how-to" / "constitution.md") if language == "yaml"]
    (text,) = (text for text in texts if text.startswith("principles:"))
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    kind, doctor = Constitution.from_yaml(tmp_path / "mine.yaml").principles
    assert (kind.weight, doctor.domains) == (2.0, ("health",))


def test_the_page_of_a_notebook_is_served_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    store = PreferenceStore("sqlite:///prefs.db")
    prompt = Prompt("Name a fruit.")
    both = [Response(prompt.id, text, "me") for text in ("Apple.", "Stone.")]
    store.add(prompts=[prompt], responses=both, tasks=[Task.of(*both)])
    names: dict = {}
    exec(compile(python("annotate.md"), "annotate.md", "exec"), names)
    assert names["page"].url.startswith("http://127.0.0.1:")
    store.close()
