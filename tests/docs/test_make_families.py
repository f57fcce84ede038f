from docs.make_families import COLUMNS, PAGE, page
from tests.integration import test_families


def test_the_committed_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


def test_the_pages_columns_are_the_tests():
    assert list(COLUMNS) == list(test_families.COLUMNS)
