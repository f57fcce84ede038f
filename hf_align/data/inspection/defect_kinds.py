"""Kinds of defects that a row shows by itself."""

from hf_align.data.inspection.findings import Kind

SECTION = "defects"
MISSING = Kind("missing", SECTION, "error", "Fill in what is missing, or drop the rows; the fixed data drops them.")
EMPTY_RESPONSE = Kind("empty_response", SECTION, "error", "Drop the rows; the fixed data does.")
IDENTICAL = Kind("identical_responses", SECTION, "error", "Drop the rows: they prefer nothing; the fixed data does.")
BAD_NUMBER = Kind("bad_number", SECTION, "error", "Correct the numbers, or drop the rows; the fixed data drops them.")
WRONG_ROLES = Kind(
    "wrong_roles",
    SECTION,
    "error",
    "Give each message the role of who wrote it, and take names of roles out of the texts; the fixed data drops rows "
    "that can't be read.",
)
MALFORMED = Kind(
    "malformed", SECTION, "error", "Write each value in the form that its column has; the fixed data drops the rows."
)
NEAR_IDENTICAL_RESPONSES = Kind(
    "near_identical_responses", SECTION, "warning", "Drop the rows unless case or punctuation is what is preferred."
)
TIED = Kind(
    "tied",
    SECTION,
    "warning",
    "Drop the rows for training on plain pairs; as soft labels of .5 they are of use to a reward model.",
)
REPETITION = Kind(
    "repetition",
    SECTION,
    "warning",
    "Drop rows whose chosen response repeats itself; as rejected ones a few are fine, many teach only that.",
)
CUT_OFF = Kind(
    "cut_off",
    SECTION,
    "warning",
    "Get the whole responses, or drop the rows: trained on, a model learns to stop anywhere.",
)
BROKEN_ENCODING = Kind(
    "broken_encoding",
    SECTION,
    "warning",
    "Decode the source as UTF-8 and unescape it; the fixed data has what can be read back for certain.",
)
SEVERAL_ANSWERS = Kind(
    "several_answers",
    SECTION,
    "warning",
    "Cut the responses where the first answer ends, or drop the rows: a model learns to write the user's turns.",
)
REPEATED_PROMPT = Kind(
    "repeated_prompt",
    SECTION,
    "warning",
    "Take the prompt off the responses; the fixed data does where all of a row's begin with it.",
)
DOUBLE_BOS = Kind("double_bos", SECTION, "warning", "Take it off the texts; the fixed data does.")
SPECIAL_TOKENS = Kind(
    "special_tokens",
    SECTION,
    "warning",
    "Take them out of the texts, or write conversations as messages: tokenised they are control tokens, not text.",
)
MISSING_END = Kind(
    "missing_end",
    SECTION,
    "warning",
    "Write the end into all responses or into none: the trainers here add it, other tools may not.",
)
KINDS = (
    *(MISSING, EMPTY_RESPONSE, IDENTICAL, BAD_NUMBER, WRONG_ROLES, MALFORMED, NEAR_IDENTICAL_RESPONSES, TIED),
    *(REPETITION, CUT_OFF, BROKEN_ENCODING, SEVERAL_ANSWERS, REPEATED_PROMPT, DOUBLE_BOS, SPECIAL_TOKENS),
    MISSING_END,
)
