import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioelx_ray.errors import InputError
from bioelx_ray.kb.text import language_tag, normalise, script, unusable

OPEN_KB = Path(__file__).parents[3] / "shared" / "data" / "open_kb.tsv"

LANGS = st.sampled_from(["und", "en", "de", "tr", "az-Latn", "el", "fa", "ja"])
# Letters beside the characters that a normalisation stumbles over.
AWKWARD = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("iIİı\u0307\u0323\u0345\u0301\u0640\u200b\u200c\u200d\xad´″ςΣßẞ\t\u3000"),
    ),
    max_size=12,
)


@pytest.mark.parametrize(
    ("text", "lang", "expected"),
    [
        ("  Heart \t Attack\r\n", "en", "heart attack"),
        ("심근\u200b경색", "ko", "심근경색"),
        (unicodedata.normalize("NFD", "심근경색"), "ko", "심근경색"),
        ("กล้ามเนื้อ\u200bหัวใจ", "th", "กล้ามเนื้อหัวใจ"),
        ("心筋\u3000梗塞", "ja", "心筋 梗塞"),
        ("ﾍﾟｰｽﾒｰｶｰ", "ja", "ペースメーカー"),
        ("葛\U000e0100根湯", "ja", "葛根湯"),
        ("ＣＯＶＩＤ－１９", "zh", "covid-19"),
        ("急性心肌梗死（ＡＭＩ）", "zh", "急性心肌梗死(ami)"),
        ("احتشاء \u200fعضلة القلب", "ar", "احتشاء عضلة القلب"),
        ("قـــلب", "ar", "قلب"),
        ("\ufe8d\ufea3\ufe98\ufeb8\ufe8e\ufe80", "ar", "احتشاء"),
        ("צה״ל ג׳ירפה", "he", "צה\"ל ג'ירפה"),
        ("אוטם שריר־הלב", "he", "אוטם שריר-הלב"),
        ("हृदयाघात", "hi", "हृदयाघात"),
        ("क्\u200dष", "hi", "क्ष"),
        ("क्\u200cष", "hi", "क्ष"),
        ("ИНФАРКТ Миокарда", "ru", "инфаркт миокарда"),
        ("ЁЛКА", "ru", "ёлка"),
        ("ΈΜΦΡΑΓΜΑ ΜΥΟΚΑΡΔΊΟΥ", "el", "έμφραγμα μυοκαρδίου"),
        ("Νόσος", "el", "νόσοσ"),
        ("Straße GROẞ", "de", "strasse gross"),
        ("Herz\xadinfarkt", "de", "herzinfarkt"),
        ("Crohn’s", "en", "crohn's"),
        ("Crohn´s", "en", "crohn's"),
        ("Crohn`s", "en", "crohn's"),
        ("«angine» „Herz“ 5″", "fr", '"angine" "herz" 5"'),
        ("Guillain–Barré", "fr", "guillain-barré"),
        ("10⁻³", "en", "10-3"),
        ("ﬁbrosis", "en", "fibrosis"),
        ("a\x00b\x07c", "en", "abc"),
        ("a\u2028b\u00a0c\u2003d", "en", "a b c d"),
        ("", "en", ""),
    ],
)
def test_normalise(text, lang, expected):
    assert normalise(text, lang) == expected


@pytest.mark.parametrize("lang", ["tr", "az", "az-Latn-AZ", "TR"])
def test_turkic_i(lang):
    assert normalise("ISIRIK İNFARKTÜS", lang) == "ısırık infarktüs"
    assert normalise("ISIRIK", lang) == "ısırık"
    assert normalise("I\u0307nme", lang) == "inme"


@pytest.mark.parametrize("lang", ["und", "en", "de", "trv"])
def test_dotted_capital_elsewhere_leaves_no_stray_dot(lang):
    assert normalise("İNME", lang) == "inme"
    assert normalise("İ".lower() + "nme", lang) == "inme"
    assert normalise("ISIRIK", lang) == "isirik"


def test_persian_joins_with_or_without_zwnj_alike():
    assert normalise("بیماری\u200cهای قلبی", "fa") == normalise("بیماری های قلبی", "fa")
    assert normalise("\u200cقلب\u200c", "fa") == "قلب"


@settings(deadline=None)  # a busy machine is no failure
@given(AWKWARD, LANGS)
def test_normalise_is_idempotent(text, lang):
    once = normalise(text, lang)
    assert normalise(once, lang) == once


@settings(deadline=None)  # a busy machine is no failure
@given(AWKWARD, LANGS)
def test_canonically_equal_texts_are_one_form(text, lang):
    assert normalise(unicodedata.normalize("NFD", text), lang) == normalise(
        unicodedata.normalize("NFC", text), lang
    )


def test_greek_accents_are_one_form_however_composed():
    for char in map(chr, range(0x1F00, 0x2000)):
        assert normalise(unicodedata.normalize("NFD", char), "el") == normalise(char, "el")


def test_every_character_is_stable_and_leaves_nothing_odd():
    odd = set("‐‑‒–—―−’‘´`“”«»״׳")
    for point in range(0x30000):
        form = normalise(chr(point))
        assert normalise(form) == form, hex(point)
        assert not odd & set(form), hex(point)
        assert not any(unicodedata.category(c) in {"Cc", "Cf", "Zl"} for c in form), hex(point)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("heart attack", "Latin"),
        ("Ｈｅａｒｔ", "Latin"),
        ("Šećerna bolest", "Latin"),
        ("Nhồi máu cơ tim", "Latin"),
        ("инфаркт миокарда I", "Cyrillic"),
        ("έμφραγμα", "Greek"),
        ("心筋梗塞", "Han"),
        ("心臓ペースメーカー", "Kana"),
        ("ﾍﾟｰｽﾒｰｶｰ", "Kana"),
        ("심근경색", "Hangul"),
        (unicodedata.normalize("NFD", "심근경색"), "Hangul"),
        ("กล้ามเนื้อหัวใจ", "Thai"),
        ("احتشاء", "Arabic"),
        ("אוטם", "Hebrew"),
        ("हृदयाघात", "Devanagari"),
        ("হৃদরোগ", "Other"),
        ("𠮷", "Han"),
        ("", "Other"),
        ("12.5 %", "Other"),
        ("…—", "Other"),
        ("ab 心臓", "Latin"),
        ("心臓 ab", "Han"),
    ],
)
def test_script(text, expected):
    assert script(text) == expected


def test_script_agrees_with_the_names_of_unicode():
    names = {
        "LATIN ": "Latin",
        "CYRILLIC ": "Cyrillic",
        "GREEK ": "Greek",
        "CJK UNIFIED": "Han",
        "HIRAGANA LETTER": "Kana",
        "KATAKANA LETTER": "Kana",
        "HANGUL ": "Hangul",
        "THAI ": "Thai",
        "ARABIC LETTER": "Arabic",
        "HEBREW ": "Hebrew",
        "DEVANAGARI ": "Devanagari",
    }
    seen = set()
    mixed = {*range(0x1D00, 0x1DC0), 0x2184}  # phonetic letters of three scripts in one block
    for point in (p for p in range(0x3600) if p not in mixed):
        char = chr(point)
        name = unicodedata.name(char, "")
        expected = next((s for start, s in names.items() if name.startswith(start)), None)
        if char.isalpha() and expected:
            seen.add(expected)
            assert script(char) == expected, name
    assert seen == set(names.values())


@pytest.mark.parametrize(
    ("code", "tag"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("nna", "nna"),
        ("dtp", "dtp"),
        ("zh-tw", "zh-TW"),
        ("pt-br", "pt-BR"),
        ("ZH-hant-tw", "zh-Hant-TW"),
        ("es-419", "es-419"),
        ("de-CH-1901", "de-CH-1901"),
        ("und", "und"),
        ("zh_TW", "zh-TW"),
        ("eng", "en"),
        ("ger-CH", "de-CH"),
        ("iw", "he"),
        ("mo", "ro"),
        ("no", "nb"),
        ("nn", "nn"),
        ("sr-latn", "sr-Latn"),
        ("en-simple", "en-simple"),
    ],
)
def test_language_tag(code, tag):
    assert language_tag(code) == tag
    assert language_tag(tag) == tag


@pytest.mark.parametrize(
    "code", ["", "e", "english", "zh__TW", "en-", "-en", "en US", "x-klingon", "dé", "en\n", "e1"]
)
def test_language_tag_says_what_it_expects(code):
    with pytest.raises(InputError, match=r"no BCP 47 tag: expected .* such as de, nna, pt-BR"):
        language_tag(code)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("nan", "placeholder"),
        ("NULL", "placeholder"),
        ("None", "placeholder"),
        ("?! -", "no letter or digit"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("x" * 501, "longer than 500"),
    ],
)
def test_unusable(text, reason):
    assert reason in unusable(text)


@pytest.mark.parametrize("text", ["Naan", "nanism", "x" * 500, "β", "5", "심", "Herz\xadinfarkt"])
def test_usable(text):
    assert unusable(text) is None


@pytest.mark.skipif(not OPEN_KB.exists(), reason=f"{OPEN_KB} is not there")
def test_real_aliases_are_stable():
    rows = OPEN_KB.read_text(encoding="utf-8").splitlines()[1::20]
    assert len(rows) > 17_000
    for row in rows:
        _, lang, text, _ = row.split("\t")
        form = normalise(text, lang)
        assert form
        assert normalise(form, lang) == form
