"""The shared steps of the locate-and-write methods, against the model itself."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from lifelong import moments
from lifelong.errors import BadEdit, MomentsMissing, SubjectMissing, UpdateRejected
from lifelong.hooks import tracing
from lifelong.lm import LM
from lifelong.methods.blocks import Blocks
from lifelong.methods.keys_values import (
    Search,
    _rounds,
    early,
    fitted,
    least_change,
    scaled,
    seek,
    weigh,
    write,
)
from lifelong.methods.memit import Memit
from lifelong.methods.rome import Rome
from lifelong.methods.wording import wordings
from store import Edit

ROUND = 5  # wordings beside the bare one: four contexts and a chat
PROMPT = "The capital of Atlantis is"
EDITS = [
    Edit(PROMPT, "Poseidonis", subject="Atlantis"),
    Edit("Lemuria lies in the", "South", subject="Lemuria"),  # the subject opens the text
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"Line {i} says something else than {i * i}." for i in range(200)))
    return path


# --- wordings -------------------------------------------------------------------------------------


def test_every_wording_is_cut_at_the_subjects_last_token(lm: LM) -> None:
    decode = lm.tokenizer.decode
    for wording in wordings(lm, EDITS[:1]):
        assert decode(wording.head).endswith("Atlanti")
        assert decode(wording.tail[:1]) == "s"
        if wording.kind != "essence":
            assert decode(wording.labels).strip() == "Poseidonis"
            assert wording.tail[-len(wording.labels) + 1 :] == wording.labels[:-1]
    kinds = [wording.kind for wording in wordings(lm, EDITS[:1])]
    assert [kinds.count(kind) for kind in ("bare", "context", "chat", "essence")] == [1, 4, 1, 1]


def test_a_bare_wording_is_what_the_tokenizer_makes_of_the_text(lm: LM) -> None:
    first = wordings(lm, EDITS[:1])[0]
    asked = lm.tokenizer.encode(f"{PROMPT} Poseidonis")
    assert [*first.head, *first.tail, first.labels[-1]] == asked


def test_an_inflected_subject_is_found_and_a_missing_one_refused(lm: LM) -> None:
    found = wordings(lm, [Edit("Who leads the Austrian Globex?", "Ann", subject="Globex Austria")])
    assert lm.tokenizer.decode(found[0].head).endswith("Austrian Globe")
    for subject in ("Acme", None):
        with pytest.raises(SubjectMissing):
            wordings(lm, [Edit(PROMPT, "x", subject=subject)])


def test_a_target_that_makes_no_tokens_is_refused(lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifelong.methods.wording._gap", lambda text, target: "")
    with pytest.raises(BadEdit, match="no tokens"):
        wordings(lm, [Edit(PROMPT, "", subject="Atlantis")])


# --- blocks and values ----------------------------------------------------------------------------


def test_blocks_continue_the_model_from_any_layer(every_lm: LM) -> None:
    """Heads kept, tails run again, rows of different lengths: the model's own logits."""
    texts = [t for t in wordings(every_lm, EDITS) if t.kind != "essence"]
    for first in (0, 1):
        blocks = Blocks(
            every_lm,
            range(first, every_lm.layers),
            [t.head for t in texts],
            [t.tail for t in texts],
        )
        with torch.no_grad():
            for rows in (torch.arange(len(texts)), torch.tensor([len(texts) - 1, 2])):
                part = blocks.only(rows)
                left = every_lm.module("final_norm")(part.run(part.start))
                for row, out in zip(rows.tolist(), left, strict=True):
                    tail = len(texts[row].tail)
                    ids = torch.tensor([[*texts[row].head, *texts[row].tail]])
                    logits = every_lm.model(input_ids=ids).logits[0, -tail:]
                    torch.testing.assert_close(
                        every_lm.head(out[:tail]), logits, atol=2e-4, rtol=1e-3
                    )


def test_what_all_rows_begin_with_is_read_once(every_lm: LM) -> None:
    """Rows with a common head, with longer heads of their own, and with nothing but it."""
    rows = [((1, 2, 3), (4, 5)), ((1, 2, 3, 6, 7), (8,)), ((1, 2), (9, 4, 5))]
    for some in (rows, rows[:2], rows[:1], [rows[0], rows[0]]):
        layers = range(1, every_lm.layers)
        blocks = Blocks(every_lm, layers, [head for head, _ in some], [tail for _, tail in some])
        with torch.no_grad():
            left = every_lm.module("final_norm")(blocks.run(blocks.start))
            for (head, tail), out in zip(some, left, strict=True):
                logits = every_lm.model(input_ids=torch.tensor([[*head, *tail]])).logits[0]
                torch.testing.assert_close(
                    every_lm.head(out[: len(tail)]), logits[len(head) :], atol=2e-4, rtol=1e-3
                )


def test_coarse_multiplication_finds_about_the_same(lm: LM) -> None:
    texts, how = wordings(lm, EDITS), Search(steps=6, enough=0.0)
    fine, coarse = (seek(lm, texts, 1, replace(how, coarse=coarse)) for coarse in (False, True))
    assert coarse.before["block"].dtype == coarse.shift["block"].dtype == torch.float32
    torch.testing.assert_close(coarse.loss, fine.loss, atol=0.05, rtol=0.01)
    alike = torch.cosine_similarity(coarse.shift["block"], fine.shift["block"])
    assert alike.gt(0.9).all()


def test_a_value_that_is_sought_makes_the_target_likelier(every_lm: LM) -> None:
    texts = wordings(every_lm, EDITS)
    short, long = (
        seek(every_lm, texts, 1, Search(steps=steps, clamp=4.0, kl=0.0, decay=0.0, enough=0.0))
        for steps in (1, 12)
    )
    assert (long.loss < short.loss - 0.02).all()
    assert long.shift["block"].norm(dim=1).gt(0).all()


def test_the_loss_that_is_sought_is_the_models_own(lm: LM) -> None:
    """A round that moves nothing: half the bare wording's mean NLL, half that of the others."""
    texts = wordings(lm, EDITS)
    found = seek(lm, texts, 1, Search(steps=ROUND, rate=0.0)).loss
    for edit in range(2):
        losses: dict[bool, list[torch.Tensor]] = {True: [], False: []}
        for t in texts:
            if t.edit == edit and t.labels:
                ids = torch.tensor([[*t.head, *t.tail]])
                said = lm.model(input_ids=ids).logits[0, -len(t.labels) :].log_softmax(-1)
                nll = -said.gather(1, torch.tensor(t.labels)[:, None]).mean()
                losses[t.kind == "bare"].append(nll)
        assert [len(losses[bare]) for bare in (True, False)] == [1, ROUND]
        mean = torch.stack([torch.stack(part).mean() for part in losses.values()]).mean()
        torch.testing.assert_close(found[edit], mean, atol=1e-4, rtol=1e-4)


def test_an_edit_that_is_done_is_left_alone(lm: LM) -> None:
    """Done is known after a round: of 2 edits, the one with less loss stays where it was then."""
    texts = wordings(lm, EDITS)
    how = Search(steps=ROUND, rate=0.01, enough=0.0)
    once = seek(lm, texts, 1, how)
    enough = float(once.loss.mean())
    more = seek(lm, texts, 1, replace(how, steps=2 * ROUND, enough=enough))
    done = seek(lm, texts, 1, replace(how, steps=2 * ROUND, enough=2 * float(once.loss.max())))
    quick = once.loss.argmin()
    torch.testing.assert_close(done.loss, once.loss)
    torch.testing.assert_close(more.shift["block"][quick], once.shift["block"][quick])
    moved = (more.shift["block"] - once.shift["block"]).norm(dim=1)
    assert moved[1 - quick] > 1e-3


def test_every_wording_of_an_edit_is_read_in_a_round(lm: LM) -> None:
    always, *turns = _rounds(texts := wordings(lm, EDITS))
    assert {t.kind for t in always} == {"bare", "essence"}
    assert len(turns) == ROUND
    assert all([t.edit for t in turn] == [0, 1] for turn in turns)
    assert sorted(map(id, chain(always, *turns))) == sorted(map(id, texts))


def test_a_shift_is_held_within_its_clamp(lm: LM) -> None:
    values = seek(lm, wordings(lm, EDITS), 1, Search(rate=5.0, clamp=0.5, enough=0.0))
    share = values.shift["block"].norm(dim=1) / values.before["block"].norm(dim=1)
    torch.testing.assert_close(share, torch.full((2,), 0.5), atol=1e-4, rtol=0)


# --- second moments and the write -----------------------------------------------------------------


def test_moments_are_the_mean_of_k_k_transposed(every_lm: LM, text: Path) -> None:
    (found,) = moments.measure(every_lm, [1], text, tokens=1000)
    lines = text.read_text().splitlines(keepends=True)
    ids = [i for line in lines for i in every_lm.tokenizer.encode(line)][:1000]
    keys: list[torch.Tensor] = []
    with (
        torch.no_grad(),
        tracing(after={every_lm.module("mlp_out", 1): lambda k, _: keys.append(k.flatten(0, -2))}),
    ):
        every_lm.model(input_ids=torch.tensor(ids[: 1000 // 128 * 128]).view(-1, 128))
    k = keys[0].double()
    torch.testing.assert_close(found.matrix, k.T @ k / len(k), atol=1e-4, rtol=1e-3)
    assert found.tokens == len(k) == 896


def test_moments_are_measured_once_and_a_new_text_is_another(
    lm: LM, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = moments.measure(lm, [0, 1], text)[1]
    monkeypatch.setattr("lifelong.moments._stream", None)
    assert torch.equal(moments.moment(lm, 1).matrix, first.matrix)
    assert torch.equal(moments.measure(lm, [1], text)[0].matrix, first.matrix)
    monkeypatch.undo()


def test_too_little_text_and_missing_moments_are_told(lm: LM, tmp_path: Path) -> None:
    with pytest.raises(MomentsMissing, match="lifelong stats"):
        moments.moment(lm, 0)
    short = tmp_path / "short.txt"
    short.write_text("Not much.")
    with pytest.raises(MomentsMissing, match="longer text"):
        moments.measure(lm, [0], short)


def test_moments_of_another_model_are_not_taken(make_lm: Callable[..., LM], text: Path) -> None:
    moments.measure(make_lm("llama"), [0], text)
    moments.moment(make_lm("llama"), 0)
    with pytest.raises(MomentsMissing):
        moments.moment(make_lm("llama", seed=1), 0)


def test_two_values_at_one_key_are_refused(lm: LM) -> None:
    """Exact constraints that contradict each other: the system is singular."""
    twins = [replace(EDITS[0], prompt=f"The capital of Atlantis {verb}") for verb in ("is", "was")]
    moments.ensure(lm, [Rome().layer(lm), *early(lm)])
    with pytest.raises(UpdateRejected, match="one after the other"):
        Rome().propose(lm, twins, ())
    Memit().propose(lm, twins, ())  # which weighs them against each other


def test_the_write_brings_the_subject_to_the_wanted_value(
    every_lm: LM, text: Path, make_lm: Callable[..., LM]
) -> None:
    """One layer, no weight on other keys: what is written beside the model is exactly reached."""
    kind = every_lm.model.config.model_type
    other = make_lm(kind)
    texts = [t for t in wordings(other, EDITS) if t.kind == "bare"]
    known = moments.measure(other, [1], text)[0]

    def solve(_layer: int, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weighed = weigh(known, keys)
        return weighed, keys.double() @ weighed.T

    wanted = torch.randn(2, other.hidden, generator=torch.Generator().manual_seed(0))
    (name, factors), *_ = write(other, texts, wanted, [1], solve, site="mlp_out").items()
    change = torch.from_numpy(factors.change({0, 1}))
    weight = other.model.get_parameter(name)
    with torch.no_grad():
        weight += change.T if other.layout and other.layout.transposed else change
    found: list[torch.Tensor] = []
    module = other.module("mlp_out", 1)
    for t in sorted(texts, key=lambda t: t.edit):
        with torch.no_grad(), tracing(after={module: lambda _, out: found.append(out[0, -1])}):
            other.model(input_ids=torch.tensor([[*t.head, t.tail[0]]]))
    torch.testing.assert_close(torch.stack(found), wanted, atol=2e-3, rtol=1e-3)


def test_only_what_falls_short_is_given_a_longer_part(
    every_lm: LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two edits that hardly change anything: one whose target the model says anyway, one not."""
    monkeypatch.setattr("lifelong.methods.keys_values._MARGIN", 0.0)  # random models are unsure
    layers = early(every_lm)
    moments.ensure(every_lm, layers)
    bare = [text for text in wordings(every_lm, EDITS) if text.kind == "bare"]
    ends = [len(text.tail) - len(text.labels) + 1 for text in bare]
    texts = []
    for text, end, rank in zip(bare, ends, (0, 1), strict=True):
        ids = torch.tensor([[*text.head, *text.tail[:end]]])
        with torch.no_grad():
            said = every_lm.model(input_ids=ids).logits[0, -1].argsort(descending=True)
        texts.append(replace(text, tail=text.tail[:end], labels=(int(said[rank]),)))
    wanted = torch.randn(2, every_lm.hidden, generator=torch.Generator().manual_seed(0))
    known = {layer: moments.moment(every_lm, layer) for layer in layers}
    change = write(every_lm, texts, wanted, layers, least_change(known, 1e9))
    for rounds, longer in ((0, 1.0), (2, 1.15**2), (9, 2.0)):
        for name, now in fitted(every_lm, texts, partial(scaled, change), rounds).items():
            np.testing.assert_array_equal(now.u[:, 0], change[name].u[:, 0])
            np.testing.assert_allclose(now.u[:, 1], longer * change[name].u[:, 1], rtol=1e-5)
