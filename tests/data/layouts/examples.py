"""Examples of all layouts."""

from tests.data.layouts import messages_examples, rankings_examples, ratings_examples, strings_examples
from tests.data.layouts.example import Example

EXAMPLES: tuple[Example, ...] = (
    *strings_examples.EXAMPLES,
    *messages_examples.EXAMPLES,
    *ratings_examples.EXAMPLES,
    *rankings_examples.EXAMPLES,
)
