"""The code on a pushed model's card, run in a new process that has no hf_align, against the stand-in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_align.hub import push_model
from hf_align.models.merging import push_merged
from tests.hub.conftest import environment
from tests.hub.models import trained
from tests.hub.stand_in import StandIn

RUN_ALL = """
import contextlib, gc, io, json, sys
gc.disable()  # imports create no garbage, and collecting takes a fifth of their time
sys.modules["hf_align"] = None  # importing it is an error from here on
printed = {}
for name, code in json.loads(sys.stdin.read()).items():
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, name, "exec"), {})
    printed[name] = output.getvalue()
print(json.dumps(printed))
"""


def snippet(hub: StandIn, repo_id: str) -> str:
    card = hub.repositories[repo_id].files["README.md"].decode()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return code


def continuation(model: Any, tokenizer: Any) -> str:
    """A trained policy's greedy response to the card's prompt."""
    messages = [{"role": "user", "content": "Write one sentence about the sea."}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        output = model.eval().generate(**inputs, max_new_tokens=32, do_sample=False)
    return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.slow
def test_the_cards_code_runs_without_hf_align(hub: StandIn, base: Path, base_on_hub: str, tmp_path: Path):
    code: dict[str, str] = {}
    expected: dict[str, Any] = {}
    for kind in ("reward", "dpo", "ipo", "ppo"):
        trainer = trained(kind, base, tmp_path / kind)
        push_model(tmp_path / kind, kind, base_model=base_on_hub)
        push_merged(tmp_path / kind, f"{kind}-merged", base_model=base_on_hub)
        if kind == "reward":
            prompt = [{"role": "user", "content": "Review the film."}]
            expected[kind] = trainer.model.score([prompt], ["A warm, funny film."])[0]
        else:
            expected[kind] = continuation(trainer.model.model, trainer.processing_class)
        for name in (kind, f"{kind}-merged"):
            code[name] = snippet(hub, f"anna/{name}")
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps(code),
        env=environment(hub, tmp_path / "home"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed = json.loads(done.stdout.splitlines()[-1])
    for name, text in printed.items():
        wanted = expected[name.removesuffix("-merged")]
        if name.startswith("reward"):
            assert float(text) == pytest.approx(wanted, abs=1e-4), name
        else:
            assert text == wanted + "\n", name
    assert len({expected[kind] for kind in ("dpo", "ppo")}) == 2


def test_the_code_of_a_model_without_a_chat_template_runs(hub: StandIn, base: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    trainer = trained("reward", base, tmp_path / "reward", lora=False)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "reward")
    tokenizer.chat_template = None
    (tmp_path / "reward" / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(tmp_path / "reward")
    (tmp_path / "reward" / "model_card.json").unlink()
    (tmp_path / "reward" / "README.md").unlink()
    push_model(tmp_path / "reward", "mine")
    space: dict[str, Any] = {}
    exec(snippet(hub, "anna/mine"), space)
    expected = trainer.model.score(["Review the film."], [" A warm, funny film."])[0]
    assert space["score"]("Review the film.", " A warm, funny film.") == pytest.approx(expected, abs=1e-4)
