"""The page of findings is current, and knows every kind."""

from docs.make_findings import MEANINGS, PAGE, page
from hf_align.data.inspection.inspect import MODULES


def test_the_committed_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


def test_every_kind_has_a_name_of_its_own_and_its_section_s_key() -> None:
    kinds = [(section, kind) for section, module in MODULES.items() for kind in module.KINDS]
    assert len({kind.name for _, kind in kinds}) == len(kinds)
    assert [(section, kind.name) for section, kind in kinds if kind.section != section] == []
    assert {kind.name for _, kind in kinds} == set(MEANINGS), "a meaning without a kind, or the reverse"
