import json
import math

import pytest
from rich.console import Console

from bioelx_ray.errors import InputError
from bioelx_ray.evaluation import audit as audits
from bioelx_ray.evaluation.audit import audit
from bioelx_ray.evaluation.report import as_json, as_table
from bioelx_ray.evaluation.run import compare, evaluate
from bioelx_ray.records import Candidate, GoldMention, Mention

IDS = [f"t:{number}" for number in range(1, 100)]


class Counting:
    """Proposes ``t:1``, ``t:2`` ... for each mention, and remembers its batches."""

    def __init__(self, first=0):
        self.first = first
        self.batches = []

    def retrieve(self, mentions, *, k, where=None):
        self.batches.append([mention.text for mention in mentions])
        proposed = tuple(
            Candidate(concept_id=concept_id, alias="a", lang="de", source="t", score=1.0)
            for concept_id in IDS[self.first : self.first + k]
        )
        return [proposed] * len(mentions)


def gold(text, *ids, document_id=None):
    mention = Mention(text=text, document_id=document_id)
    return GoldMention(mention=mention, concept_ids=frozenset(ids))


GOLD = {
    # in the knowledge base: ranks 1, 2, 1, 64
    "de": [
        gold("a", "t:1"),
        gold("b", "t:9", "t:2"),
        gold("a", "t:1"),
        gold("c", "t:64"),
        gold("d", "other:1"),
        gold("nil"),
    ],
    # ranks 0 and 5
    "fi": [gold("e", "t:70"), gold("f", "t:5", "other:2")],
}


def figures(row):
    return [row.recall[k].value for k in row.recall] + [row.mrr.value]


def test_figures_by_hand():
    report = evaluate(Counting(), GOLD, known=IDS)
    german, finnish = report.rows
    assert (german.key, german.n, german.n_in_kb) == ("de", 6, 4)
    assert figures(german) == [2 / 4, 3 / 4, 4 / 4, (1 + 1 / 2 + 1 + 1 / 64) / 4]
    assert (finnish.n, finnish.n_in_kb) == (2, 2)
    assert figures(finnish) == [0, 1 / 2, 1 / 2, 1 / 10]
    assert (report.mean.key, report.mean.n, report.mean.n_in_kb) == ("mean", 8, 6)
    assert figures(report.mean)[:3] == [1 / 4, 5 / 8, 3 / 4]
    for row in (*report.rows, report.mean):
        for figure in (*row.recall.values(), row.mrr):
            assert 0 <= figure.low <= figure.value <= figure.high <= 1


def test_only_mentions_that_count_are_retrieved_and_each_once():
    retriever, calls = Counting(), []
    evaluate(retriever, GOLD, known=IDS, batch=2, progress=lambda *done: calls.append(done))
    assert retriever.batches == [["a", "b"], ["c", "e"], ["f"]]
    assert calls == [(2, 5), (4, 5), (5, 5)]


def test_cutoffs_over_k_are_left_out():
    report = evaluate(Counting(), GOLD, known=IDS, k=10)
    assert list(report.mean.recall) == [1, 5]
    assert report.rows[0].outcomes[-1].rank == 0


def test_a_key_without_known_gold_has_no_figures_and_no_part_in_the_mean():
    report = evaluate(Counting(), {**GOLD, "th": [gold("x", "other:3")]}, known=IDS)
    thai = report.rows[2]
    assert (thai.n, thai.n_in_kb) == (1, 0)
    assert all(math.isnan(figure) for figure in figures(thai))
    assert figures(report.mean) == figures(evaluate(Counting(), GOLD, known=IDS).mean)
    assert as_json(report)["rows"][2]["mrr"] == {"value": None, "low": None, "high": None}


def test_no_gold_in_the_knowledge_base_is_an_error():
    with pytest.raises(InputError, match="none of 8 gold mentions"):
        evaluate(Counting(), GOLD, known={"umls:C0000001"})


def test_a_document_is_drawn_whole():
    items = [gold(str(n), "t:1" if n < 5 else "t:2", document_id=f"d{n // 5}") for n in range(10)]
    (row,) = evaluate(Counting(), {"de": items}, known=IDS).rows
    assert (row.recall[1].low, row.recall[1].high) == (0.0, 1.0)


def test_compare_weighs_languages_alike():
    left, right = (evaluate(Counting(first), GOLD, known=IDS) for first in (0, 1))
    differences = compare(left, right)
    assert list(differences) == ["de", "fi", "mean"]
    # right proposes t:2 first: it wins one German mention and loses two
    assert differences["de"].mean == pytest.approx(1 / 4)
    assert differences["fi"].mean == 0
    assert differences["fi"].p_value == 1
    assert differences["mean"].mean == pytest.approx(1 / 8)
    assert compare(right, left, cutoff=5)["fi"].mean == 0


def test_compare_needs_the_same_mentions_and_enough_candidates():
    report = evaluate(Counting(), GOLD, known=IDS)
    with pytest.raises(InputError, match="the same mentions"):
        compare(report, evaluate(Counting(), {"de": GOLD["de"]}, known=IDS))
    with pytest.raises(InputError, match=r"Recall@5 of reports with k=64 and k=4"):
        compare(report, evaluate(Counting(), GOLD, known=IDS, k=4), cutoff=5)


def test_an_audit_takes_a_report_apart():
    report = evaluate(Counting(), GOLD, known=IDS)
    found = audit(report, lambda mention, ids: mention.text == "a" and "t:1" in ids)
    assert found.share == {"de": 0.5, "fi": 0.0, "mean": 0.25}
    assert [row.n_in_kb for row in found.seen.rows] == [2, 0]
    assert [row.n_in_kb for row in found.unseen.rows] == [2, 2]
    assert figures(found.seen.mean) == [1, 1, 1, 1]
    assert figures(found.unseen.rows[0])[:3] == [0, 1 / 2, 1]
    values = json.dumps(audits.as_json(found), allow_nan=False)
    assert json.loads(values)["unseen"]["mean"]["n"] == 4


def test_an_audit_may_find_nothing_seen():
    found = audit(evaluate(Counting(), GOLD, known=IDS), lambda mention, ids: False)
    assert math.isnan(found.seen.mean.mrr.value)
    assert figures(found.unseen.mean)[0] == 1 / 4


def shown(table):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_json_has_plain_values():
    values = as_json(evaluate(Counting(), GOLD, known=IDS))
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["k"] == 64
    assert values["rows"][0]["recall"]["5"]["value"] == 0.75
    assert (values["mean"]["n"], values["mean"]["n_in_kb"]) == (8, 6)


def test_a_table_of_one_report_has_intervals():
    text = shown(as_table({"dense": evaluate(Counting(), GOLD, known=IDS)}))
    (mean,) = [line for line in text.splitlines() if "mean" in line]
    assert "25.0 [" in mean
    assert "62.5 [" in mean


def test_a_table_of_several_reports_stands_side_by_side():
    reports = {name: evaluate(Counting(n), GOLD, known=IDS) for n, name in enumerate(("x", "y"))}
    lines = [line.split() for line in shown(as_table(reports, title="XL-BEL")).splitlines()]
    assert ["n", "in", "kb", "R@1", "R@5", "R@64", "R@1", "R@5", "R@64"] in lines
    assert ["de", "6", "4", "50.0", "75.0", "100.0", "25.0", "25.0", "50.0"] in lines
    assert ["mean", "8", "6", "25.0", "62.5", "75.0", "12.5", "37.5", "50.0"] in lines


def test_a_table_of_an_audit_gives_each_part_its_count():
    report = evaluate(Counting(), GOLD, known=IDS, k=1)
    parts = audit(report, lambda mention, ids: mention.text == "a")
    table = as_table({"all": report, "seen": parts.seen, "unseen": parts.unseen})
    lines = [line.split() for line in shown(table).splitlines()]
    assert ["n", "in", "kb", "in", "kb", "in", "kb", "R@1", "R@1", "R@1"] in lines
    assert ["fi", "2", "2", "0", "2", "0.0", "-", "0.0"] in lines


def test_a_table_needs_reports_over_the_same_keys():
    one = evaluate(Counting(), GOLD, known=IDS)
    other = evaluate(Counting(), {"de": GOLD["de"]}, known=IDS)
    with pytest.raises(InputError, match="2 sets of keys"):
        as_table({"one": one, "other": other})
