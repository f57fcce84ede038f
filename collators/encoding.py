"""Text and conversations to token ids: where the prompt ends, which token starts a sequence and which ends a response.

A prompt gets the ids it has at inference. A response gets the ids it has right behind that prompt: those of the joint
tokenisation, whenever the prompt's ids are how the joint ones begin.
"""

import json
import unicodedata
from collections.abc import Iterator
from typing import Any, cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from hf_align.collators.rows import Message, Pair, RowProblem, Side, join_messages, shared_length
from hf_align.errors import UserError
from hf_align.version import __version__

Ids = list[int]
Texts = tuple[str, str, str]
"""A prompt, prompt + chosen, prompt + rejected."""
Triple = tuple[Ids, Ids, Ids]
"""Their ids."""


class PairEncoder:
    """Token ids of preference pairs under one tokenizer.

    Args:
        tokenizer: Needs an EOS token, and a chat template if rows are conversations.

    Raises:
        UserError: If the tokenizer has no EOS token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        if tokenizer.eos_token_id is None:
            raise UserError("The tokenizer has no EOS token to end a response with: set tokenizer.eos_token.")
        self.tokenizer = tokenizer
        self.version = __version__  # datasets caches what `map` made under what the encoder holds
        self.start = self._added_start()
        self.specials = set(tokenizer.all_special_ids)
        self.specials |= {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.specials.discard(cast(int, tokenizer.unk_token_id))  # stands for text
        self.eos = cast(int, tokenizer.eos_token_id)
        self.specials.add(self.eos)
        self.end_of_turn = self._end_of_turn() if tokenizer.chat_template else self.eos
        self._blank: dict[int, bool] = {}

    def encode(self, texts: list[str]) -> list[Ids]:
        """Ids of each text, without the special tokens that the tokenizer adds."""
        return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []

    def texts(self, pair: Pair, row: dict[str, Any]) -> Texts:
        """A pair's prompt, prompt + chosen and prompt + rejected as text.

        Args:
            pair: The row, read by `read_pair`.
            row: May hold `tools` (a list, or JSON of one) and `chat_template_kwargs` for the chat template.

        Raises:
            RowProblem: If the chat template refuses the messages.
            UserError: If there is no chat template, or `tools` is no JSON.
        """
        if isinstance(pair.chosen, list) and isinstance(pair.rejected, list) and isinstance(pair.prompt, list):
            whole = [(join_messages(pair.prompt, response), {}) for response in (pair.chosen, pair.rejected)]
            rendered = self._conversations([(pair.prompt, _ending(pair.prompt)), *whole], row)
            return rendered[0], rendered[1], rendered[2]
        chosen, rejected = str(pair.chosen), str(pair.rejected)
        if pair.prompt is None:
            end = next(_word_ends(chosen, rejected), 0)
            return chosen[:end], chosen, rejected
        return str(pair.prompt), f"{pair.prompt}{chosen}", f"{pair.prompt}{rejected}"

    def split(self, pair: Pair, texts: Texts, ids: Triple) -> tuple[Ids, list[Ids]]:
        """Ids of the prompt and of the responses alone, chosen first; with the sequence's start and the responses' end.

        Args:
            pair: The row.
            texts: Of `texts(pair)`.
            ids: Of `encode(texts)`.

        Raises:
            RowProblem: If a response has no tokens, both have the same, or there is no prompt to predict them from.
        """
        prompt, chosen, rejected = ids
        if pair.prompt is None:
            texts, prompt = self._implicit_prompt(texts, ids)
        responses = [
            self._response(prompt, joint, texts[0], text, pair.conversational)
            for joint, text in ((chosen, texts[1]), (rejected, texts[2]))
        ]
        if empty := [name for name, ids in zip(("chosen", "rejected"), responses, strict=True) if len(ids) < 2]:
            raise RowProblem(f"a {empty[0]} without a token")
        if responses[0] == responses[1]:
            raise RowProblem("responses that are identical once tokenised")
        if not (prompt := self._started(prompt, pair.conversational)):
            raise RowProblem("no prompt: chosen and rejected share no first words, and the tokenizer adds no BOS token")
        return prompt, responses

    def prompt_and_response(self, prompt: Side, response: Side) -> tuple[Ids, Ids]:
        """Ids of one prompt and one response to it, as `split` gives them: what a reward model scores.

        Args:
            prompt: Text, or messages; text before a response given as messages becomes a user message.
            response: Text, or messages; text behind a prompt given as messages becomes an assistant message. An empty
                one is EOS alone.

        Raises:
            UserError: If the prompt is empty, or there is no chat template or it refuses the messages.
        """
        if isinstance(prompt, list) and isinstance(response, str):
            response = [{"role": "assistant", "content": response}]
        if isinstance(response, list) and isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        pair = Pair(prompt, response, response)
        try:
            texts = self.texts(pair, {})
        except RowProblem as problem:
            raise UserError(f"A prompt and its response have {problem}.") from problem
        ids, joint = self.encode(list(texts[:2]))
        behind = self._response(ids, joint, texts[0], texts[1], pair.conversational)
        if not (ids := self._started(ids, pair.conversational)):
            raise UserError("A prompt is empty: give it at least one token that a response can follow.")
        return ids, behind

    def prompt(self, prompt: Side, row: dict[str, Any]) -> Ids:
        """Ids of a prompt alone, up to where a response begins (generation prompt of the chat template included).

        Args:
            prompt: Text or messages, not empty.
            row: As for `texts`.

        Raises:
            RowProblem: If the chat template refuses the messages.
            UserError: If there is no chat template.
        """
        conversational = isinstance(prompt, list)
        text = self._conversations([(prompt, _ending(prompt))], row)[0] if isinstance(prompt, list) else prompt
        return self._started(self.encode([text])[0], conversational)

    def _added_start(self) -> Ids:
        """Tokens that the tokenizer puts before a text (BOS, or nothing); what it appends is left to `_end_text`."""
        bare, full = self.encode(["a"])[0], self.tokenizer("a")["input_ids"]
        for start in range(len(full) - len(bare) + 1):
            if full[start : start + len(bare)] == bare:
                return full[:start]
        return []

    def _end_of_turn(self) -> int:
        """The token by which a chat model stops: the first special one that the template puts behind an answer."""
        mark = "ANSWER"
        turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": mark}]
        try:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False)
        except TemplateError:  # some templates want a system message: rows will tell
            return self.eos
        behind = self.encode([str(text).rpartition(mark)[2]])[0]
        return next((token for token in behind if token in self.specials), self.eos)

    def _conversations(self, conversations: list[tuple[list[Message], dict[str, Any]]], row: dict) -> list[str]:
        """Conversations as text; each comes with how the template should end it."""
        if not self.tokenizer.chat_template:
            raise UserError(
                "The rows are conversations, but the tokenizer has no chat template: set tokenizer.chat_template, take "
                "an instruct model's tokenizer, or turn the rows into text."
            )
        options = _template_options(row)
        try:
            return [
                str(self.tokenizer.apply_chat_template(messages, tokenize=False, **options, **ending))
                for messages, ending in conversations
            ]
        except (TemplateError, TypeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise RowProblem(f"messages that the chat template refuses ({reason})") from error

    def _implicit_prompt(self, texts: Texts, ids: Triple) -> tuple[Texts, Ids]:
        """The longest common beginning that ends with a word and whose ids begin both joint tokenisations."""
        first, chosen, rejected = ids
        for end in _word_ends(texts[1], texts[2]):
            text = texts[1][:end]
            prompt = first if text == texts[0] else self.encode([text])[0]
            if prompt == chosen[: len(prompt)] == rejected[: len(prompt)]:
                return (text, texts[1], texts[2]), prompt
        return ("", texts[1], texts[2]), []

    def _started(self, prompt: Ids, conversational: bool) -> Ids:
        """The prompt with what the tokenizer puts before a text; a chat template writes its own BOS."""
        return prompt if conversational or prompt[: len(self.start)] == self.start else self.start + prompt

    def _response(self, prompt: Ids, joint: Ids, prompt_text: str, text: str, conversational: bool) -> Ids:
        """The response's ids behind the prompt's, with their end."""
        if joint[: len(prompt)] == prompt:
            ids = joint[len(prompt) :]
        elif text.startswith(prompt_text):  # a token crosses the border
            ids = self._alone(text[len(prompt_text) :])
        else:  # the template writes a prompt's end that it leaves out in front of an answer (an empty thought, say)
            ids = joint[shared_length(prompt, joint) :]
        return self._end_turn(ids) if conversational else self._end_text(ids)

    def _alone(self, response: str) -> Ids:
        """Ids of a response that follows something, hence without the space SentencePiece puts before a text."""
        before, both = self.encode(["\n", "\n" + response])
        follows = both[: len(before)] == before and len(both) > len(before)
        return both[len(before) :] if follows else self.encode([response])[0]

    def _end_text(self, ids: Ids) -> Ids:
        """The response with EOS at its end, once."""
        while ids and ids[-1] == self.eos:
            ids = ids[:-1]
        return [*ids, self.eos]

    def _end_turn(self, ids: Ids) -> Ids:
        """The response up to the token that ends the turn; whatever the template writes behind it is dropped."""
        body = len(ids)
        while body and (ids[body - 1] in self.specials or self._is_blank(ids[body - 1])):
            body -= 1
        tail = ids[body:]
        if self.end_of_turn in tail:
            return ids[: body + tail.index(self.end_of_turn) + 1]
        specials = [position for position, token in enumerate(tail) if token in self.specials]
        return ids[: body + specials[-1] + 1] if specials else [*ids[:body], self.end_of_turn]

    def _is_blank(self, token: int) -> bool:
        if token not in self._blank:
            self._blank[token] = not str(self.tokenizer.decode([token])).strip()
        return self._blank[token]


def _ending(prompt: list[Message]) -> dict[str, Any]:
    """Template options for the end of a prompt: a last assistant message is continued."""
    return {"continue_final_message": True} if prompt[-1]["role"] == "assistant" else {"add_generation_prompt": True}


def _template_options(row: dict[str, Any]) -> dict[str, Any]:
    tools = row.get("tools")
    try:
        tools = json.loads(tools) if isinstance(tools, str) and tools else tools
    except json.JSONDecodeError as error:
        raise RowProblem(f"tools that are neither a list nor JSON ({error})") from error
    options = {key: value for key, value in (row.get("chat_template_kwargs") or {}).items() if value is not None}
    return {"tools": tools or None, **options}


def _word_ends(chosen: str, rejected: str) -> Iterator[int]:
    """Possible ends of an implicit prompt, the longest first: not inside a word, and with something left of both."""
    shared = shared_length(chosen, rejected)
    # Something other than spaces has to be left of both responses, and to be in the prompt.
    last = min(shared, len(chosen.rstrip()) - 1, len(rejected.rstrip()) - 1)
    first = len(chosen) - len(chosen.lstrip()) + 1
    for end in range(last, first - 1, -1):
        inside = _in_word(chosen[end - 1]) and (_in_word(chosen[end]) or _in_word(rejected[end]))
        if not inside and chosen[end - 1] != " ":  # a space belongs to the word behind it, as in most vocabularies
            yield end


def _in_word(character: str) -> bool:
    """Part of a word that must not be split; Chinese and Japanese put no spaces between words."""
    if "\u3040" <= character <= "\u9fff" or character >= "\U00020000":
        return False
    return character.isalnum() or character in "_'\u2019" or unicodedata.category(character).startswith("M")
