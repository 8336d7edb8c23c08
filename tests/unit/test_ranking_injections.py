"""Whatever a text says, the prompt keeps its structure and the answer is a candidate or NIL."""

import numpy as np
import pyarrow as pa
import pytest

from bioelx_ray.artifacts import Manifest, publish
from bioelx_ray.config_ranking import PromptConfig, RankingConfig, ScoringConfig, TransformersConfig
from bioelx_ray.kb.store import XREF_SCHEMA, KnowledgeBase
from bioelx_ray.ranking.engine import Answered, open_engine
from bioelx_ray.ranking.llm_ranker import LlmRanker
from bioelx_ray.ranking.template import CLOSING, OPENING, PACKAGED
from bioelx_ray.records import Alias, Candidate, Concept, Mention, Retired
from bioelx_ray.tables import to_table
from tests.injections import INJECTIONS
from tests.language_models import SPECIAL, tiny_model, tokenizer

PLACES = ("left", "right", "mention", "name", "alias", "definition", "type")
LANGS = ("en", "ko", "th", "zh", "ja", "ar", "he", "hi", "tr", "ru")
BENIGN = "a harmless phrase"


def stored_kb(directory, texts):
    """Concepts that hold a text in their name, an alias, their definition or their type."""
    concepts, aliases = [], []
    for number, text in enumerate(texts):
        safe = text.encode("utf-8", "replace").decode()  # Arrow takes no half of a pair
        for place in ("name", "alias", "definition", "type"):
            of = {p: safe if p == place else f"{p} {number}" for p in PLACES}
            id_ = f"t:{number:03}{place}"
            concepts.append(
                Concept(
                    id=id_,
                    name=of["name"],
                    semantic_types=(of["type"],),
                    definition=of["definition"],
                )
            )
            aliases.append(Alias(concept_id=id_, text=of["alias"], lang="en", source="s"))
    tables = {
        "concepts": to_table(sorted(concepts, key=lambda c: c.id), Concept),
        "aliases": to_table(sorted(aliases, key=lambda a: a.concept_id), Alias),
        "xrefs": pa.Table.from_pylist([], schema=XREF_SCHEMA),
        "retired": to_table([], Retired),
    }
    counts = {"languages": {"en": len(aliases)}}
    with publish(directory, Manifest(kind="kb", code_version="1", counts=counts)) as draft:
        for name, table in tables.items():
            with pa.ipc.new_file(draft / f"{name}.arrow", table.schema) as writer:
                writer.write_table(table)
    return KnowledgeBase.open(directory)


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    return stored_kb(tmp_path_factory.mktemp("kb") / "kb", [*INJECTIONS, BENIGN])


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    model = tiny_model(tmp_path_factory.mktemp("model"))
    return open_engine(TransformersConfig(model=str(model), device="cpu"))


def mention_of(text, place, lang):
    parts = {"left": "before ", "mention": "the mention", "right": " after", place: text}
    return Mention(text=parts["mention"], lang=lang, left=parts["left"], right=parts["right"])


def candidates_of(number):
    return tuple(
        Candidate(
            concept_id=f"t:{number:03}{place}",
            alias=f"alias {number}",
            lang="en",
            source="s",
            score=1 - row / 8,
        )
        for row, place in enumerate(("name", "alias", "definition", "type"))
    )


def config_of(template, threshold=None):
    return RankingConfig(
        prompt=PromptConfig(template=template, context_tokens=400, card_tokens=400),
        scoring=ScoringConfig(rotations=1, content_free=False),
        nil_threshold=threshold,
    )


class Recorder:
    """Passes questions on to an engine and keeps them."""

    def __init__(self, engine, answer=None):
        self.engine, self.answer, self.asked = engine, answer, []
        self.identity, self.special_tokens = engine.identity, engine.special_tokens
        self.count = engine.count

    async def logprobs(self, prompts, answers, *, deadline=None):
        self.asked += prompts
        if self.answer is None:
            return await self.engine.logprobs(prompts, answers, deadline=deadline)
        values = np.tile([self.answer(a) for a in answers], (len(prompts), 1))
        return Answered(logprobs=values, exact=np.ones(values.shape, dtype=bool))

    async def close(self):
        pass


def injected(places=("left", "right", "mention")):
    """Each injection in a context or a mention, against concepts that hold it too."""
    for number, text in enumerate(INJECTIONS):
        place = places[number % len(places)]
        yield mention_of(text, place, LANGS[number % len(LANGS)]), candidates_of(number)


def test_there_are_fifty():
    assert len(set(INJECTIONS)) == 50


@pytest.mark.parametrize("template", PACKAGED)
def test_only_a_candidate_or_nil_comes_out(kb, engine, template):
    mentions, proposed = zip(*injected(), strict=True)
    ranker = LlmRanker(engine, kb, config=config_of(template), retriever="r")
    middle = float(np.median([link.score for link in ranker.rank(mentions, proposed)]))
    ranker = LlmRanker(engine, kb, config=config_of(template, middle), retriever="r")
    links = ranker.rank(mentions, proposed)
    for mention, candidates, link in zip(mentions, proposed, links, strict=True):
        given = {c.concept_id for c in candidates}
        assert link.concept_id in given | {None}
        assert {c.concept_id for c in link.candidates} == given
        assert link.mention is mention
        assert 0 <= link.score <= 1
    assert 10 < sum(link.concept_id is None for link in links) < 40  # both kinds of answer


@pytest.mark.parametrize("template", PACKAGED)
def test_a_model_that_says_anything_else_changes_nothing(kb, engine, template):
    for answer in (lambda _: -9999.0, lambda _: 0.0, lambda a: -9999.0 if a == "no" else 0.0):
        recorder = Recorder(engine, answer)
        ranker = LlmRanker(recorder, kb, config=config_of(template), retriever="r")
        for mention, candidates in list(injected())[::10]:
            (link,) = ranker.rank([mention], [candidates])
            assert link.concept_id in {c.concept_id for c in candidates} | {None}
            assert np.isfinite([c.score for c in link.candidates]).all()


def structure(words, prompt):
    """What a prompt's structure is: special tokens in their order, and the starts of its lines."""
    text = prompt if isinstance(prompt, str) else prompt[0].content
    ids = words.encode(text, add_special_tokens=False)
    special = [i for i in ids if words.decode([i]) in SPECIAL]
    marks = (text.count(OPENING), text.count(CLOSING), text.count("<tgt>"))
    roles = [tag for tag in ("<Instruct>", "<Query>", "<Document>") for _ in range(text.count(tag))]
    return special, marks, roles, len(text.splitlines())


@pytest.mark.parametrize("template", PACKAGED)
@pytest.mark.parametrize("place", ["left", "right", "mention"])
def test_the_structure_stays(kb, engine, template, place):
    words = tokenizer()
    recorder = Recorder(engine, lambda _: -1.0)
    ranker = LlmRanker(recorder, kb, config=config_of(template), retriever="r")
    plain = len(INJECTIONS)
    ranker.rank([mention_of(BENIGN, place, "en")], [candidates_of(plain)])
    (wanted,) = {repr(structure(words, prompt)) for prompt in recorder.asked}
    recorder.asked.clear()
    mentions, proposed = zip(*injected([place]), strict=True)
    ranker.rank(mentions, proposed)
    assert len(recorder.asked) >= 50
    for prompt in recorder.asked:
        assert repr(structure(words, prompt)) == wanted, prompt


def test_raw_injections_would_break_the_structure():
    """The check above can fail: without cleaning, a third of the texts hold special tokens."""
    words = tokenizer()
    bad = [t for t in INJECTIONS if structure(words, t.encode("utf-8", "replace").decode())[0]]
    marks = [t for t in INJECTIONS if OPENING in t or CLOSING in t]
    lines = [t for t in INJECTIONS if len(t.splitlines()) > 1]
    assert len(bad) >= 8
    assert len(marks) >= 2
    assert len(lines) >= 8
