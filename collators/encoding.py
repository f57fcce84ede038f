"""Encoding of text and conversations: the end of the prompt, the start of the sequence and the end of the response.

A prompt gets the ids it has at inference. A response gets the ids it has right after that prompt: those of the joint
tokenisation, if it starts with the prompt's ids. Prompt and response of a conversation add up to the chat template's
text; if that starts differently than at inference, the prompt is shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from hf_align.collators.rankings import Ranking
from hf_align.collators.rows import NO_PROMPT, Pair, RowProblem, Side, shared_length, word_ends
from hf_align.collators.templates import ChatTemplate
from hf_align.errors import UserError
from hf_align.version import __version__

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = list[int]


@dataclass(frozen=True)
class Texts:
    """A prompt and its responses as text.

    Attributes:
        prompt: As at inference.
        whole: The prompt with each response.
        turn: For a conversation, the prompt up to the start of the assistant's turn.
        continued: Whether the prompt's last message continues in the response.
    """

    prompt: str
    whole: Sequence[str]
    turn: str | None = None
    continued: bool = False

    @property
    def all(self) -> list[str]:
        """The prompt and the prompt with each response."""
        return [self.prompt, *self.whole]


class PairEncoder:
    """Token ids of prompts and their responses under one tokenizer.

    Args:
        tokenizer: Tokenizer with an EOS token, and a chat template if rows are conversations.

    Raises:
        UserError: The tokenizer has no EOS token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        if tokenizer.eos_token_id is None:
            raise UserError("The tokenizer has no EOS token to end a response with: set tokenizer.eos_token.")
        self.tokenizer = tokenizer
        self.version = __version__  # part of the key under which datasets caches results of `map`
        self.start = self._added_start()
        self.specials = set(special_tokens(tokenizer))
        self.eos = cast(int, tokenizer.eos_token_id)
        self.template = ChatTemplate(tokenizer)
        self.closing = self._closing() if tokenizer.chat_template else [self.eos]
        self._blank: dict[int, bool] = {}

    def encode(self, texts: list[str]) -> list[Ids]:
        """Ids of each text, without the special tokens that the tokenizer adds."""
        return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []

    def texts(self, prompt: Side | None, responses: Sequence[Side], row: dict[str, Any]) -> Texts:
        """A prompt and the prompt with each of its responses, as text.

        Args:
            prompt: Text or messages; None for text that both responses begin with.
            responses: One or more of the same type.
            row: May hold `tools` (a list, or JSON of one) and `chat_template_kwargs` for the chat template.

        Raises:
            RowProblem: The chat template refuses the messages, or tools or thoughts can't be written.
            UserError: If there is no chat template.
        """
        if isinstance(prompt, list):
            text = self.template.prompt(prompt, row)
            whole = [self.template.whole(prompt, cast(Any, response), row) for response in responses]
            continued = prompt[-1]["role"] == "assistant"
            turn = text if continued else self.template.without_addition(text, row)
            return Texts(text, whole, turn, continued)
        whole = [str(response) for response in responses]
        if prompt is None:
            return Texts(whole[0][: next(word_ends(whole[0], whole[1]), 0)], whole)
        return Texts(prompt, [f"{prompt}{response}" for response in whole])

    def split(self, row: Pair | Ranking, texts: Texts, ids: Sequence[Ids]) -> tuple[Ids, list[Ids]]:
        """Ids of the prompt and of each response in the row's order, with the sequence's start and the responses' end.

        Args:
            row: The row.
            texts: Result of `texts` for its prompt and responses.
            ids: Result of `encode(texts.all)`.

        Raises:
            RowProblem: A response has no tokens, two have the same, or there is no prompt to predict them from.
        """
        prompt, *joints = ids
        if row.prompt is None:
            texts, prompt = self._implicit_prompt(texts, ids)
        prompt = self._border(prompt, joints, texts)
        responses = self._responses(prompt, joints, texts)
        if empty := [name for name, ids in zip(row.names, responses, strict=True) if len(ids) < 2]:
            raise RowProblem(f"a {empty[0]} without a token", "empty_response")
        if have_duplicates(responses):
            raise RowProblem("responses that are identical once tokenised", "identical_responses")
        if row.prompt is None and not prompt:
            raise RowProblem(NO_PROMPT, "missing")
        return self._started(prompt, conversational=texts.turn is not None), responses

    def prompt_and_response(self, prompt: Side, response: Side, row: dict[str, Any] | None = None) -> tuple[Ids, Ids]:
        """Ids of one prompt and one response, as in `split`, for scoring by a reward model.

        Args:
            prompt: Text, or messages; text before a response given as messages becomes a user message.
            response: Text, or messages; text after a prompt given as messages becomes an assistant message. An empty
                one is only EOS.
            row: As for `texts`.

        Raises:
            RowProblem: The prompt has no tokens, or the chat template refuses the messages.
            UserError: If there is no chat template.
        """
        if isinstance(prompt, list) and isinstance(response, str):
            response = [{"role": "assistant", "content": response}]
        if isinstance(response, list) and isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        texts = self.texts(prompt, [response], row or {})
        ids, joint = self.encode(texts.all)
        ids = self._border(ids, [joint], texts)
        (behind,) = self._responses(ids, [joint], texts)
        return self._started(ids, conversational=texts.turn is not None), behind

    def prompt(self, prompt: Side, row: dict[str, Any]) -> Ids:
        """Ids of a prompt up to the start of a response, including the chat template's generation prompt.

        Args:
            prompt: Text or messages, not empty.
            row: As for `texts`.

        Raises:
            RowProblem: The chat template refuses the messages, or the prompt has no tokens.
            UserError: If there is no chat template.
        """
        text = self.template.prompt(prompt, row) if isinstance(prompt, list) else prompt
        return self._started(self.encode([text])[0], conversational=isinstance(prompt, list))

    def ended(self, response: Ids, *, conversational: bool) -> Ids:
        """A finished sampled response, with the end that it has in training.

        A stop string ends a response without any token, and a policy may have several end tokens.
        """
        closing = self.closing if conversational else [self.eos]
        for length in range(len(closing), 0, -1):
            if response[-length:] == closing[:length]:
                return [*response[:-length], *closing]
        return [*(response[:-1] if response and response[-1] in self.specials else response), *closing]

    def unended(self, response: Ids, *, conversational: bool) -> Ids:
        """A response of `prompt_and_response` without its end, unless that is all of it."""
        closing = self.closing if conversational else [self.eos]
        length = len(closing) if response[-len(closing) :] == closing else 1
        return response[:-length] or response

    def _added_start(self) -> Ids:
        """Tokens that the tokenizer puts before a text (BOS, or nothing); what it appends is left to `_end_text`."""
        bare, full = self.encode(["a"])[0], self.tokenizer("a")["input_ids"]
        for start in range(len(full) - len(bare) + 1):
            if full[start : start + len(bare)] == bare:
                return full[:start]
        return []

    def _closing(self) -> Ids:
        """Tokens that close a turn: the template's after an answer, from the first to the last special one.

        Tokens after the last answer only are the end of the conversation, used if inner answers have none; otherwise
        EOS.
        """
        marks = self.specials | set(self.tokenizer.added_tokens_decoder)
        for ids in self.encode(list(self.template.closings())):
            if places := [place for place, token in enumerate(ids) if token in self.specials]:
                return ids[next(place for place, token in enumerate(ids) if token in marks) : places[-1] + 1]
        return [self.eos]

    def _implicit_prompt(self, texts: Texts, ids: Sequence[Ids]) -> tuple[Texts, Ids]:
        """The longest common beginning that ends with a word and whose ids begin both joint tokenisations."""
        first, chosen, rejected = ids
        for end in word_ends(*texts.whole):
            text = texts.whole[0][:end]
            prompt = first if text == texts.prompt else self.encode([text])[0]
            if prompt == chosen[: len(prompt)] == rejected[: len(prompt)]:
                return Texts(text, texts.whole), prompt
        return Texts("", texts.whole), []

    def _border(self, prompt: Ids, joints: Sequence[Ids], texts: Texts) -> Ids:
        """The prompt's ids, cut to the start of the whole conversations if the template writes them differently."""
        if texts.turn is None or all(joint[: len(prompt)] == prompt for joint in joints):
            return prompt
        if texts.continued and all(text.startswith(texts.prompt) for text in texts.whole):
            return prompt  # a token crosses a border that isn't the template's, as in text
        (turn,) = self.encode([texts.turn])
        return prompt[: min(shared_length(prompt, other) for other in (turn, *joints))]

    def _started(self, prompt: Ids, *, conversational: bool) -> Ids:
        """The prompt with the tokens the tokenizer puts before a text; a chat template writes its own BOS."""
        if not set(prompt) - {*self.start, cast(Any, self.tokenizer).bos_token_id}:
            raise RowProblem("a prompt without tokens", "missing")
        return prompt if conversational or prompt[: len(self.start)] == self.start else self.start + prompt

    def _responses(self, prompt: Ids, joints: Sequence[Ids], texts: Texts) -> list[Ids]:
        """The responses' ids after the prompt's, with their end."""
        responses = []
        for joint, text in zip(joints, texts.whole, strict=True):
            crossed = joint[: len(prompt)] != prompt
            ids = self._alone(text[len(texts.prompt) :]) if crossed else joint[len(prompt) :]
            responses.append(self._ended(ids, conversational=texts.turn is not None))
        return responses

    def _alone(self, response: str) -> Ids:
        """Ids of a response that follows something, hence without the space SentencePiece puts before a text."""
        before, both = self.encode(["\n", "\n" + response])
        follows = both[: len(before)] == before and len(both) > len(before)
        return both[len(before) :] if follows else self.encode([response])[0]

    def _ended(self, ids: Ids, *, conversational: bool) -> Ids:
        """The response with its end exactly once; anything after that is dropped."""
        body = len(ids)
        while body and (ids[body - 1] in self.specials or self._is_blank(ids[body - 1])):
            body -= 1
        tail, ends = ids[body:], {self.closing[-1]} if conversational else {self.closing[-1], self.eos}
        places = [place for place, token in enumerate(tail) if token in ends]
        if places:
            return ids[: body + places[0] + 1]
        if not conversational:
            return [*ids, self.eos]
        specials = [place for place, token in enumerate(tail) if token in self.specials]
        return ids[: body + specials[-1] + 1] if specials else [*ids[:body], *self.closing]

    def _is_blank(self, token: int) -> bool:
        if token not in self._blank:
            self._blank[token] = not str(self.tokenizer.decode([token])).strip()
        return self._blank[token]


def have_duplicates(responses: Sequence[Ids]) -> bool:
    """Whether two responses are the same."""
    return len(set(map(tuple, responses))) < len(responses)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Tokens that aren't text, by id: those with a role (EOS, padding) and those added as special tokens."""
    tokens = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    tokens |= {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    if tokenizer.unk_token_id != tokenizer.eos_token_id:  # else it stands for text
        tokens.pop(cast(int, tokenizer.unk_token_id), None)
    return tokens
