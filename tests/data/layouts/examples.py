"""Examples of all layouts."""

from tests.data.layouts import (
    argilla_examples,
    battles_examples,
    exports_examples,
    label_studio_examples,
    messages_examples,
    rankings_examples,
    ratings_examples,
    sheets_examples,
    strings_examples,
    trees_examples,
)
from tests.data.layouts.example import Example

EXAMPLES: tuple[Example, ...] = (
    *argilla_examples.EXAMPLES,
    *label_studio_examples.EXAMPLES,
    *exports_examples.EXAMPLES,
    *sheets_examples.EXAMPLES,
    *trees_examples.EXAMPLES,
    *battles_examples.EXAMPLES,
    *strings_examples.EXAMPLES,
    *messages_examples.EXAMPLES,
    *ratings_examples.EXAMPLES,
    *rankings_examples.EXAMPLES,
)
