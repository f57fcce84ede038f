import argparse
from pathlib import Path
from typing import Any

import pytest

from hf_align.cli.hints import nearest_flag, with_place
from hf_align.errors import LoadError, UserError

RECIPE = "model: out/sft\nbeta: -1\nlora: {r: 0}\nreward: [{reward: out/reward, weight: 2}]\n"


def parsed(*arguments: str, **others: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"takes_fields": False, "arguments": list(arguments), **others})


@pytest.mark.parametrize(
    ("flag", "expected"),
    [("--max_new_tokens", "--max-new-tokens"), ("--dry-rnu", "--dry-run"), ("--h", None), ("--beta", None)],
)
def test_the_nearest_flag(flag: str, expected: str | None) -> None:
    assert nearest_flag(flag, ["-h", "--help", "--max-new-tokens", "--dry_run", "--dry-run"]) == expected


def test_what_cannot_be_loaded_is_named_by_its_flag() -> None:
    error = LoadError("Nothing there.", "out/sft")
    assert with_place(error, parsed("evaluate", "--model", "m", "--model", "out/sft")) == "--model: Nothing there."
    assert with_place(error, parsed("evaluate", "--judge=out/sft")) == "--judge: Nothing there."
    assert with_place(error, parsed("push", "out/sft", "REPO")) == "Nothing there."
    assert with_place(error, None) == "Nothing there."


def test_arguments_in_a_message_are_a_command_s_flags() -> None:
    options = parsed("evaluate", output=None, across_prompts=False)
    message = "data has none: choose by output=NAME, or compare with across_prompts=True (see prompt=x)."
    expected = "data has none: choose by --output NAME, or compare with --across-prompts (see prompt=x)."
    assert with_place(UserError(message), options) == expected
    python = "out exists; add --output NAME (in Python output=NAME)"
    assert with_place(UserError(python), options) == python
    assert with_place(UserError(message), parsed("dpo", takes_fields=True, config=None, fields=[])) == message


def test_the_line_of_a_recipe_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    options = parsed("dpo", "--config", str(path), takes_fields=True, config=str(path), fields=["--seed", "-1"])
    for error, expected in (
        (UserError("beta is -1; it must be above 0."), f"{path}, line 2: beta is -1; it must be above 0."),
        (UserError("lora.r is 0."), f"{path}, line 3: lora.r is 0."),
        (UserError("seed is -1."), "--seed is -1."),
        (UserError("max_steps is 0."), "max_steps is 0."),
        (UserError(f"{path}, line 2: beta is odd"), f"{path}, line 2: beta is odd"),
        (LoadError("Nothing there.", "out/sft"), f"{path}, line 1: model: Nothing there."),
        (LoadError("Nothing there.", "out/reward"), f"{path}, line 4: reward: Nothing there."),
        (LoadError("No base.", "elsewhere"), "No base."),
    ):
        assert with_place(error, options) == expected
    path.write_text("- no\n- recipe\n")
    assert with_place(UserError("beta is -1."), options) == "beta is -1."
