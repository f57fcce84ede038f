"""Write docs/reference/findings.md from the kinds of findings (`make docs`); a test checks that the page is current."""

from pathlib import Path

from hf_align.data.inspection.findings import Kind
from hf_align.data.inspection.inspect import MODULES
from hf_align.report.inspection_sections import TITLES

PAGE = Path(__file__).parent / "reference" / "findings.md"
INTRODUCTION = """\
# Findings of an inspection

<!-- Written by `make docs` from the kinds in hf_align/data/inspection and the meanings in docs/make_findings.py. -->

What [`hf-align inspect`](../how-to/inspect-data.md) can find, by section. Errors can't be trained on, or surely teach
something wrong; warnings deserve a look before training; notes are worth knowing.
"""
MEANINGS = {
    "long_row": "More than ten times as many characters as the median row, and more than 4,000.",
    "short_row": "No response with a tenth of the median response's words (in Chinese and the like, characters), in at "
    "most a tenth of the rows.",
    "cut_by_truncation": "More tokens than `--max-length` or `--max-prompt-length` leaves room for.",
    "refused_by_template": "Messages that the tokenizer's chat template refuses.",
    "missing": "No prompt or no response.",
    "empty_response": "A response without a visible character.",
    "identical_responses": "Two responses that are the same.",
    "bad_number": "A margin, weight, label, vote, rank, score or rating that can't be one.",
    "wrong_roles": "A message without role, in another role's place, or with the name of a role in its text.",
    "malformed": "A value in another form than its column has.",
    "near_identical_responses": "Responses that differ only in case, punctuation and spaces.",
    "tied": "No response is better than another.",
    "repetition": "A response that repeats words, lines or phrases.",
    "cut_off": "A response that breaks off, where nearly all others end with a sentence.",
    "broken_encoding": "Text that was decoded or escaped twice, or has lost characters.",
    "several_answers": "A response with further turns of the conversation in it.",
    "repeated_prompt": "Responses that begin with the prompt.",
    "double_bos": "A text that begins with the token that the tokenizer adds to every text.",
    "special_tokens": "Control tokens of a chat template written into a text.",
    "missing_end": "An end-of-turn token in some of the responses and not in others.",
    "duplicate_pair": "The prompt, responses and preference of an earlier row, and that row.",
    "swapped_pair": "The same, with the responses in the other order and the label that says the same.",
    "contradicted_pair": "The same two responses to a prompt with both preferences.",
    "near_duplicate_pair": "Prompt, better and worse response with a Jaccard similarity of .8 to another row's.",
    "response_under_many_prompts": "A response that stands under five prompts or more, exactly or nearly.",
    "prompt_repeated": "A prompt that other rows have, too.",
    "near_prompts": "A prompt with a Jaccard similarity of .8 to another.",
    "cycle": "Preferences of one prompt that go round: a over b, b over c, c over a.",
    "score_contradicts": "The better response has the lower score.",
    "score_reversed": "All: most better responses have the lower score.",
    "scores_disagree": "All: two columns that should rank responses alike rank them in opposite ways.",
    "score_extreme": "The highest score where a related column is among the lowest, or the reverse.",
    "mixed_scales": "Scores on another scale than those of most rows.",
    "score_varies": "A response with different scores in different rows.",
    "shared_pair": "Prompt and responses of a row of the evaluation set.",
    "shared_prompt": "A prompt of the evaluation set.",
    "near_shared_prompt": "A prompt with a Jaccard similarity of .8 to one of the evaluation set.",
    "contaminated": "A text that contains a response of the evaluation set: 70% of its runs of 8 words.",
    "made_rows": "Made by `augment`, judged by nobody.",
    "made_rows_in_eval": "All: such rows in the evaluation set.",
    "low_agreement": "Fewer agreeing pairs of people than `--min-agreement`.",
    "low_alpha": "All: an alpha whose interval lies below .667.",
    "annotator_at_chance": "All: annotators who agree with the others no more than chance does.",
    "annotators_unfit": "Another number of names in `annotators` than of votes.",
    "agreement_undefined": "All: no alpha, with the reason.",
    "small_margin": "A margin, or what stands for one, below `--min-margin`.",
    "length_bias": "All: the longer (or the shorter) response wins clearly more often than not.",
    "style": "All: lists, links, bold text, exclamation marks, ... differ between better and worse responses.",
    "opening": "All: the first words tell which response is the better one.",
    "language": "A response in another script than its prompt or the other response.",
}
"""What the rows have, by kind; "All" marks what concerns the data set as a whole."""


def page() -> str:
    """Write the page."""
    return INTRODUCTION + "".join(
        f"\n## {TITLES[section]}\n\n| kind | severity | rows | what to do |\n| --- | --- | --- | --- |\n"
        + "".join(row(kind) for kind in module.KINDS)
        for section, module in MODULES.items()
    )


def row(kind: Kind) -> str:
    """A kind's line."""
    return f"| `{kind.name}` | {kind.severity} | {MEANINGS[kind.name]} | {kind.fix} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Wrote {PAGE}")
