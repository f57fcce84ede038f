import pytest

from hf_align.data.inspection.encoding import is_broken, mended

TEXTS = [
    "The café wasn’t open – I left…",
    "Ça coûte 5 €, n’est-ce pas ?",
    "Straße, Übung, Öl und „Ärger“",
    "Это хорошо.",
    "Das kostet 100 ₺ in İstanbul",
    "それは良い。",
    "I ❤️ it 😂",
    "Ελληνικά",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("wrong", ["latin-1", "cp1252"])
@pytest.mark.parametrize("times", [1, 2])
def test_utf8_that_was_read_as_another_encoding_is_read_back(text, wrong, times):
    broken = text
    for _ in range(times):
        data = broken.encode()
        broken = (
            data.decode(wrong)
            if wrong == "latin-1"
            else "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in data)
        )
    assert is_broken(broken)
    assert mended(broken) == text


@pytest.mark.parametrize(
    "text",
    [
        *TEXTS,
        "Plain.\n\n\tWith tabs\r\n",
        "At the CAFÉ™ and the „Ä“ of „Ü“",
        "NÃO É, MAÇÃ” – À”",
        "¿Qué? ¡Año! 20 °C, ± 5 µm, § 3, £5",
        "zażółć gęślą jaźń",
        "Use &amp; for an ampersand in HTML.",
        "<p>fish &amp; chips</p>",
        "AT&T; fish & chips; R&D",
        "I <3 it & you",
    ],
)
def test_texts_as_they_should_be_are_not_touched(text):
    assert not is_broken(text)
    assert mended(text) == text


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("fish &amp; chips &#39;n&#x27; peas", "fish & chips 'n' peas"),
        ("fish &amp;amp; chips", "fish & chips"),
        ("a\x00b\x07", "ab"),
        ("it\x92s \x93good\x94", "it’s “good”"),
        ("\ufeffHello", "Hello"),
        ("what\ufffds lost is lost", "what\ufffds lost is lost"),
        ("a mix: cafÃ© – and 茶", "a mix: café – and 茶"),
    ],
)
def test_entities_and_control_characters_are_repaired_and_lost_characters_are_not(text, right):
    assert is_broken(text)
    assert mended(text) == right
