"""Ends of prompts, starts of sequences and ends of responses."""

import pytest

from hf_align.collators import tokenize_preferences, tokenize_prompts
from hf_align.collators.encoding import PairEncoder
from hf_align.collators.rows import RowProblem
from hf_align.errors import UserError


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def ids(row, tokenizer, **limits):
    """Prompt, chosen and rejected ids of one row."""
    out = tokenize_preferences([row], tokenizer, **limits)[0]
    return out["prompt_ids"], *out["response_ids"]


def text(row, tokenizer, **limits):
    return tuple(tokenizer.decode(part) for part in ids(row, tokenizer, **limits))


def bare(tokenizer, *texts):
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"]


CHAT = {"prompt": [user("Hi")], "chosen": [assistant("Yes.")], "rejected": [assistant("No.")]}
HEADER = "{% if add_generation_prompt %}<s>assistant:{% endif %}"
TURN = "{% for m in messages %}<s>{{ m['role'] }}:{{ m['content'] }}END{% endfor %}" + HEADER


# Standard rows


def test_response_ids_are_those_of_the_joint_text(tokenizer):
    prompt, chosen, rejected = ids({"prompt": "The sky is", "chosen": " blue", "rejected": " red."}, tokenizer)
    assert prompt == tokenizer("The sky is")["input_ids"]
    assert prompt + chosen == [*tokenizer("The sky is blue")["input_ids"], tokenizer.eos_token_id]
    assert prompt + rejected == [*tokenizer("The sky is red.")["input_ids"], tokenizer.eos_token_id]


def test_a_prompt_keeps_its_ids_where_a_token_crosses_its_end(tokenizer):
    row = {"prompt": "The sky is ", "chosen": "blue", "rejected": " red"}
    prompt, chosen, rejected = ids(row, tokenizer)
    assert tokenizer("The sky is blue")["input_ids"][: len(prompt)] != prompt  # " blue" is one token
    assert prompt == tokenizer("The sky is ")["input_ids"]
    assert [chosen, rejected] == [[*part, tokenizer.eos_token_id] for part in bare(tokenizer, "blue", " red")]


def test_a_response_alone_gets_no_sentencepiece_space(bos_tokenizer):
    prompt, chosen, _ = ids({"prompt": "Hello ", "chosen": "world", "rejected": "sky"}, bos_tokenizer)
    assert prompt == bos_tokenizer("Hello ")["input_ids"]
    assert bos_tokenizer.decode([*prompt, *chosen]) == "<s> Hello world</s>"  # one space, as in the row
    assert bos_tokenizer.decode(bare(bos_tokenizer, "world")[0]) == "world"
    assert chosen[0] != bare(bos_tokenizer, "world")[0][0]  # which is "▁world"


@pytest.mark.parametrize("post", ["<s> $A", "<s> $A </s>", "$A </s>", "$A"])
def test_bos_and_eos_come_exactly_once_whatever_the_tokenizer_adds(make_tokenizer, post):
    tokenizer = make_tokenizer(post)
    prompt, chosen, rejected = ids({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}, tokenizer)
    start = [tokenizer.bos_token_id] if "<s>" in post else []
    assert prompt == start + bare(tokenizer, "The sky is")[0]
    assert prompt + chosen == [*start, *bare(tokenizer, "The sky is blue.")[0], tokenizer.eos_token_id]
    assert rejected.count(tokenizer.eos_token_id) == 1


def test_bos_and_eos_written_into_the_text_are_not_doubled(bos_tokenizer):
    plain = {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}
    written = {"prompt": "<s>The sky is", "chosen": " blue.</s>", "rejected": " green.</s></s>"}
    bos, eos = bos_tokenizer.bos_token_id, bos_tokenizer.eos_token_id
    prompt, chosen, rejected = ids(written, bos_tokenizer)
    assert (prompt.count(bos), prompt[0]) == (1, bos)
    assert (chosen.count(eos), chosen[-1], rejected.count(eos), rejected[-1]) == (1, eos, 1, eos)
    assert [chosen, rejected] == list(ids(plain, bos_tokenizer)[1:])


def test_an_eos_within_the_prompt_stays(make_tokenizer):
    tokenizer = make_tokenizer("<s> $A </s>")
    prompt, _, _ = ids({"prompt": "Hello</s>", "chosen": " blue.", "rejected": " green."}, tokenizer)
    assert prompt[-1] == tokenizer.eos_token_id  # the user's, not the tokenizer's
    assert prompt.count(tokenizer.eos_token_id) == 1


def test_a_response_of_nothing_but_eos_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"1 row has a chosen without a token \(row 0\)"):
        ids({"prompt": "Hi", "chosen": "<|im_end|>", "rejected": " no"}, tokenizer)


def test_a_tokenizer_without_eos_is_refused(make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match=r"set tokenizer\.eos_token"):
        ids({"prompt": "Hi", "chosen": " a", "rejected": " b"}, tokenizer)


# Standard rows with an implicit prompt


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),
        ("The sky is bluish.", "The sky is blue.", "The sky is"),  # never mid-word ...
        ("I am unhappy", "I am unhappily", "I am"),
        ("It's 12:30", "It's 12:35", "It's 12:"),
        ("We do it", "We don't", "We"),
        ("It is 5", "It is 7", "It is"),  # a space begins the response, even where it is a token
        ("Q: why?\nA: yes", "Q: why?\nA: no", "Q: why?\nA:"),
        ("Q: why?\nyes", "Q: why?\nno", "Q: why?\n"),
        ("Q: why? yes", "Q: why? yes and no", "Q: why?"),  # ... and something is left of both
        ("天气很好", "天气很坏", "天气很"),
        # what is read as one character isn't cut: an emoji of several, a flag, a letter with its accent
        ("Who? 👨‍👩‍👧 yes", "Who? 👨‍👩‍👦 no", "Who?"),
        ("So 👍🏽 yes", "So 👍🏿 no", "So"),
        ("So ❤️ yes", "So ❤ no", "So"),
        ("From 🇩🇪 yes", "From 🇩🇰 no", "From"),
        ("Kids: 👨‍👩‍👧yes", "Kids: 👨‍👩‍👧no", "Kids: 👨‍👩‍👧"),
    ],
)
def test_an_implicit_prompt_ends_with_a_word(tokenizer, chosen, rejected, prompt):
    actual = ids({"chosen": chosen, "rejected": rejected}, tokenizer)
    assert tokenizer.decode(actual[0]) == prompt
    assert actual[0] == tokenizer(prompt)["input_ids"]
    assert tokenizer.decode(actual[0] + actual[1]) == chosen + "<|im_end|>"
    assert tokenizer.decode(actual[0] + actual[2]) == rejected + "<|im_end|>"


def test_an_implicit_prompt_ends_where_a_token_ends(tokenizer):
    row = {"chosen": 'The answer:"yes"', "rejected": "The answer: no"}
    prompt, chosen, rejected = ids(row, tokenizer)
    eos = tokenizer.eos_token_id
    assert tokenizer.decode(prompt) == "The answer"  # ':"' is one token
    assert prompt + chosen == [*tokenizer(row["chosen"])["input_ids"], eos]
    assert prompt + rejected == [*tokenizer(row["rejected"])["input_ids"], eos]


def test_a_prompt_without_tokens_of_its_own_is_refused_whether_or_not_there_is_bos(tokenizer, bos_tokenizer):
    row = {"chosen": "Yes sir", "rejected": "Yesterday"}
    for each in (tokenizer, bos_tokenizer):
        with pytest.raises(UserError, match=r"1 row has no prompt: chosen and rejected share no first words \(row 0\)"):
            ids(row, each)
        with pytest.raises(UserError, match=r"train_dataset: 1 row has a prompt without tokens \(row 0\)"):
            ids({"prompt": each.bos_token, "chosen": "a", "rejected": "b"}, each)
        with pytest.raises(UserError, match=r"1 row has a prompt without tokens \(row 0\)"):
            tokenize_prompts([{"prompt": each.bos_token}], each)


# Conversations


def test_a_conversation_gets_the_generation_prompt_and_ends_with_the_end_of_turn(tokenizer):
    prompt, chosen, rejected = ids(CHAT, tokenizer)
    inference = tokenizer.apply_chat_template(CHAT["prompt"], add_generation_prompt=True)["input_ids"]
    assert prompt == inference
    assert tokenizer.decode(chosen) == "Yes.<|im_end|>"  # without the template's line break behind it
    assert chosen[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(rejected) == "No.<|im_end|>"


def test_all_conversation_formats_give_the_same_ids(tokenizer):
    whole = {"chosen": [user("Hi"), assistant("Yes.")], "rejected": [user("Hi"), assistant("No.")]}
    expected = ids(CHAT, tokenizer)
    assert ids(whole, tokenizer) == expected
    assert ids(whole | {"prompt": [user("Hi")]}, tokenizer) == expected
    assert ids(whole | {"prompt": "Hi"}, tokenizer) == expected


def test_a_response_of_several_turns_ends_once_at_its_end(tokenizer):
    chosen = [assistant("Yes."), user("Sure?"), assistant("Yes!")]
    assert text(CHAT | {"chosen": chosen}, tokenizer)[1] == (
        "Yes.<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\nYes!<|im_end|>"
    )


def test_spaces_at_a_response_s_end_are_its_own(tokenizer):
    assert text(CHAT | {"chosen": [assistant("Yes. \n")]}, tokenizer)[1] == "Yes. \n<|im_end|>"


def test_an_answer_that_holds_the_end_of_turn_ends_once(tokenizer):
    assert text(CHAT | {"chosen": [assistant("Yes.<|im_end|>")]}, tokenizer)[1] == "Yes.<|im_end|>"


@pytest.mark.parametrize("prefill", ["Well, it is", "Well, it is "])
def test_a_prefilled_answer_is_continued(tokenizer, prefill):
    row = CHAT | {"prompt": [user("Hi"), assistant(prefill)]}
    row |= {"chosen": [assistant(" so.")], "rejected": [assistant(" not.")]}
    prompt, chosen, _ = ids(row, tokenizer)
    assert tokenizer.decode(prompt).endswith(f"<|im_start|>assistant\n{prefill}")
    assert tokenizer.decode(prompt + chosen).endswith(f"<|im_start|>assistant\n{prefill} so.<|im_end|>")


@pytest.mark.parametrize(
    ("behind", "end"),
    [
        ("</s>", "</s>"),
        (" </s>\n", "</s>"),
        ("<|end|>\n", "<|end|>"),  # an end of turn that is not EOS
        ("<|end|>\n{% if loop.last and not add_generation_prompt %}</s>{% endif %}", "<|end|>"),  # followed by EOS
        ("\n", "</s>"),  # none: EOS is added
        ("", "</s>"),
    ],
)
def test_the_end_is_the_token_by_which_the_template_ends_a_turn(make_tokenizer, behind, end):
    tokenizer = make_tokenizer(chat_template=TURN.replace("END", behind))
    prompt, chosen, _ = ids(CHAT, tokenizer)
    assert tokenizer.convert_ids_to_tokens(chosen)[-1] == end
    assert sum(token in (tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")) for token in chosen) == 1
    assert prompt[:2] != [tokenizer.bos_token_id] * 2  # the template writes <s> and the tokenizer would add one


def test_a_chat_template_decides_about_bos(make_tokenizer):
    tokenizer = make_tokenizer(chat_template=TURN.replace("END", "</s>").replace("<s>", ""))
    prompt, _, _ = ids(CHAT, tokenizer)
    assert prompt == tokenizer.apply_chat_template(CHAT["prompt"], add_generation_prompt=True)["input_ids"]
    assert tokenizer.bos_token_id not in prompt


def test_another_special_token_at_the_end_of_a_turn_is_kept_as_its_end(make_tokenizer):
    template = TURN.replace("END", "{% if m['content'] == 'Yes.' %}<|call|>{% else %}<|end|>{% endif %}")
    tokenizer = make_tokenizer(chat_template=template)
    _, chosen, rejected = ids(CHAT, tokenizer)
    assert [tokenizer.convert_ids_to_tokens(part)[-1] for part in (chosen, rejected)] == ["<|call|>", "<|end|>"]


def test_tools_and_template_arguments_reach_the_template(tokenizer, make_tokenizer):
    template = "{{ 'no tools' if tools is none else tools[0]['name'] }} {{ mood }} " + TURN.replace("END", "</s>")
    shown = make_tokenizer(chat_template=template)
    row = CHAT | {"tools": '[{"name": "clock"}]', "chat_template_kwargs": {"mood": "calm", "other": None}}
    assert "clock calm" in text(row, shown)[0]
    assert "no tools" in text(CHAT | {"tools": "[]"}, shown)[0]
    with pytest.raises(UserError, match="tools that are neither a list nor JSON"):
        ids(CHAT | {"tools": "[clock"}, shown)


def test_a_template_s_refusal_names_the_row(make_tokenizer):
    template = "{% if messages[0]['content'] == 'Hi' %}{{ raise_exception('Say more!\nAt once.') }}{% endif %}" + TURN
    tokenizer = make_tokenizer(chat_template=template.replace("END", "</s>"))
    with pytest.raises(UserError, match=r"1 row has messages that the chat template refuses \(Say more!\) \(row 0\)"):
        ids(CHAT, tokenizer)


def test_conversations_need_a_chat_template(bos_tokenizer):
    with pytest.raises(UserError, match="the tokenizer has no chat template"):
        ids(CHAT, bos_tokenizer)


def test_bos_survives_a_cut_prompt(bos_tokenizer):
    row = {"prompt": "The sky is blue. " * 5 + "Why? ", "chosen": "Yes", "rejected": "No"}
    prompt, _, _ = ids(row, bos_tokenizer, max_prompt_length=4)
    assert prompt == [bos_tokenizer.bos_token_id, *bos_tokenizer(row["prompt"])["input_ids"][-3:]]


def test_one_prompt_and_response_get_the_ids_of_a_row(tokenizer, bos_tokenizer):
    for encoder, row in (
        (PairEncoder(tokenizer), CHAT),
        (PairEncoder(bos_tokenizer), {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}),
    ):
        prompt, chosen, rejected = ids(row, encoder.tokenizer)
        assert encoder.prompt_and_response(row["prompt"], row["chosen"]) == (prompt, chosen)
        assert encoder.prompt_and_response(row["prompt"], row["rejected"]) == (prompt, rejected)
    encoder = PairEncoder(tokenizer)
    assert encoder.prompt_and_response("Hi", [assistant("Yes.")]) == ids(CHAT, tokenizer)[:2]
    assert encoder.prompt_and_response([user("Hi")], "Yes.") == ids(CHAT, tokenizer)[:2]
    assert encoder.prompt_and_response("Hi", "")[1] == [tokenizer.eos_token_id]
    with pytest.raises(RowProblem, match="a prompt without tokens"):
        encoder.prompt_and_response("", "Yes.")
