import unicodedata

import pytest

from hf_align.data.inspection.language import NAMES, Languages, script_of
from tests.data.inspection.checking import by_kind, found_by

ENGLISH, RUSSIAN, CHINESE, JAPANESE = "The cat sleeps.", "Кошка спит.", "猫在睡觉。", "ねこがねむる。"


def test_letters_have_the_script_that_unicode_names_them_by() -> None:
    names = {"Latin": "LATIN", "Greek": "GREEK", "Cyrillic": "CYRILLIC", "Hebrew": "HEBREW", "Arabic": "ARABIC"}
    names |= {"Devanagari": "DEVANAGARI", "Thai": "THAI", "Hangul": "HANGUL", "Armenian": "ARMENIAN", "Tamil": "TAMIL"}
    for script, name in names.items():
        letters = [
            chr(code)
            for code in range(0x41, 0xD7A4)
            if unicodedata.name(chr(code), "").startswith(f"{name} ")
            and unicodedata.category(chr(code)) in ("Lo", "Ll")
        ]
        wrong = [letter for letter in letters if NAMES[script_of(letter * 3)] != script]
        assert len(letters) > 15 and len(wrong) <= 0.02 * len(letters), (script, wrong)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (ENGLISH, "Latin"),
        (RUSSIAN, "Cyrillic"),
        (CHINESE, "Chinese or Japanese"),
        (JAPANESE, "Chinese or Japanese"),
        ("고양이가 잔다", "Hangul"),
        ("12 + 30 = 42", ""),
        ("ok", ""),
        ("The Russian word for it is кот, which we use.", "Latin"),
        ("abcжця", ""),
        ("🎉🎉🎉🎉", ""),
        ("ᚠᚢᚦᚨᚱᚲ", "another"),
    ],
)
def test_a_text_has_the_script_of_most_of_its_letters(text: str, script: str) -> None:
    assert NAMES[script_of(text)] == script


def test_rows_with_a_response_in_another_script_than_prompt_or_rival_are_listed() -> None:
    rows = [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        for prompt, chosen, rejected in [
            (ENGLISH, "Yes, it does.", "No, it doesn't."),
            (ENGLISH, "Yes, it does.", RUSSIAN),
            (ENGLISH, CHINESE, JAPANESE),
            (CHINESE, JAPANESE, "42"),
            ("?", RUSSIAN, "It sleeps."),
            ("?", RUSSIAN, "Да, спит."),
            (RUSSIAN, "Да, спит.", "Нет. (No)"),
            (ENGLISH, "7", "8"),
        ]
    ]
    found = found_by(Languages, rows)
    finding = by_kind(found)["language"]
    assert (list(finding.rows), finding.severity) == ([1, 2, 4], "warning")
    assert finding.message.startswith("3 rows have a response in another script than its prompt or its rival")
    assert finding.example == "Latin: 'The cat sleeps.'; Latin: 'Yes, it does.'; Cyrillic: 'Кошка спит.'"
    assert found.metrics["scripts"]["responses"] == {"Cyrillic": 6, "Latin": 4, "Chinese or Japanese": 3, "none": 3}


def test_implicit_prompts_have_no_script() -> None:
    rows = [{"chosen": f"{ENGLISH} {RUSSIAN} {RUSSIAN}", "rejected": f"{ENGLISH} Yes."}]
    found = found_by(Languages, rows)
    assert found.metrics["scripts"]["prompts"] == {"none": 1} and len(found.findings) == 1
