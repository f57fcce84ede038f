"""Several different responses to each prompt of a round."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hf_align.collators.rows import Side, is_blank
from hf_align.data.parts import Parts
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.collection.diversity import drop_near
from hf_align.feedback.collection.writers import Request, Text, Writer
from hf_align.feedback.records import Prompt, Response
from hf_align.feedback.store.queue import draw
from hf_align.progress import Progress, Silent

logger = logging.getLogger(__name__)

HOTTER = 0.2
"""What each further round of sampling adds to the highest temperature."""
FINISHED = "finished"
"""Setting of a response that says whether its model ended it; False: the length limit cut it."""

Slot = tuple[int, float]
"""Number of a writer, and a temperature."""


@dataclass(frozen=True)
class Generated:
    """Responses of a round.

    Attributes:
        responses: By prompt id, at least `min_responses` to each.
        given_up: Ids of prompts that have fewer.
        counts: "sampled", "empty", "near_duplicates", "cut" (kept ones that the length limit cut) responses, and
            prompts "sampled_again" and "given_up".
    """

    responses: dict[str, list[Response]]
    given_up: list[str]
    counts: dict[str, int]


def generate_responses(
    prompts: Sequence[Prompt],
    writers: Sequence[Writer],
    config: CollectionConfig,
    *,
    parts: Parts | None = None,
    progress: Progress | None = None,
) -> Generated:
    """Have several models respond to each prompt, until there are enough different responses.

    The first model responds to every prompt, at the temperatures in turn; `models_per_prompt` - 1 others, drawn for
    each prompt, at the middle one. Empty responses and near duplicates are dropped. Prompts with fewer than
    `min_responses` left are sampled again at higher temperatures, up to `resampling_rounds` times, and then given up.

    Args:
        prompts: Different prompts.
        writers: The models (see `open_models`).
        config: What is sampled, and `seed`.
        parts: Keeps what was written: the same model, prompt, settings and seed aren't sampled again, whatever else is
            asked for beside them. Default: nothing is kept.
        progress: Receiver of progress. Default: none.

    Raises:
        UserError: A prompt leaves a model no room to respond (checked before any is loaded), or a function doesn't
            return a text for each prompt.

    Example:
        >>> from hf_align.feedback import Prompt
        >>> from hf_align.feedback.collection.config import CollectionConfig
        >>> from hf_align.feedback.collection.responses import generate_responses
        >>> from hf_align.feedback.collection.writers import open_models
        >>> models = {"short": lambda prompts: ["Yes."] * len(prompts), "long": lambda prompts: ["Yes, of course."] * len(prompts)}
        >>> prompt = Prompt("May I?")
        >>> config = CollectionConfig(responses_per_prompt=2, min_responses=2)
        >>> made = generate_responses([prompt], open_models(models), config)
        >>> [(each.source, each.content) for each in made.responses[prompt.id]]
        [('short', 'Yes.'), ('long', 'Yes, of course.')]
    """  # noqa: E501
    check_models(writers, prompts, config)
    parts, progress = parts or Parts(), progress or Silent()
    kept: dict[str, list[Response]] = {prompt.id: [] for prompt in prompts}
    counts = Counter[str](sampled=0, empty=0, near_duplicates=0, cut=0, sampled_again=0, given_up=0)
    for attempt in range(config.resampling_rounds + 1):
        asked = [each for each in prompts if not attempt or len(kept[each.id]) < config.min_responses]
        plans = {each.id: plan(each, writers, config, attempt, len(kept[each.id])) for each in asked}
        counts["sampled_again"] += len(asked) if attempt == 1 else 0
        written = _write(asked, plans, writers, config, attempt, parts, progress)
        for prompt in asked:
            texts = written[prompt.id]
            full = [_response(prompt, *each, attempt) for each in texts if not is_blank(each[1].text)]
            different = drop_near(full, config.near, among=kept[prompt.id])
            kept[prompt.id] += different
            counts.update(sampled=len(texts), empty=len(texts) - len(full), near_duplicates=len(full) - len(different))
    given_up = [id for id, responses in kept.items() if len(responses) < config.min_responses]
    responses = {id: each for id, each in kept.items() if len(each) >= config.min_responses}
    counts["cut"] = sum(each.settings.get(FINISHED) is False for found in responses.values() for each in found)
    counts["given_up"] = len(given_up)
    if given_up:
        logger.warning(
            "prompts given up for fewer than %d different responses: %d of %d (further rounds of sampling: %d).",
            *(config.min_responses, len(given_up), len(prompts), config.resampling_rounds),
        )
    return Generated(responses, given_up, dict(counts))


def check_models(writers: Sequence[Writer], prompts: Sequence[Prompt], config: CollectionConfig) -> None:
    """Refuse prompts that leave a model no room for a response, before anything is loaded.

    Args:
        writers: The models.
        prompts: All prompts that may be chosen.
        config: `max_new_tokens`.
    """
    for writer in writers:
        if prompts:
            writer.check(prompts, config.max_new_tokens)


def plan(prompt: Prompt, writers: Sequence[Writer], config: CollectionConfig, attempt: int, have: int) -> list[Slot]:
    """Who writes a prompt's next responses, and at which temperature.

    Args:
        prompt: The prompt.
        writers: The models; the first is always among those that respond.
        config: `models_per_prompt`, `responses_per_prompt`, `temperatures` and `seed`.
        attempt: 0, and one more each time that the prompt is sampled again.
        have: Responses it has already.
    """

    def chance(number: int) -> float:
        return draw(config.seed, "model", prompt.id, writers[number].name)

    numbers = [0, *sorted(range(1, len(writers)), key=chance)[: config.models_per_prompt - 1]]
    missing = config.responses_per_prompt - have
    heat = config.temperatures
    if attempt:
        hotter = round(max(heat) + HOTTER * attempt, 6)
        return [(numbers[place % len(numbers)], hotter) for place in range(missing)]
    # Once every model, then the first at its other temperatures, then all in turn, each one temperature on.
    middle = len(heat) // 2
    slots = [(0, heat[0]), *((number, heat[middle]) for number in numbers[1:]), *((0, each) for each in heat[1:])]
    turns = range(max(0, missing - len(slots)))
    slots += [(numbers[turn % len(numbers)], heat[(middle + 1 + turn // len(numbers)) % len(heat)]) for turn in turns]
    return slots[:missing]


def _write(
    prompts: Sequence[Prompt],
    plans: Mapping[str, Sequence[Slot]],
    writers: Sequence[Writer],
    config: CollectionConfig,
    attempt: int,
    parts: Parts,
    progress: Progress,
) -> dict[str, list[tuple[str, Text]]]:
    """The texts of each prompt with their sources, in the order of its slots."""
    groups: defaultdict[tuple[int, float, int], list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        for (number, temperature), count in Counter(plans[prompt.id]).items():
            groups[number, temperature, count].append(prompt)
    texts: dict[tuple[str, Slot], list[Text]] = {}
    total, done = sum(map(len, plans.values())), 0
    with progress.task("responses" if not attempt else f"responses, round {attempt + 1}", total) as advance:
        for (number, temperature, count), group in sorted(groups.items(), key=lambda item: item[0]):
            seed = f"{config.seed}/{attempt}/{number}"
            request = Request(count, temperature, config.max_new_tokens, config.sampling_batch_size, seed)
            for id, written in writers[number].write(group, request, parts):
                texts[id, (number, temperature)] = list(written)
                done += count
                advance(done, writers[number].name)
    return {
        prompt.id: [(writers[slot[0]].name, texts[prompt.id, slot].pop(0)) for slot in plans[prompt.id]]
        for prompt in prompts
    }


def _response(prompt: Prompt, source: str, written: Text, attempt: int) -> Response:
    turn: Side = [{"role": "assistant", "content": written.text}]
    content = written.text if isinstance(prompt.content, str) else turn
    return Response(prompt.id, content, source, {**written.settings, "attempt": attempt})
