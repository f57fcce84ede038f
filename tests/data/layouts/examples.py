"""Examples of all layouts."""

from tests.data.layouts import strings_examples
from tests.data.layouts.example import Example

EXAMPLES: tuple[Example, ...] = (*strings_examples.EXAMPLES,)
