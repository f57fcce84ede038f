import dataclasses

import pytest

from docs.make_reference import CONFIGS, FURTHER, PAGE, reference


def test_the_committed_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == reference(), "run `make docs`"


@pytest.mark.parametrize("config", [*CONFIGS, *FURTHER], ids=lambda config: config.__name__)
def test_every_option_is_on_the_page_with_its_help(config: type):
    page = reference()
    base = next(cls for cls in config.__mro__ if not cls.__module__.startswith("hf_align"))
    theirs = {field.name for field in dataclasses.fields(base)} if dataclasses.is_dataclass(base) else set()
    for field in dataclasses.fields(config):
        if field.name not in theirs:
            assert field.metadata["help"], field.name
            assert f"| `{field.name}` |" in page
