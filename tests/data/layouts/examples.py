"""Examples of all layouts."""

from tests.data.layouts import (
    battles_examples,
    messages_examples,
    rankings_examples,
    ratings_examples,
    strings_examples,
    trees_examples,
)
from tests.data.layouts.example import Example

EXAMPLES: tuple[Example, ...] = (
    *trees_examples.EXAMPLES,
    *battles_examples.EXAMPLES,
    *strings_examples.EXAMPLES,
    *messages_examples.EXAMPLES,
    *ratings_examples.EXAMPLES,
    *rankings_examples.EXAMPLES,
)
