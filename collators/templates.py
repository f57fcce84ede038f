"""Rendering of conversations by a tokenizer's chat template.

A response is the template's text after the prompt in the whole conversation. Templates of reasoning models complicate
that: a generation prompt that opens a thought, or closes an empty one, where the whole conversation has another or
none; thoughts omitted from every turn, including the answer.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from hf_align.collators.rows import Message, RowProblem, content_of, join_messages, shared_length, thought_of
from hf_align.collators.tools import template_messages, template_options
from hf_align.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARK = "ANSWER"
"""Answer used in a probe, which no template changes."""
TAG = r"<[^<>]*>|\[[^\[\]]*\]"
"""Tag that opens or closes a thought."""


class ChatTemplate:
    """A tokenizer's chat template.

    Args:
        tokenizer: Tokenizer with a chat template; without one, conversations are refused when they are rendered.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self._additions: dict[str, str] = {}

    def prompt(self, messages: list[Message], row: dict[str, Any]) -> str:
        """A prompt as the model gets it at inference; a last assistant message is continued.

        Args:
            messages: The prompt.
            row: May hold `tools` and `chat_template_kwargs`.

        Raises:
            RowProblem: The template refuses the messages.
            UserError: If there is no chat template.
        """
        continued = messages[-1]["role"] == "assistant"
        return self._render(messages, row, **{"continue_final_message" if continued else "add_generation_prompt": True})

    def whole(self, prompt: list[Message], response: list[Message], row: dict[str, Any]) -> str:
        """A prompt with its response, including the thought of the last answer.

        Raises:
            RowProblem: The template refuses the messages, or omits a thought.
            UserError: If there is no chat template.
        """
        messages = join_messages(prompt, response)
        text, last = self._render(messages, row), messages[-1]
        content, thought = content_of(last), thought_of(last)
        rendered = "".join(text.split())
        if all("".join(part.split()) in rendered for part in (content, thought)):
            return text
        before, _, behind = self._render([*messages[:-1], {**last, "content": MARK}], row).rpartition(MARK)
        continued = len(response) == 1 and prompt[-1]["role"] == "assistant"
        start = before if continued else self._render(messages[:-1], row, add_generation_prompt=True)
        if "".join(thought.split()) not in rendered:
            opening = re.search(r"<([^<>/|]+)>\s*$", start)
            if opening is None:
                raise RowProblem(
                    "a thought outside the content that the chat template omits (write it into the content, as the "
                    "model does, or drop it)",
                    "template",
                )
            return f"{start}{thought}\n</{opening[1]}>\n\n{content}{behind}"
        if not (text.startswith(before) and text.endswith(behind)):
            return text
        answer = text[len(before) : len(text) - len(behind)].strip()
        thinking = content.rstrip().removesuffix(answer).strip()
        closing = re.search(rf"(?:{TAG})$", thinking)
        if closing is None or not content.rstrip().endswith(answer):
            return text  # the template rewrites contents
        return _turn_before(start, thinking, closing[0]) + content + behind

    def without_addition(self, prompt: str, row: dict[str, Any]) -> str:
        """A prompt's text up to the start of an assistant's turn, as in the middle of a conversation.

        The generation prompt's addition, such as an opening tag or an empty thought, belongs to the response if the
        whole conversation has something else there.
        """
        options = {key: value for key, value in template_options(row).items() if key != "tools"}
        key = json.dumps(options, default=str)
        if key not in self._additions:
            self._additions[key] = self._addition(options)
        return prompt.removesuffix(self._additions[key])

    def closings(self) -> tuple[str, str]:
        """The template's text after any answer of a conversation, and after the last one."""
        turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": MARK}]
        try:
            text = self._render([*turns, *turns], {})
        except (RowProblem, UserError):  # some templates require a system message: rows will show
            return "", ""
        _, inner, last, *_ = [*text.split(MARK), "", ""]
        return inner[: shared_length(inner, last)], last

    def _addition(self, options: dict[str, Any]) -> str:
        turns, row = [{"role": "user", "content": "Hello"}], {"chat_template_kwargs": options}
        try:
            opened = self.prompt(turns, row)
            later = self._render([*turns, {"role": "assistant", "content": MARK}, *turns], row)
        except RowProblem:
            return ""
        shared = opened[: shared_length(opened, later.partition(MARK)[0])]
        return opened[len(re.sub(r"[<\[][^<>\[\]]*$", "", shared)) :]  # no partial tags

    def _render(self, messages: list[Message], row: dict[str, Any], **ending: Any) -> str:
        """Messages as text; tool calls' arguments as dicts, or as text where the template fails on dicts."""
        if not self.tokenizer.chat_template:
            raise UserError(
                "The rows are conversations, but the tokenizer has no chat template: set tokenizer.chat_template, take "
                "an instruct model's tokenizer, or turn the rows into text."
            )
        options = template_options(row)
        calls = any(message.get("tool_calls") for message in messages)
        failed: Exception | None = None
        for as_text in (False, True) if calls else (False,):
            turns = template_messages(messages, options["tools"], as_text=as_text)
            try:
                return str(self.tokenizer.apply_chat_template(turns, tokenize=False, **options, **ending))
            except (TemplateError, TypeError, ValueError) as error:
                failed = failed or error
        reason = next(iter(str(failed).splitlines()), type(failed).__name__)
        raise RowProblem(f"messages that the chat template refuses ({reason})", "template") from failed


def _turn_before(start: str, thinking: str, closing: str) -> str:
    """The conversation up to an answer that begins with its thought.

    Args:
        start: The conversation with the generation prompt, which may have opened a thought or closed an empty one.
        thinking: The thought with its tags, as the answer has it.
        closing: The tag that closes it.
    """
    first = re.match(TAG, thinking)
    opening = first[0] if first and first[0] != closing else closing.replace("/", "", 1)
    start = re.sub(rf"(?:{re.escape(opening)}\s*)?{re.escape(closing)}\s*$", "", start)
    if thinking.startswith(opening) and start.rstrip().endswith(opening):
        start = start.rstrip().removesuffix(opening)
    return start
