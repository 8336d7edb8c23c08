import numpy as np
import pytest

from bioelx_ray.retrieval.projection import fit_projection, identity

DIM = 16


@pytest.fixture(scope="module")
def clusters():
    """200 concepts of three forms: the first 8 dimensions tell the concept, the others noise."""
    rng = np.random.default_rng(0)
    concepts = np.repeat(np.arange(200), 3)
    centres = np.zeros((200, DIM))
    centres[:, :8] = rng.normal(size=(200, 8))
    noise = rng.normal(size=(600, DIM)) * np.r_[np.full(8, 0.3), np.full(8, 3.0)]
    return (centres[concepts] + noise).astype(np.float32), concepts


def found_first(vectors, concepts):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -2)
    return float(np.mean(concepts[scores.argmax(axis=1)] == concepts))


def test_forms_of_a_concept_come_together_also_of_concepts_that_it_was_not_fitted_to(clusters):
    vectors, concepts = clusters
    train = np.flatnonzero(concepts < 150)
    project = fit_projection(vectors[train], forms=np.arange(len(train)), concepts=concepts[train])
    assert project is not None
    assert project.matrix.shape[0] == DIM
    others = concepts >= 150
    before = found_first(vectors[others], concepts[others])
    after = found_first(project(vectors[others]), concepts[others])
    assert before < 0.35
    assert after > 0.8


def test_vectors_come_out_with_length_one(clusters):
    vectors, concepts = clusters
    project = fit_projection(vectors, forms=np.arange(len(vectors)), concepts=concepts)
    np.testing.assert_allclose(np.linalg.norm(project(vectors), axis=1), 1, atol=1e-5)
    assert project(vectors).dtype == np.float32


def test_too_few_concepts_give_none():
    vectors = np.random.default_rng(0).normal(size=(30, DIM))
    assert fit_projection(vectors, forms=np.arange(30), concepts=np.arange(30) // 3) is None
    assert fit_projection(vectors, forms=np.arange(30), concepts=np.arange(30)) is None


def test_identity_keeps_unit_vectors():
    unit = np.eye(DIM, dtype=np.float32)
    np.testing.assert_array_equal(identity(DIM)(unit), unit)
