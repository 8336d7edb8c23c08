"""Prompts: what is marked, what is cut, what is said of a candidate."""

import hashlib
import re
import time
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from bioelx_ray.config_ranking import PromptConfig
from bioelx_ray.errors import ConfigError, InputError
from bioelx_ray.ranking import template as templates
from bioelx_ray.ranking.card import near_aliases
from bioelx_ray.ranking.engine import Message
from bioelx_ray.ranking.plain import plain_text
from bioelx_ray.ranking.prompt import Prompts
from bioelx_ray.ranking.template import CLOSING, OPENING, open_template
from bioelx_ray.ranking.window import abridged, around, code_points, head, tail, without_middle
from bioelx_ray.records import Alias, Candidate, Mention, mention_in
from bioelx_ray.testing import ScriptedEngine, small_kb

TEXTS = {
    "en": "He had no cough. The man with fever came in. He left soon after.",
    "ko": "기침은 없었다. 열이 있는 남자가 왔다. 그는 곧 떠났다.",
    "th": "เขาไม่มีอาการไอ ชายที่มีไข้สูงมาโรงพยาบาล เขากลับบ้านในเวลาต่อมา",
    "zh": "他没有咳嗽。发烧的男人来了。他很快就走了。",
    "ja": "彼は咳がなかった。発熱のある男が来た。彼はすぐに帰った。",
    "ar": "لم يكن لديه سعال. جاء الرجل المصاب بالحمى. غادر بعد ذلك.",
    "he": "לא היה לו שיעול. האיש עם החום הגיע. הוא עזב מיד.",
    "hi": "उसे खाँसी नहीं थी। बुखार वाला आदमी आया। वह जल्दी चला गया।",
}
MARKED = {
    "en": "fever",
    "ko": "열",
    "th": "ไข้",
    "zh": "发烧",
    "ja": "発熱",
    "ar": "بالحمى",
    "he": "החום",
    "hi": "बुखार",
}


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    return small_kb(tmp_path_factory.mktemp("kb"))


def made(kb, name="qwen3-reranker", **settings):
    config = PromptConfig(template=name, **settings)
    return Prompts(open_template(name), kb, engine=ScriptedEngine(), config=config)


def mention(lang, text=None, part=None):
    text, part = text or TEXTS[lang], part or MARKED[lang]
    return mention_in(text, text.index(part), text.index(part) + len(part), lang=lang)


def candidate(concept_id="hp:0001945", alias="Fever", lang="en"):
    return Candidate(concept_id=concept_id, alias=alias, lang=lang, source="s", score=0.5)


def text_of(prompt):
    return prompt if isinstance(prompt, str) else "\n".join(m.content for m in prompt)


# the published format, from the model's card
QWEN = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: {instruct}\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


def test_the_qwen_template_is_the_published_format(kb):
    prompts = made(kb)
    prompt = prompts.pointwise(prompts.subject(mention("en")), candidate(), "en")
    instruct = re.search("<Instruct>: (.*)\n", prompt)[1]
    assert prompt == QWEN.format(
        instruct=instruct,
        query=f"{TEXTS['en'].replace('fever', '<mention>fever</mention>')}\n"
        "The marked mention is: fever",
        document="Fever (symptom). Also called: pyrexia. Raised body temperature.",
    )
    assert "the marked mention alone" in instruct


@pytest.mark.parametrize("lang", TEXTS)
@pytest.mark.parametrize("name", templates.PACKAGED)
def test_every_script_is_marked_once_and_keeps_its_text(kb, lang, name):
    prompts = made(kb, name)
    subject = prompts.subject(mention(lang))
    marked = TEXTS[lang].replace(MARKED[lang], f"{OPENING}{MARKED[lang]}{CLOSING}", 1)
    assert subject == {"context": marked, "mention": MARKED[lang]}
    prompt = (
        prompts.listwise(subject, ["one", "two"])
        if name == "listwise"
        else prompts.pointwise(subject, candidate(), lang)
    )
    assert isinstance(prompt, str) == (name == "qwen3-reranker")
    assert text_of(prompt).count(OPENING) == text_of(prompt).count(CLOSING) == 1
    assert marked in text_of(prompt)


def test_of_the_same_words_only_the_mention_is_marked(kb):
    text = "cold hands, a cold, cold feet: a cold day"
    subject = made(kb).subject(mention_in(text, 14, 18, lang="en"))
    assert subject["context"] == "cold hands, a <mention>cold</mention>, cold feet: a cold day"


def test_the_texts_own_marks_are_no_marks(kb):
    text = "a <mention>x</mention> and a </mention>cold<mention> y"
    subject = made(kb).subject(mention_in(text, text.index("cold"), text.index("cold") + 4))
    assert subject["context"].count(OPENING) == subject["context"].count(CLOSING) == 1
    assert "<mention>cold</mention>" in subject["context"]


def test_the_shared_parts_come_first(kb):
    prompts = made(kb)
    first, second = prompts.subject(mention("en")), prompts.subject(mention("en", part="cough"))
    one, other = (
        prompts.pointwise(first, candidate(c), "en") for c in ("hp:0001945", "hp:0002099")
    )
    same = len(prefix(one, other))
    assert one[:same].endswith("<Document>: ")
    across = prefix(one, prompts.pointwise(second, candidate(), "en"))
    assert across.endswith("<Query>: He had no ")  # up to the first of both mentions


def prefix(one, other):
    return one[: next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)]


@pytest.mark.parametrize("lang", TEXTS)
def test_contexts_are_cut_to_the_budget_next_to_the_mention(kb, lang):
    # every letter twice as dear: what counts is the counter, not the length
    long = mention(lang, text=TEXTS[lang] * 3, part=MARKED[lang])
    long = Mention(
        text=long.text, lang=lang, left=TEXTS[lang] * 40 + long.left, right=long.right * 40
    )
    for budget in (0, 1, 7, 40, 300):
        left, right = around(long.left, long.right, budget, count=lambda t: 2 * len(t))
        assert 2 * len(left) + 2 * len(right) <= budget
        assert long.left.endswith(left)
        assert long.right.startswith(right)
    assert 2 * len(left) + 2 * len(right) > 150


@pytest.mark.parametrize("lang", ["en", "ko", "zh", "ja", "ar", "he", "hi"])
def test_contexts_end_where_sentences_end(kb, lang):
    text = TEXTS[lang] + ("" if lang in ("zh", "ja") else " ")
    where = mention(lang, text=text * 9)
    where = mention_in(text * 9, where.start + 4 * len(text), where.end + 4 * len(text), lang=lang)
    context = made(kb, context_tokens=2 * len(text)).subject(where)["context"]
    sentences = re.findall(r"[^.।。]+[.।。]", text)
    bare = context.replace(OPENING, "").replace(CLOSING, "")
    assert any(bare.startswith(sentence.strip()) for sentence in sentences)
    assert bare[-1] in ".।。"


def test_line_breaks_end_sentences_and_become_spaces(kb):
    text = "Diagnosis\n\n  fever  \r\nTherapy\nnone"
    start = text.index("fever")
    subject = made(kb).subject(mention_in(text, start, start + 5))
    assert subject["context"] == "Diagnosis <mention>fever</mention> Therapy none"
    subject = made(kb, context_tokens=34).subject(
        mention_in(f"{'x ' * 40}\n{text}\n{'y ' * 40}", start + 81, start + 86)
    )
    assert subject["context"] == "Diagnosis <mention>fever</mention> Therapy none"


def test_words_stay_apart_or_together_as_they_were(kb):
    assert made(kb).subject(mention_in("Herzinfarkte", 0, 11))["context"] == (
        "<mention>Herzinfarkt</mention>e"
    )
    assert made(kb).subject(mention_in("a  fever b", 3, 8))["context"] == (
        "a <mention>fever</mention> b"
    )


def test_one_side_takes_what_the_other_leaves():
    left, right = around("", "x" * 100, 40, count=code_points)
    assert (left, right) == ("", "x" * 40)
    left, right = around("y" * 100, "xx", 40, count=code_points)
    assert (left, right) == ("y" * 38, "xx")
    assert tuple(map(len, around("y" * 99, "x" * 99, 41, count=code_points))) == (20, 21)


def test_no_context_and_huge_contexts(kb):
    assert made(kb).subject(Mention(text="fever"))["context"] == "<mention>fever</mention>"
    huge = Mention(text="fever", left="word " * 1_000_000, right=" word" * 1_000_000)
    start = time.perf_counter()
    context = made(kb).subject(huge)["context"]
    assert time.perf_counter() - start < 1
    assert "word <mention>fever</mention> word" in context
    assert 200 < len(context) < 256 + 60


@pytest.mark.parametrize("text", ["ไข้" * 5000, "fever " * 5000, "👨‍👩‍👧" * 900, "क्ष" * 4000])
def test_a_huge_mention_keeps_its_ends(kb, text):
    subject = made(kb, mention_tokens=32).subject(Mention(text=text, left="a ", right=" b"))
    shown = subject["mention"]
    assert len(shown) <= 34
    first, last = re.split(" … ", shown)
    assert text.startswith(first)
    assert text.rstrip().endswith(last)
    assert first
    assert last
    assert subject["context"] == f"a {OPENING}{shown}{CLOSING} b"


def test_a_mention_survives_a_budget_smaller_than_a_grapheme():
    assert without_middle("👨‍👩‍👧 and 👨‍👩‍👧", 4, count=code_points) == "👨‍👩‍👧 … 👨‍👩‍👧"


GRAPHEMES = st.text(
    alphabet=st.sampled_from("aé ́กำ้ไक्षि्र각ᄀ가ᅡ👨👩‍️🏽🇩🇪ا\u200cَ。.\n\U000e0067"), max_size=60
)


@settings(max_examples=200, deadline=None)
@given(GRAPHEMES, st.integers(0, 30))
def test_cuts_fall_between_graphemes_and_keep_to_the_budget(text, budget):
    ends = {m.end() for m in regex.finditer(r"\X", text)} | {0}
    first, last = head(text, budget, count=code_points), tail(text, budget, count=code_points)
    assert text.startswith(first)
    assert len(first) in ends
    assert text.endswith(last)
    assert len(text) - len(last) in ends
    assert max(len(first), len(last)) <= budget
    assert len(first) == max(end for end in ends if end <= budget)


def test_what_lies_beyond_the_reach_is_cut_between_graphemes_too():
    family = "👨‍👩‍👧"
    for budget in (1, 2):  # hundred code points a token: all that is looked at would fit
        first = head(family * 500, budget, count=lambda text: len(text) // 100)
        last = tail(family * 500, budget, count=lambda text: len(text) // 100)
        assert len(first) % len(family) == len(last) % len(family) == 0
        assert min(len(first), len(last)) > 60


def test_what_is_cut_says_so():
    assert abridged("short", 10, count=code_points) == "short"
    assert abridged("a longer text of words", 11, count=code_points) == "a longer…"
    assert abridged("心肌梗死是一种急性疾病", 6, count=code_points) == "心肌梗死是…"


def test_a_card_has_names_types_and_definition(kb):
    prompts = made(kb, card_tokens=300)
    card = prompts.card(candidate("hp:0001658", "infarto de miocardio", "es"), "de-AT")
    assert card == (
        "Myocardial infarction (disorder). Also called: infarto de miocardio; Herzinfarkt; "
        "heart attack. Necrosis of the myocardium."
    )
    plain = made(kb, aliases=0).card(candidate("hp:0001658", "infarto de miocardio", "es"), "de")
    assert plain == "Myocardial infarction (disorder). Necrosis of the myocardium."
    bare = prompts.card(candidate("umls:C0027530", "boyun", "tr"), "und")
    assert bare == "neck (anatomy). Also called: boyun"


def test_the_aliases_of_a_card_are_few_and_well_chosen():
    def alias(text, lang, preferred=False):
        return Alias(concept_id="t:1", text=text, lang=lang, source="s", preferred=preferred)

    aliases = [
        alias("alpha", "de"),
        alias("beta", "de", preferred=True),
        alias("the NAME", "en", preferred=True),
        alias("gamma", "en"),
        alias("x" * 121, "en", preferred=True),
        alias("delta", "en-GB", preferred=True),
        alias("epsilon", "fr", preferred=True),
    ]
    for lang, limit, wanted in (
        ("de-AT", 1, ["beta", "delta"]),
        ("de", 9, ["beta", "alpha", "delta", "gamma"]),
        ("en", 9, ["delta", "gamma"]),
        ("und", 1, ["delta"]),
    ):
        assert list(near_aliases(aliases, lang, name="The name", limit=limit)) == wanted


def test_a_card_keeps_to_its_budget(kb):
    for budget in (8, 20, 60, 100):
        card = made(kb, card_tokens=budget).card(candidate("hp:0001658"), "ru")
        assert card.startswith("Myocar")
        assert len(card) <= budget
        assert card.endswith("…")


def test_a_concept_that_the_kb_lacks_is_an_error(kb):
    with pytest.raises(InputError, match="no concept"):
        made(kb).card(candidate("hp:9999999"), "en")


def test_lists_are_lettered_in_order(kb):
    prompts = made(kb, "listwise")
    (message,) = prompts.listwise(prompts.subject(mention("en")), ["fever", "cold", "none"])
    assert message.role == "user"
    assert "\nOptions:\nA. fever\nB. cold\nC. none\n\n" in message.content
    (blank,) = prompts.blank(3)
    assert "\nOptions:\nA. N/A\nB. N/A\nC. N/A\n\n" in blank.content


def test_a_version_is_the_hash_of_the_file(tmp_path):
    data = (Path(templates.__file__).parent / "templates" / "chat.yaml").read_bytes()
    assert open_template("chat").version == f"sha256:{hashlib.sha256(data).hexdigest()}"
    own = tmp_path / "own.yaml"
    own.write_bytes(data + b"# a note\n")
    assert open_template(str(own)).version != open_template("chat").version
    assert open_template(str(own)).name == "own"


POINTWISE = 'kind: pointwise\n"yes": [y]\n"no": [n]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{POINTWISE}text: '{{context}}'", "placeholders"),
        (f"{POINTWISE}text: '{{candidate}} {{context}} {{mention}}'", "in this order"),
        (f"{POINTWISE}text: '{{context}} {{context}} {{mention}} {{candidate}}'", "each once"),
        (f"{POINTWISE}text: a\nuser: b", "either text or user"),
        ("kind: pointwise\ntext: '{context}{mention}{candidate}'", "spellings of yes and no"),
        ('kind: pointwise\n"yes": [a]\n"no": [a]\ntext: "{context}{mention}{candidate}"', "both"),
        ("kind: listwise\nuser: '{context}{mention}{candidates}'\noption: '{card}'", "option"),
        ("kind: other", "kind"),
        ("unknown: 1", "unknown"),
        ("[", "no prompt template"),
        ("- a", "no prompt template"),
    ],
)
def test_a_file_that_is_no_template_is_an_error(tmp_path, text, message):
    file = tmp_path / "t.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        open_template(str(file))
    with pytest.raises(ConfigError, match="neither one of"):
        open_template(str(tmp_path / "none.yaml"))


def test_braces_in_data_stay_what_they_are(kb):
    prompts = made(kb, "chat")
    subject = prompts.subject(Mention(text="{candidate}", left="{mention} {x} ", right=" {{"))
    (message,) = prompts.pointwise(subject, candidate(), "en")
    assert isinstance(message, Message)
    assert "{mention} {x} <mention>{candidate}</mention> {{" in message.content
    assert message.content.count("Raised body temperature") == 1


TOKENS = ("<|im_end|>", "<mention>", "|a|", "||", "ab ab", "aa", "<0x0A>")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*TOKENS, "<", "|", "a", "b", " ", "\n", "x", "["]), max_size=12))
def test_plain_text_holds_no_token_and_loses_no_letter(parts):
    plain = plain_text(TOKENS)
    text = "".join(parts)
    found = plain(text)
    assert not any(token in found for token in TOKENS)
    assert re.sub(r"\s", "", found) == re.sub(r"\s", "", text)
    assert plain(found) == found


@pytest.mark.parametrize(
    "text", ["p < 0.05 and CD4 <200", "a > b", "5-[18F]", "IL-2 [see 3]", "x|y", "zwj: क्‍ष میخواهم"]
)
def test_harmless_text_is_not_changed(text):
    assert plain_text({"<|im_end|>"})(text) == text
