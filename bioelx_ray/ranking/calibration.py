"""Scores that mean something: fusion weights, a probability, and a NIL threshold, from gold data.

An artifact of the kind ``calibration`` holds ``calibration.json``. It is bound to what made the
scores (the engine's model, the template, the settings of prompt and scoring, the retriever) and
refuses to be used with anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from bioelx_ray.artifacts import Manifest, code_version, open_artifact, publish
from bioelx_ray.config_ranking import CalibrationConfig
from bioelx_ray.errors import ArtifactCorrupt, ArtifactMismatch, InputError
from bioelx_ray.ranking import fusion
from bioelx_ray.ranking.curve import (
    Curve,
    Hits,
    calibration_error,
    corrected,
    fit_curve,
    threshold_for,
)
from bioelx_ray.ranking.fusion import Judged, Weights
from bioelx_ray.ranking.scoring import Values
from bioelx_ray.records import Candidate, GoldMention

FILE = "calibration.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What turns scores into probabilities. An empty `fingerprint` says that it was not fitted."""

    weights: Weights
    curve: Curve = ()
    nil_threshold: float | None = None
    fingerprint: str = ""

    def chances(self, ranker: Values, retrieval: Values) -> Values:
        """The probability that each candidate is right, float64 [n]."""
        return corrected(fusion.probabilities(self.weights, ranker, retrieval), self.curve)


def judge(
    gold: Sequence[GoldMention],
    candidates: Sequence[tuple[Candidate, ...]],
    evidence: Sequence[Values],
) -> list[Judged]:
    """Development mentions from gold, stage 1's candidates and the ranker's scores of them."""
    return [
        Judged(
            ranker=scores,
            retrieval=np.array([c.score for c in proposed], dtype=np.float64),
            gold=np.array([c.concept_id in item.concept_ids for c in proposed], dtype=np.bool_),
            group=item.mention.document_id or f"mention {row}",
        )
        for row, (item, proposed, scores) in enumerate(zip(gold, candidates, evidence, strict=True))
    ]


def fit(judged: Sequence[Judged], config: CalibrationConfig) -> tuple[Calibration, dict[str, Any]]:
    """A calibration, not yet published, and figures about it.

    Whether the ranker counts, the curve, the threshold and all figures come from held-out parts;
    the weights at last from all mentions.

    Raises:
        InputError: fewer groups than parts, or no threshold reaches the wanted precision.
    """
    groups = len({item.group for item in judged})
    if groups < config.folds:
        raise InputError(
            f"{groups} documents of development mentions: {config.folds} parts need as many"
        )
    without = fusion.held_out(judged, config=config, use_ranker=False)
    with_it = fusion.held_out(judged, config=config, use_ranker=True)
    counts = fusion.ranker_helps(judged, with_it=with_it, without=without)
    found = with_it if counts else without
    chances = np.array([p.max(initial=0.0) for p in found])
    right = fusion.hits(judged, found).astype(np.bool_)
    curve = fit_curve(chances, right) if config.method == "isotonic" else ()
    threshold = None
    if config.precision is not None:
        threshold = threshold_for(
            config.precision, corrected(chances, curve), right, least=config.min_answers
        )
    weights = fusion.fit_weights(judged, ridge=config.ridge, use_ranker=counts)
    calibration = Calibration(weights=weights, curve=curve, nil_threshold=threshold)
    return calibration, {
        "mentions": len(judged),
        "documents": groups,
        "nil": sum(not item.gold.any() for item in judged),
        "ranker_counts": counts,
        "recall_at_1": float(right.mean()),
        "recall_at_1_retrieval": float(fusion.hits(judged, without).mean()),
        "recall_at_1_fused": float(fusion.hits(judged, with_it).mean()),
        "log_likelihood": float(fusion.log_likelihoods(judged, found).mean()),
        "calibration_error": calibration_error(
            _crossed(chances, right, judged, config=config), right
        ),
        "calibration_error_uncorrected": calibration_error(chances, right),
    }


def _crossed(
    chances: Values, right: Hits, judged: Sequence[Judged], *, config: CalibrationConfig
) -> Values:
    """Corrected probabilities, each by a curve that was fitted without its part."""
    if config.method != "isotonic":
        return chances
    of_part = np.array(fusion.parts(judged, config.folds))
    result = np.empty_like(chances)
    for part in np.unique(of_part):
        held = of_part == part
        result[held] = corrected(chances[held], fit_curve(chances[~held], right[~held]))
    return result


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    ranker: float
    retrieval: float
    nil: float
    curve: tuple[tuple[float, float], ...]
    nil_threshold: float | None


def build_calibration(
    target: Path, judged: Sequence[Judged], *, config: CalibrationConfig, binding: Mapping[str, str]
) -> Calibration:
    """Fit a calibration and publish it at `target`, bound to `binding` (`LlmRanker.binding`).

    Raises:
        InputError: see `fit`.
        ArtifactMismatch: `target` exists and holds something else.
    """
    calibration, figures = fit(judged, config)
    manifest = Manifest(
        kind="calibration",
        code_version=code_version(),
        config=config.model_dump(),
        inputs=dict(binding),
        counts=figures,
    )
    weights = calibration.weights
    stored = _Stored(
        ranker=weights.ranker,
        retrieval=weights.retrieval,
        nil=weights.nil,
        curve=calibration.curve,
        nil_threshold=calibration.nil_threshold,
    )
    with publish(target, manifest) as draft:
        (draft / FILE).write_text(stored.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return open_calibration(target, binding=binding)


def open_calibration(path: Path, *, binding: Mapping[str, str]) -> Calibration:
    """Open a calibration for the scores of `binding`.

    Raises:
        ArtifactMismatch: it was fitted to the scores of something else.
        ArtifactError: none is there, or it is damaged.
    """
    artifact = open_artifact(path, "calibration")
    for role, wanted in binding.items():
        found = artifact.manifest.inputs.get(role, "none")
        if found != wanted:
            raise ArtifactMismatch(
                f"{path} was fitted with {role} {found}, here it is {wanted}: use that one, or "
                "fit a calibration for this one"
            )
    try:
        stored = _Stored.model_validate_json(artifact.file(FILE).read_bytes())
    except ValidationError as error:
        raise ArtifactCorrupt(f"{path / FILE}: no calibration of ours; fit it again") from error
    return Calibration(
        weights=Weights(ranker=stored.ranker, retrieval=stored.retrieval, nil=stored.nil),
        curve=stored.curve,
        nil_threshold=stored.nil_threshold,
        fingerprint=artifact.manifest.fingerprint,
    )
