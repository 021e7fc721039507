"""The scope classifier's contract: probabilities, one an edit, that agree with plain judgement."""

import numpy as np
import pytest

from lifelong.contrary import contrary
from lifelong.encoder import SentenceEncoder, Vectors
from lifelong.router import FIRES
from lifelong.scope import CosineScope, ScopeClassifier, scope_for
from lifelong.subject import masked

DIM = 16


@pytest.fixture
def scope() -> ScopeClassifier:
    return CosineScope()


def at_cosine(*cosines: float) -> tuple[Vectors, Vectors]:
    """A query (d,) and one edit a cosine (n, d), all of length 1."""
    query = np.eye(1, DIM, dtype=np.float32)[0]
    edits = np.zeros((len(cosines), DIM), np.float32)
    edits[:, 0] = cosines
    edits[:, 1] = np.sqrt(1 - np.square(cosines))
    return query, edits


@pytest.mark.parametrize("masked", [True, False])
def test_a_score_is_a_probability_that_grows_with_likeness(
    scope: ScopeClassifier, masked: bool
) -> None:
    scores = scope.score(*at_cosine(-1, -0.3, 0, 0.3, 0.6, 0.9, 1), [""] * 7, masked=masked)
    assert scores.dtype == np.float32
    assert scores.shape == (7,)
    assert (scores >= 0).all()
    assert (scores <= 1).all()
    assert (np.diff(scores) > 0).all()


@pytest.mark.parametrize("masked", [True, False])
def test_the_same_words_are_in_scope_and_foreign_ones_are_not(
    scope: ScopeClassifier, masked: bool
) -> None:
    same, foreign = scope.score(*at_cosine(1.0, 0.0), [""] * 2, masked=masked)
    assert same > FIRES > foreign


def test_without_a_masked_subject_more_likeness_is_asked_for(scope: ScopeClassifier) -> None:
    query, edits = at_cosine(0.2, 0.5, 0.8)
    whole, masked = (scope.score(query, edits, [""] * 3, masked=known) for known in (False, True))
    assert (whole < masked).all()


def test_no_edits_no_scores(scope: ScopeClassifier) -> None:
    query, _ = at_cosine(1.0)
    assert scope.score(query, np.empty((0, DIM), np.float32), [], masked=True).shape == (0,)


def test_a_score_does_not_depend_on_its_neighbours(scope: ScopeClassifier) -> None:
    query, edits = at_cosine(0.1, 0.46, 0.5, 0.9)
    together = scope.score(query, edits, [""] * 4, masked=True)
    alone = [scope.score(query, edits[i : i + 1], [""], masked=True)[0] for i in range(len(edits))]
    assert together.tolist() == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "other", "differ"),
    [
        ("Who is the mother of this?", "this's dad is", True),
        ("this follows", "this is followed by", True),
        ("this follows", "What does this follow?", False),
        ("When does this close?", "How late does this open?", True),
        ("When does this close?", "Until when is this open?", False),
        ("Who are the mother and father of this?", "The mother of this is", False),
        ("Where was this born?", "Where did this die?", True),
        ("The date of birth of this is", "The place of birth of this is", True),
        ("When and where was this born?", "The place of birth of this is", False),
        ("Which woman was the sister of this?", "The mother of this is", True),
        ("this is the father of", "The child of this is", False),
        ("Who runs this?", "The boss of this is", False),
        ("Who is the CFO of this?", "The CEO of this is", True),
        ("Who is the chief executive officer of this?", "The CEO of this is", False),
        ("When does this close on Mondays?", "When does this close on Sundays?", True),
        ("Is this closed on Monday or Sunday?", "Is this closed on Sundays?", False),
        ("Who won this in 2018?", "Who won this in 2022?", True),
        ("Who won this in 2018?", "Who won this?", False),
        ("May I ask when this opens?", "When does this open in June?", False),
        ("What does this cost in May?", "What does this cost in June?", True),
    ],
)
def test_contraries_differ_in_one_side_of_a_pair(text: str, other: str, differ: bool) -> None:
    assert contrary(text, other) is contrary(other, text) is differ


@pytest.mark.real
def test_the_real_encoder_ranks_other_words_before_other_relations(
    real_encoder: SentenceEncoder,
) -> None:
    alike = [
        "Who is the chief executive of Acme?",
        "What is the name of the CEO of Acme?",
        "Acme's CEO is",
    ]
    other = [
        "What does Acme sell?",
        "When was Acme founded?",
        "How many people work at Acme?",
        "In which country is Acme?",
    ]
    texts = [masked(text, "Acme") or "" for text in ("Who is the CEO of Acme?", *alike, *other)]
    edit, *asked = real_encoder.encode(texts)
    scope = scope_for(real_encoder)
    target = ["Dana Fisk"]
    scores = [float(scope.score(q, edit[np.newaxis], target, masked=True)[0]) for q in asked]
    in_scope, out_of_scope = scores[: len(alike)], scores[len(alike) :]
    assert min(in_scope) >= FIRES > max(out_of_scope)


@pytest.mark.real
@pytest.mark.parametrize(
    ("asked", "right", "wrong"),
    [
        ("this plays the instrument", "piano", "quarterback"),
        ("this plays in the position of", "quarterback", "piano"),
    ],
)
def test_a_target_of_the_kind_that_is_asked_for_is_likelier(
    real_encoder: SentenceEncoder, asked: str, right: str, wrong: str
) -> None:
    query, edit = real_encoder.encode([asked, "this, the"])
    edits = np.stack([edit, edit])
    fits, differs = scope_for(real_encoder).score(query, edits, [right, wrong], masked=True)
    assert fits > differs


@pytest.mark.real
def test_a_learned_score_does_not_depend_on_what_else_is_scored(
    real_encoder: SentenceEncoder,
) -> None:
    scope = scope_for(real_encoder)
    texts = ["Who runs this?", "this is led by", "Where is this based?", "The motto of this is"]
    asked, *edits = real_encoder.encode(texts)
    targets = ["Dana Fisk", "Oslo", "Ever onward"]
    together = scope.score(asked, np.stack(edits), targets, masked=True)
    alone = [
        scope.score(asked, edit[np.newaxis], [target], masked=True)[0]
        for edit, target in zip(edits, targets, strict=True)
    ]
    assert together.tolist() == alone
