"""The supervised half: respond, criticise by a principle, revise where that finds something; then the next principle.

After Bai et al. (2022), "Constitutional AI: Harmlessness from AI Feedback" (arXiv:2212.08073), section 3. Unlike
there, a response is revised only where the model says that it breaks the principle.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hf_align.collators.rows import is_blank, text_of
from hf_align.feedback.collection.writers import Text
from hf_align.feedback.constitution.conversation import ask_critique, ask_revision
from hf_align.feedback.constitution.draws import draw_principles
from hf_align.feedback.constitution.principles import Principle
from hf_align.feedback.constitution.work import Criticised, Work, replaced
from hf_align.feedback.records import Prompt
from hf_align.progress import Progress

Outcome = Literal[
    "check passed", "nothing found", "empty critique", "unchanged", "empty revision", "refusal dropped", "revised"
]
"""What became of a response under a principle; only after the last is it another one."""
OUTCOMES: tuple[Outcome, ...] = (
    *("check passed", "nothing found", "empty critique", "unchanged", "empty revision", "refusal dropped", "revised"),
)
SENTENCE = re.compile(r"[.!?\n]")
QUOTES = str.maketrans({"\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{LEFT SINGLE QUOTATION MARK}": "'"})


@dataclass
class Step:
    """A principle applied to a response.

    Attributes:
        principle: The principle.
        before: The response before it.
        outcome: What became of it.
        broken: Probability that the principle is broken, as the model says; None: it wasn't asked.
        critique: The critique, if one was asked for.
        revision: The revision, if one was asked for.
        shorter: Whether the revision has fewer words than the response.
        refuses: Whether the revision refuses and the response didn't.
    """

    principle: Principle
    before: str
    outcome: Outcome = "check passed"
    broken: float | None = None
    critique: Text | None = None
    revision: Text | None = None
    shorter: bool = False
    refuses: bool = False

    @property
    def after(self) -> str:
        """The response after it."""
        return self.revision.text if self.outcome == "revised" and self.revision is not None else self.before


@dataclass
class Revised:
    """A prompt with its response, revised step by step.

    Attributes:
        prompt: The prompt, in messages.
        initial: The first response.
        steps: What was done, in order.
    """

    prompt: Prompt
    initial: Text
    steps: list[Step] = field(default_factory=list)

    @property
    def final(self) -> str:
        """The last response."""
        return self.steps[-1].after if self.steps else self.initial.text


def revise_all(work: Work, prompts: Sequence[Prompt], progress: Progress) -> list[Revised]:
    """Responses to prompts, criticised and revised; those without any text are there, without steps.

    Args:
        work: The writer and what it is asked.
        prompts: Different prompts in messages.
        progress: Receiver of progress.
    """
    size, revised = work.config.batch_size, []
    with progress.task("revisions", len(prompts)) as advance:
        for start in range(0, len(prompts), size):
            revised += _revise(work, prompts[start : start + size])
            advance(len(revised), "")
    return revised


def _revise(work: Work, prompts: Sequence[Prompt]) -> list[Revised]:
    config = work.config
    heat = {"temperature": config.temperature, "max_new_tokens": config.max_new_tokens}
    written = work.write(prompts, "initial", **heat)
    batch = [Revised(prompt, texts[0]) for prompt, texts in zip(prompts, written, strict=True)]
    drawn = {
        each.prompt.id: draw_principles(
            work.constitution.principles, each.prompt, config.revisions, config.seed, "revision"
        )
        for each in batch
        if not is_blank(each.initial.text)
    }
    for turn in range(config.revisions):
        due = [each for each in batch if turn < len(drawn.get(each.prompt.id, ()))]
        steps = [Step(drawn[each.prompt.id][turn], each.final) for each in due]
        _take_step(work, turn, [each.prompt for each in due], steps)
        for each, step in zip(due, steps, strict=True):
            each.steps.append(step)
    return batch


def _take_step(work: Work, turn: int, prompts: Sequence[Prompt], steps: Sequence[Step]) -> None:
    """Check, criticise and revise, each for all responses that are left."""
    config, constitution = work.config, work.constitution
    asked: list[Criticised] = [
        (prompt, step.before, step.principle) for prompt, step in zip(prompts, steps, strict=True)
    ]
    for step, broken in zip(steps, work.broken(asked), strict=True):
        step.broken = broken
    left = [
        (prompt, step)
        for prompt, step in zip(prompts, steps, strict=True)
        if step.broken is None or step.broken >= config.threshold
    ]
    conversations = [
        replaced(prompt, ask_critique(constitution, config.examples, _turns(prompt), step.before, step.principle))
        for prompt, step in left
    ]
    heat = config.critique_temperature
    critiques = work.write(
        conversations, f"critique {turn}", temperature=heat, max_new_tokens=config.max_critique_tokens
    )
    revisable: list[tuple[Prompt, Step]] = []
    for (_, step), conversation, (critique,) in zip(left, conversations, critiques, strict=True):
        step.critique = critique
        if is_blank(critique.text):
            step.outcome = "empty critique"
        elif says(critique.text, constitution.nothing_found):
            step.outcome = "nothing found"
        else:
            messages = ask_revision(_turns(conversation), critique.text, step.principle)
            revisable.append((replaced(conversation, messages), step))
    revisions = work.write(
        [asked for asked, _ in revisable],
        f"revision {turn}",
        temperature=heat,
        max_new_tokens=config.max_new_tokens,
    )
    for (_, step), (revision,) in zip(revisable, revisions, strict=True):
        judge_revision(step, revision, constitution.refusals, drop_refusals=config.drop_refusals)


def judge_revision(step: Step, revision: Text, refusals: Iterable[str], *, drop_refusals: bool) -> None:
    """Note a revision and what becomes of the response by it."""
    refusals, step.revision = list(refusals), revision
    if is_blank(revision.text):
        step.outcome = "empty revision"
        return
    step.shorter = len(revision.text.split()) < len(step.before.split())
    step.refuses = refuses(revision.text, refusals) and not refuses(step.before, refusals)
    if revision.text.split() == step.before.split():
        step.outcome = "unchanged"
    else:
        step.outcome = "refusal dropped" if step.refuses and drop_refusals else "revised"


def says(text: str, phrases: Iterable[str]) -> bool:
    """Whether a text has one of the phrases, whatever the case, spaces and quotes.

    Example:
        >>> from hf_align.feedback.constitution.revise import says
        >>> says("It is fine.  No change\\nNEEDED!", ["no change needed"])
        True
    """
    plain = _plain(text)
    return any(_plain(phrase) in plain for phrase in phrases)


def refuses(text: str, phrases: Iterable[str]) -> bool:
    """Whether a response has one of the phrases in its first sentence.

    Example:
        >>> from hf_align.feedback.constitution.revise import refuses
        >>> refuses("Sorry, I can’t help you with that. Ask a doctor.", ["i can't help"])
        True
        >>> refuses("Ask a doctor. I can't help you with that.", ["i can't help"])
        False
    """
    return says(SENTENCE.split(text.strip(), maxsplit=1)[0], phrases)


def _plain(text: str) -> str:
    return " ".join(text.translate(QUOTES).casefold().split())


def _turns(prompt: Prompt) -> list[dict[str, Any]]:
    assert not isinstance(prompt.content, str), text_of(prompt.content)
    return prompt.content
