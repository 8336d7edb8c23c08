"""The contract of `Ranker`, held by both rankers, and what `LlmRanker` adds to it."""

import asyncio
import json
import random
import re
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from bioelx_ray.config import load_config
from bioelx_ray.config_ranking import (
    CalibrationConfig,
    PromptConfig,
    RankingConfig,
    ScoringConfig,
    TransformersConfig,
)
from bioelx_ray.errors import (
    ArtifactMismatch,
    ConfigError,
    EngineError,
    EngineTimeout,
    InputError,
)
from bioelx_ray.kb.store import KnowledgeBase
from bioelx_ray.linker import Linker, open_ranker, retriever_name
from bioelx_ray.ranking.calibration import build_calibration, judge
from bioelx_ray.ranking.llm_ranker import LlmRanker, open_llm_ranker
from bioelx_ray.ranking.loop import NAME
from bioelx_ray.ranking.ranker import PassThroughRanker
from bioelx_ray.records import Candidate, GoldMention, Mention
from bioelx_ray.retrieval import retriever as stage_one
from bioelx_ray.retrieval.opened import open_index
from bioelx_ray.testing import HashEncoder, ScriptedEngine, small_index
from tests.language_models import tiny_model
from tests.unit.test_negatives import made_kb

SIZE = 70
NAMES = [f"concept {n:02}" for n in range(SIZE)]
MENTIONS = [
    Mention(
        text="심근경색",
        lang="ko",
        left="환자는 ",
        right=" 진단을 받았다.",
        document_id="b",
        start=4,
    ),
    Mention(text="โรคหืด", lang="th", left="ผู้ป่วยเป็น", right="มาสองปี"),
    Mention(text="心肌梗死", lang="zh", left="他患有", right="。"),
    Mention(text="喘息", lang="ja", left="患者は", right="である。", document_id="a", start=3),
    Mention(text="حمى", lang="ar", left="كان لديه ", right=" شديدة"),
    Mention(text="חום", lang="he", left="לחולה ", right=" גבוה"),
    Mention(text="बुखार", lang="hi", left="रोगी को ", right=" है।"),
    Mention(text="fever"),
    Mention(text="x" * 20_000, left="huge " * 50_000, right=" huge" * 50_000),
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIOELX_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    rows = [(f"t:{n:02}", "en", name) for n, name in enumerate(NAMES)]
    return made_kb(tmp_path_factory.mktemp("kb") / "kb", rows)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


def candidates(*numbers):
    return tuple(
        Candidate(
            concept_id=f"t:{n:02}", alias=NAMES[n], lang="en", source="s", score=1 - row / 128
        )
        for row, n in enumerate(numbers)
    )


PROPOSED = [
    candidates(3, 1, 2),
    (),
    candidates(*range(64)),
    candidates(5),
    candidates(*range(20, 37)),
    candidates(9, 8),
    candidates(1, 2, 3, 4),
    candidates(7, 6),
    candidates(60, 61),
]


def llm(kb, engine=None, template="qwen3-reranker", **settings):
    scoring = settings.pop("scoring", ScoringConfig(depth=64))
    prompt = settings.pop("prompt", PromptConfig(template=template))
    config = RankingConfig(prompt=prompt, scoring=scoring, **settings)
    return LlmRanker(engine or ScriptedEngine(), kb, config=config, retriever="dense sha256:e")


def knows(wanted):
    """An engine that says yes to one name only."""

    def script(text):
        yes = re.search(f"{NAMES[wanted]}\\b", text.partition("<Document>")[2])
        return spoken(-0.1, -3.0) if yes else spoken(-4.0, -0.1)

    return ScriptedEngine(script)


YES_NO = [
    f"{space}{word}" for word in ("yes", "Yes", "YES", "no", "No", "NO") for space in ("", " ")
]


def spoken(yes, no):
    """An answer in one spelling: the others are next to impossible."""
    return dict.fromkeys(YES_NO, -60.0) | {"yes": yes, "no": no}


@pytest.fixture(params=["pass-through", "qwen3-reranker", "chat", "listwise", "transformers"])
def ranker(request, kb):
    if request.param == "pass-through":
        return PassThroughRanker()
    if request.param == "transformers":
        model = request.getfixturevalue("model")
        engine = TransformersConfig(model=str(model), device="cpu")
        config = RankingConfig(engine=engine, scoring=ScoringConfig(depth=4))
        return open_llm_ranker(config, kb, retriever="r")
    return llm(kb, template=request.param)


def test_one_link_a_mention_its_candidates_the_given_ones(ranker):
    links = ranker.rank(MENTIONS, PROPOSED)
    assert [link.mention for link in links] == MENTIONS
    for link, given in zip(links, PROPOSED, strict=True):
        assert {c.concept_id for c in link.candidates} == {c.concept_id for c in given}
        assert link.concept_id == (link.candidates[0].concept_id if given else None)
        order = [(-c.score, c.concept_id) for c in link.candidates]
        assert order == sorted(order)
        assert link.reason == ("" if given else "no candidate")
        assert link.score == (link.candidates[0].score if given else 0.0)
    assert ranker.rank([], []) == []


def test_answers_do_not_depend_on_the_batch_or_the_order(ranker):
    pairs = list(zip(MENTIONS[:-1], PROPOSED[:-1], strict=True))
    whole = ranker.rank(*zip(*pairs, strict=True))
    wanted = {mention: link for (mention, _), link in zip(pairs, whole, strict=True)}
    mixed = pairs * 2
    random.Random(0).shuffle(mixed)
    for size in (1, 8, len(mixed)):
        for start in range(0, len(mixed), size):
            for link in ranker.rank(*zip(*mixed[start : start + size], strict=True)):
                same = wanted[link.mention]
                assert [c.concept_id for c in link.candidates] == [
                    c.concept_id for c in same.candidates
                ]
                np.testing.assert_allclose(link.score, same.score, atol=1e-5)


def test_candidates_of_another_number_of_mentions_are_an_error(ranker):
    with pytest.raises(ValueError, match="zip"):
        ranker.rank(MENTIONS[:2], PROPOSED[:1])


def test_the_engine_decides_and_the_link_says_who_did(kb):
    ranker = llm(kb, knows(2))
    (link,) = ranker.rank([MENTIONS[0]], [candidates(0, 1, 2, 3)])
    assert link.concept_id == "t:02"
    assert link.decided_by == "ranking"
    assert link.candidates[0].retrieval_score == 1 - 2 / 128
    assert [c.concept_id for c in link.candidates] == ["t:02", "t:00", "t:01", "t:03"]
    assert (link.ranker, link.calibration) == ("scripted", "")
    assert link.prompt.startswith("sha256:")
    assert 0 < sum(c.score for c in link.candidates) < 1


def test_only_the_first_candidates_are_asked_about_and_the_rest_stays_behind(kb):
    engine = knows(9)
    ranker = llm(kb, engine, scoring=ScoringConfig(depth=3))
    (link,) = ranker.rank([MENTIONS[0]], [candidates(*reversed(range(10)))])
    assert len(engine.asked) == 3
    assert link.concept_id == "t:09"
    assert [c.concept_id for c in link.candidates] == [f"t:{n:02}" for n in reversed(range(10))]


def test_documents_stay_together_in_their_order(kb):
    engine = ScriptedEngine()
    mentions = [Mention(text=f"m{n}", document_id=f"d{n % 3}", start=100 - n) for n in range(9)]
    llm(kb, engine).rank(mentions, [candidates(0, 1)] * 9)
    order = [re.search("<mention>m(.)<", text)[1] for text in engine.asked]
    assert "".join(order) == "663300774411885522"


@pytest.mark.parametrize(("given", "nil"), [(0.99, True), (0.01, False), (None, False)])
def test_below_the_threshold_the_answer_is_nil(kb, given, nil):
    (link,) = llm(kb, knows(2), nil_threshold=given).rank([MENTIONS[0]], [candidates(1, 2)])
    assert (link.concept_id is None) == nil
    assert ("below the NIL threshold" in link.reason) == nil
    assert link.candidates[0].concept_id == "t:02"


def test_a_list_may_say_none(kb):
    def none(text):
        letter = re.search(r"^([A-T])\. none of the others", text, flags=re.MULTILINE)
        return {letter[1]: -0.01} if letter else {}

    ranker = llm(kb, ScriptedEngine(none), template="listwise", nil_threshold=0.5)
    (link,) = ranker.rank([MENTIONS[0]], [candidates(0, 1, 2)])
    assert link.concept_id is None
    assert link.score < 0.1


def development(n, size=6):
    """Mentions whose gold the engine recognises four times of five, and retrieval one of three."""
    rng = random.Random(0)
    gold, proposed, known = [], [], {}
    for row in range(n):
        numbers = rng.sample(range(SIZE), size)
        right = numbers[0] if row % 3 == 0 else rng.choice(numbers[1:])
        text = f"mention {row}"
        known[text] = right if row % 5 != 1 else rng.choice(numbers)
        concept = frozenset({f"t:{right:02}"}) if row % 7 else frozenset()
        known[text] = known[text] if concept else None
        mention = Mention(text=text, lang="en", document_id=f"d{row // 2}")
        gold.append(GoldMention(mention=mention, concept_ids=concept))
        proposed.append(candidates(*numbers))

    def script(text):
        right = known[re.search("<mention>(.*)</mention>", text)[1]]
        yes = right is not None and NAMES[right] in text.partition("<Document>")[2]
        return spoken(-0.2, -2.0) if yes else spoken(-2.0, -0.2)

    return gold, proposed, script


def test_with_a_calibration_the_score_is_a_probability(kb, tmp_path):
    gold, proposed, script = development(600)
    mentions = [item.mention for item in gold]
    half = 300
    first = llm(kb, ScriptedEngine(script))
    evidence = first.evidence(mentions[:half], proposed[:half])
    built = build_calibration(
        tmp_path / "c",
        judge(gold[:half], proposed[:half], evidence),
        config=CalibrationConfig(precision=0.75),
        binding=first.binding,
    )
    ranker = llm(kb, ScriptedEngine(script), calibration=str(tmp_path / "c"))
    links = ranker.rank(mentions[half:], proposed[half:])
    assert {link.calibration for link in links} == {built.fingerprint}
    answered = [(g, link) for g, link in zip(gold[half:], links, strict=True) if link.concept_id]
    right = [link.concept_id in g.concept_ids for g, link in answered]
    assert 0.3 < len(answered) / half < 0.95
    assert np.mean(right) > 0.72
    assert np.mean([link.score for _, link in answered]) == pytest.approx(np.mean(right), abs=0.06)


def test_an_engine_that_knows_nothing_costs_nothing(kb, tmp_path):
    gold, proposed, _ = development(800)
    mentions = [item.mention for item in gold]
    half = 400
    first = llm(kb, ScriptedEngine())
    evidence = first.evidence(mentions[:half], proposed[:half])
    assert np.std(np.concatenate(evidence)) > 0.5  # it says something, at random
    judged = judge(gold[:half], proposed[:half], evidence)
    build_calibration(tmp_path / "c", judged, config=CalibrationConfig(), binding=first.binding)

    def recall(ranker):
        links = ranker.rank(mentions[half:], proposed[half:])
        return np.mean(
            [
                link.candidates[0].concept_id in item.concept_ids
                for item, link in zip(gold[half:], links, strict=True)
            ]
        )

    retrieval = recall(PassThroughRanker())
    assert recall(llm(kb, ScriptedEngine(), calibration=str(tmp_path / "c"))) >= retrieval - 0.005
    assert recall(first) < retrieval - 0.05  # uncalibrated it would cost much


def test_a_calibration_of_another_engine_prompt_or_setting_is_refused(kb, tmp_path):
    gold, proposed, script = development(60)
    engine = ScriptedEngine(script)
    first = llm(kb, engine)
    evidence = first.evidence([item.mention for item in gold], proposed)
    place = str(tmp_path / "c")
    judged = judge(gold, proposed, evidence)
    build_calibration(tmp_path / "c", judged, config=CalibrationConfig(), binding=first.binding)
    assert llm(kb, engine, calibration=place).calibration.fingerprint
    other = ScriptedEngine(script, identity="other")
    for role, make in {
        "engine": lambda: llm(kb, other, calibration=place),
        "template": lambda: llm(kb, engine, template="chat", calibration=place),
        "scoring": lambda: llm(kb, engine, scoring=ScoringConfig(depth=5), calibration=place),
        "retriever": lambda: LlmRanker(
            engine, kb, config=RankingConfig(calibration=place), retriever="hybrid sha256:e"
        ),
    }.items():
        with pytest.raises(ArtifactMismatch, match=f"fitted with {role}|fitted with scoring"):
            make()


def test_a_deadline_and_an_error_reach_the_caller(kb):
    ranker = llm(kb)
    with pytest.raises(EngineTimeout):
        ranker.rank(MENTIONS, PROPOSED, deadline=time.time() - 1)
    assert len(ranker.rank(MENTIONS, PROPOSED, deadline=time.time() + 60)) == len(MENTIONS)
    deaf = ScriptedEngine(lambda _: dict.fromkeys(YES_NO, -np.inf))
    with pytest.raises(EngineError, match="single token"):
        llm(kb, deaf).rank(MENTIONS[:1], PROPOSED[:1])
    unknown = Candidate(concept_id="t:99", alias="a", lang="en", source="s", score=1.0)
    with pytest.raises(InputError, match="no concept"):
        ranker.rank(MENTIONS[:1], [(unknown,)])


def test_the_asynchronous_way_is_cancelled_with_its_caller(kb, model):
    engine = TransformersConfig(model=str(model), device="cpu", batch_tokens=64)
    ranker = open_llm_ranker(RankingConfig(engine=engine), kb, retriever="r")
    mentions = [Mention(text=f"m{n}", left="a long context " * 20) for n in range(200)]

    async def cancelled():
        task = asyncio.create_task(ranker.rank_async(mentions, [candidates(*range(8))] * 200))
        await asyncio.sleep(0.3)
        task.cancel()
        start = time.perf_counter()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.perf_counter() - start

    assert asyncio.run(cancelled()) < 1
    asyncio.run(ranker.close_async())


def test_a_ranker_that_cannot_tell_keeps_the_retrievers_order(kb):
    deaf = ScriptedEngine(lambda _: dict.fromkeys(YES_NO, -9.0))
    (link,) = llm(kb, deaf).rank([MENTIONS[0]], [candidates(*reversed(range(64)))])
    assert [c.concept_id for c in link.candidates] == [f"t:{n:02}" for n in reversed(range(64))]


def test_ties_go_by_concept_id(kb):
    deaf = ScriptedEngine(lambda _: dict.fromkeys(YES_NO, -9.0))
    tied = tuple(replace(c, score=0.5) for c in candidates(5, 3, 9, 1))
    (link,) = llm(kb, deaf).rank([MENTIONS[0]], [tied])
    assert [c.concept_id for c in link.candidates] == ["t:01", "t:03", "t:05", "t:09"]


def test_closing_frees_the_engine_and_its_thread(kb, model):
    engine = TransformersConfig(model=str(model), device="cpu")
    ranker = open_llm_ranker(RankingConfig(engine=engine), kb, retriever="r")
    before = set(threading.enumerate())
    ranker.rank(MENTIONS[:1], PROPOSED[:1])
    (loop,) = {t for t in threading.enumerate() if t.name == NAME} - before
    ranker.close()
    loop.join(5)
    assert not loop.is_alive()
    assert ranker._engine._model is None


def test_both_stages_in_one_process(tmp_path):
    small_index(tmp_path)
    opened = open_index(tmp_path / "index")
    kb = KnowledgeBase.open(tmp_path / "kb")
    engine = ScriptedEngine(
        lambda text: {"yes": -0.1, "no": -3.0} if "<Document>: Asthma" in text else {"yes": -9.0}
    )
    ranker = LlmRanker(engine, kb, config=RankingConfig(), retriever="r")
    linker = Linker(stage_one.dense(opened, HashEncoder()), ranker)
    (link,) = linker.link([Mention(text="fever", lang="en", left="He wheezes: ")], k=6)
    assert link.concept_id == "hp:0002099"
    assert len(link.candidates) == 6
    name = retriever_name(tmp_path / "index")
    assert name == f"dense {HashEncoder().fingerprint}"
    assert isinstance(open_ranker(RankingConfig(), kb, retriever=name), PassThroughRanker)
    nothing = TransformersConfig(model=str(tmp_path))
    with pytest.raises(EngineError):
        open_ranker(RankingConfig(engine=nothing), kb, retriever=name)


def test_settings_of_the_stage(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(
        "ranking:\n  engine: {kind: vllm, model: m}\n  prompt: {template: chat}\n"
        "  scoring: {depth: 8}\n"
    )
    config = load_config(file, {"ranking.nil_threshold": 0.5}).ranking
    assert (config.engine.kind, config.prompt.template) == ("vllm", "chat")
    assert (config.scoring.depth, config.nil_threshold) == (8, 0.5)


@pytest.mark.parametrize(
    ("ranking", "message"),
    [
        ({"engine": {"kind": "other", "model": "m"}}, "ranking.engine"),
        ({"engine": {"kind": "vllm"}}, "model"),
        ({"engine": {"kind": "openai", "model": "m", "url": "ftp://x"}}, "url"),
        ({"engine": {"kind": "transformers", "model": "m", "device": "tpu"}}, "device"),
        ({"engine": {"kind": "transformers", "model": "m", "url": "http://x"}}, "url"),
        ({"scoring": {"chunk": 20}}, "chunk"),
        ({"prompt": {"context_tokens": -1}}, "context_tokens"),
        ({"ranker_weight": 0, "retrieval_weight": 0}, "both 0"),
        ({"depth": 3}, "depth"),
    ],
)
def test_wrong_settings_say_where(tmp_path, ranking, message):
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps({"ranking": ranking}))
    with pytest.raises(ConfigError, match=message):
        load_config(file)


def test_without_an_engine_there_is_no_llm_ranker(kb):
    with pytest.raises(ConfigError, match="engine is not set"):
        open_llm_ranker(RankingConfig(), kb, retriever="r")
