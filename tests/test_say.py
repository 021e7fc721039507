"""Whatever a model would rather say, a held reply says its target, once, as whole words, in time.

The model here is noise: random scores, fresh for every token, so that any way into a target and any
way past it comes up sooner or later.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from lifelong.lm import LM
from lifelong.match import says
from lifelong.prompt import Say
from lifelong.say import OPENING_WORDS, Saying, Wording

MakeTokenizer = Callable[..., PreTrainedTokenizerFast]

START = 3  # tokens of the prompt
TARGETS = [
    "Dana Ruiz",
    "the Beatles",
    "A man",
    "42",
    "7",
    "2024",
    "3.14",
    "-5 °C",
    "No",
    "C++",
    "U.S.",
    "e.g. this",
    "Dr. No",
    "iPhone 15 Pro",
    "naïve café",
    "東京",
    "🙂 ok",
    "art",  # stands inside other words and inside <|im_start|>
    "aaab",
    "Acme",  # the subject
    "runs",  # a word of the prompt
    '"quoted"',
]


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer: MakeTokenizer) -> PreTrainedTokenizerFast:
    return make_tokenizer()


@dataclass
class Noise:
    """A model of random scores: sampled at `temperature`, greedy at 0, `rather` added to scores."""

    tokenizer: PreTrainedTokenizerBase
    seed: int = 0
    temperature: float = 1.0
    rather: torch.Tensor | float = 0.0

    def reply(
        self, say: Say | str, *, room: int = 48, ends: Sequence[int] | None = None
    ) -> list[int]:
        """The ids it says, held to `say`."""
        if isinstance(say, str):
            say = Say(say, "Acme", "Who runs Acme?")
        ends = [self.tokenizer.eos_token_id] if ends is None else ends
        saying = Saying(self.tokenizer, [say], start=START, room=room, ends=ends)
        dice = torch.Generator().manual_seed(self.seed)
        ids = [0] * START
        while len(ids) < START + room and (len(ids) == START or ids[-1] not in ends):
            scores = torch.randn(len(self.tokenizer), generator=dice) * 4 + self.rather
            shaped = saying(torch.tensor([ids]), scores[None])[0]
            if self.temperature:
                chances = torch.softmax(shaped / self.temperature, -1)
                ids.append(int(torch.multinomial(chances, 1, generator=dice)))
            else:
                ids.append(int(shaped.argmax()))
        return ids[START:]

    def text(self, say: Say | str, **kwargs: Any) -> str:
        """What it says, without special tokens."""
        return str(self.tokenizer.decode(self.reply(say, **kwargs), skip_special_tokens=True))


def fits(tokenizer: PreTrainedTokenizerBase, target: str) -> int:
    """Tokens that the target needs at most."""
    return max(map(len, Wording.of(tokenizer, target)))


# --- the target is said -------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("temperature", [0.0, 1.0, 10.0])
def test_the_target_is_said(
    tokenizer: PreTrainedTokenizerFast, target: str, temperature: float
) -> None:
    for seed in range(4):
        text = Noise(tokenizer, seed, temperature).text(target)
        assert says(text, target), text


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("more", [0, 1, 2, 3, 5])
def test_the_target_is_said_in_the_smallest_room_that_holds_it(
    tokenizer: PreTrainedTokenizerFast, target: str, more: int
) -> None:
    for seed in range(2):
        text = Noise(tokenizer, seed).text(target, room=fits(tokenizer, target) + more)
        assert says(text, target), text


def test_a_room_too_small_holds_the_beginning_of_the_target(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert Noise(tokenizer).text("Dana Ruiz", room=4) == "Dana"
    assert Noise(tokenizer).text("Dana Ruiz", room=1) == "D"


words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)


@given(st.lists(words, min_size=1, max_size=3).map(" ".join), st.integers(0, 2**31))
@example("ﬁne", 0)  # one character before normalisation, two after
@example("ǅ", 1)
def test_any_words_are_said(make_tokenizer: MakeTokenizer, target: str, seed: int) -> None:
    tokenizer = make_tokenizer()
    text = Noise(tokenizer, seed).text(target, room=fits(tokenizer, target) + 4)
    assert says(text, target), text


@pytest.mark.real
@pytest.mark.parametrize("target", TARGETS)
def test_the_target_is_said_in_the_tokens_of_a_real_model(real_lm: LM, target: str) -> None:
    room = fits(real_lm.tokenizer, target)
    for seed in range(2):
        for text in (
            Noise(real_lm.tokenizer, seed).text(target, room=room),
            Noise(real_lm.tokenizer, seed).text(target, room=room + 8),
        ):
            assert says(text, target), text


def test_a_tokenizer_that_rewrites_text_says_the_target_once(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    reply = Noise(tokenizer).reply("The ﬁrst Café")
    text = tokenizer.decode(reply, skip_special_tokens=True)
    assert text.count("the first café") == 1
    assert reply[-1] == tokenizer.eos_token_id


# --- how it is said -----------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_the_reply_ends_behind_the_target(tokenizer: PreTrainedTokenizerFast, target: str) -> None:
    reply = Noise(tokenizer, seed=5).reply(target, room=60)
    assert reply[-1] == tokenizer.eos_token_id
    text = str(tokenizer.decode(reply[:-1]))
    assert text.endswith(target if target.endswith((".", "!", "?")) else f"{target}.")


def test_a_reply_has_words_of_its_own_before_the_target(tokenizer: PreTrainedTokenizerFast) -> None:
    for seed in range(5):
        reply = Noise(tokenizer, seed).reply("Dana Ruiz")
        spoken = reply[: -fits(tokenizer, "Dana Ruiz") - 1]
        assert len(spoken) >= OPENING_WORDS


def test_at_once_leaves_no_room_for_words_of_its_own(tokenizer: PreTrainedTokenizerFast) -> None:
    assert Noise(tokenizer).text(Say("Dana", at_once=True)) == "Dana."


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("Acme is run by", " Dana."),
        ("Q: Who runs Acme?\nA:", " Dana."),
        ("Who runs Acme? ", "Dana."),
        ("Who runs Acme?\n", "Dana."),
        ('Acme is run by "', "Dana."),
        ("", "Dana."),
    ],
)
def test_a_raw_prompt_goes_on_with_a_space_where_one_is_missing(
    tokenizer: PreTrainedTokenizerFast, before: str, text: str
) -> None:
    assert Noise(tokenizer).text(Say("Dana", before=before, at_once=True)) == text


def test_a_very_short_target_is_the_whole_reply(tokenizer: PreTrainedTokenizerFast) -> None:
    assert Noise(tokenizer).text("42") == "42."


def test_a_target_inside_another_word_does_not_count_as_said(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    saying = Saying(tokenizer, [Say("art")], start=START, room=10, ends=[2])
    for said, done in (("articles", False), ("part", False), ("an art", True), ("(art)", True)):
        ids = [0] * START + tokenizer.encode(said, add_special_tokens=False)
        shaped = saying(torch.tensor([ids]), torch.zeros(1, len(tokenizer)))
        ends = int(shaped.argmax()) in (2, tokenizer.encode(".")[0])
        assert (torch.isfinite(shaped).sum() == 1 and ends) == done, said


@pytest.mark.parametrize("ends", [(), (2,), (5, 2), (2, 66)])
def test_whatever_ends_a_reply_does_not_end_it_before_the_target(
    tokenizer: PreTrainedTokenizerFast, ends: tuple[int, ...]
) -> None:
    rather = torch.zeros(len(tokenizer))
    rather[list(ends)] = 50.0
    reply = Noise(tokenizer, rather=rather).reply("Dana Ruiz", ends=ends)
    text = str(tokenizer.decode([id for id in reply if id not in ends]))
    assert says(text, "Dana Ruiz")
    assert len(reply) == 48 if not ends else reply[-1] == ends[0]


# --- a pure function of the ids -----------------------------------------------------------------


@given(ids=st.lists(st.integers(0, 258), max_size=30), seed=st.integers(0, 99))
def test_the_same_ids_and_scores_give_the_same_choice(
    make_tokenizer: MakeTokenizer, ids: list[int], seed: int
) -> None:
    tokenizer = make_tokenizer()
    say = Say("Dana Ruiz", "Acme", "Who runs Acme?")
    made = [Saying(tokenizer, [say], start=START, room=40, ends=[2]) for _ in range(2)]
    scores = torch.randn(1, len(tokenizer), generator=torch.Generator().manual_seed(seed))
    before = scores.clone()
    prompt = torch.tensor([[0] * START + ids])
    used = made[0](prompt, scores)
    made[0](prompt[:, :-1], scores)  # a shorter sequence in between, as in assisted decoding
    assert torch.equal(made[0](prompt, scores), used)
    assert torch.equal(made[1](prompt, scores), used)
    assert torch.equal(scores, before)
    assert torch.isfinite(used).any()


def test_what_stands_before_the_start_does_not_matter(tokenizer: PreTrainedTokenizerFast) -> None:
    saying = Saying(tokenizer, [Say("Dana")], start=START, room=20, ends=[2])
    said = tokenizer.encode("It is D", add_special_tokens=False)
    scores = torch.randn(1, len(tokenizer))
    shaped = [saying(torch.tensor([[p] * START + said]), scores) for p in (0, 1, 99)]
    assert torch.equal(shaped[0], shaped[1])
    assert torch.equal(shaped[0], shaped[2])


def test_rows_are_held_apart_and_the_rest_is_left_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    says_ = [Say("Dana", at_once=True), None, Say("Kim", at_once=True)]
    saying = Saying(tokenizer, says_, start=START, room=20, ends=[2])
    scores = torch.randn(6, len(tokenizer))  # two beams a row
    shaped = saying(torch.zeros(6, START, dtype=torch.long), scores)
    assert torch.equal(shaped[2:4], scores[2:4])
    first = [tokenizer.decode([int(row.argmax())]) for row in shaped]
    assert (first[:2], first[4:]) == (["D", "D"], ["K", "K"])


# --- against the caller's own wishes ------------------------------------------------------------


class Only(LogitsProcessor):
    """A caller who allows these ids and nothing else."""

    def __init__(self, *allowed: int) -> None:
        self.allowed = list(allowed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        only = torch.full_like(scores, -torch.inf)
        only[:, self.allowed] = scores[:, self.allowed]
        return only


@pytest.mark.parametrize("do_sample", [False, True])
@pytest.mark.parametrize(
    "wish",
    [
        {"repetition_penalty": 1.8},
        {"no_repeat_ngram_size": 1},
        {"bad_words_ids": [[39], [39, 68], [70]]},
        {"suppress_tokens": list(range(30, 120))},
        {"logits_processor": LogitsProcessorList([Only(2)])},
        {"logits_processor": LogitsProcessorList([Only(7)])},
        {"min_new_tokens": 48},
        {"renormalize_logits": True, "temperature": 9.0},
        {"top_k": 1, "top_p": 0.01, "typical_p": 0.5, "min_p": 0.9},
        {"epsilon_cutoff": 0.01, "eta_cutoff": 0.01},
        {"guidance_scale": 1.5},
        {"exponential_decay_length_penalty": (1, 1.5)},
        {"sequence_bias": [[[39], -100.0]]},
    ],
    ids=lambda wish: "+".join(wish),
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # greedy search ignores sampling settings
def test_nothing_the_caller_asks_for_can_unsay_the_target(
    lm: LM, wish: dict[str, Any], do_sample: bool
) -> None:
    ids = lm.tokenizer("Who runs Acme?", return_tensors="pt").input_ids
    room = 48
    saying = Saying(
        lm.tokenizer,
        [Say("Dana Ruiz", "Acme", "Who runs Acme?")],
        start=ids.shape[1],
        room=room,
        ends=[2],
    )
    wish = dict(wish)
    mine = LogitsProcessorList([*wish.pop("logits_processor", ()), saying])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        out = lm.model.generate(
            ids, logits_processor=mine, max_new_tokens=room, do_sample=do_sample, **wish
        )
    text = lm.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert says(text, "Dana Ruiz"), text


@pytest.mark.parametrize("beams", [{"num_beams": 4}, {"num_beams": 4, "do_sample": True}])
@pytest.mark.parametrize("early", [True, False, "never"])
def test_every_beam_says_the_target(lm: LM, beams: dict[str, Any], early: bool | str) -> None:
    ids = lm.tokenizer("Who runs Acme?", return_tensors="pt").input_ids
    saying = Saying(
        lm.tokenizer,
        [Say("Dana Ruiz", "Acme", "Who runs Acme?")],
        start=ids.shape[1],
        room=48,
        ends=[2],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        out = lm.model.generate(
            ids,
            logits_processor=LogitsProcessorList([saying]),
            max_new_tokens=48,
            num_return_sequences=4,
            early_stopping=early,
            **beams,
        )
    for row in out[:, ids.shape[1] :]:
        text = lm.tokenizer.decode(row, skip_special_tokens=True)
        assert says(text, "Dana Ruiz"), text


# --- what follows the target --------------------------------------------------------------------


def test_where_more_is_asked_for_a_word_follows_the_target_and_nothing_in_a_loop(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    rather = torch.zeros(len(tokenizer))
    for letter, liking in (("\n", 60.0), ("a", 40.0), ("b", 30.0), (".", -20.0)):
        rather[tokenizer.encode(letter, add_special_tokens=False)[0]] = liking
    say = Say("Ada", "Acme", "Who runs Acme?", lead="Acme is run by", at_once=True, goes_on=True)
    ids = Noise(tokenizer, temperature=0.0, rather=rather).reply(say)
    _, _, tail = tokenizer.decode(ids).partition("Ada.")
    assert tail.startswith("a")
    runs = [tail[i : i + 4] for i in range(len(tail) - 4)]
    assert len(set(runs)) == len(runs)


@pytest.mark.real
def test_a_number_that_was_given_may_be_said_before_the_target(real_lm: LM) -> None:
    say = Say("Ada", "SK 902", "Who flies SK 902?", lead="The captain of")
    wanted = " SK 902, as far as we know, is"
    rather = iter(real_lm.tokenizer.encode(wanted, add_special_tokens=False))
    saying = Saying(
        real_lm.tokenizer, [say], start=START, room=48, ends=[real_lm.tokenizer.eos_token_id]
    )
    ids = [0] * START + real_lm.tokenizer.encode(say.lead, add_special_tokens=False)
    for token in rather:
        scores = torch.zeros(len(real_lm.tokenizer))
        scores[token] = 9.0
        assert int(saying(torch.tensor([ids]), scores[None])[0].argmax()) == token
        ids.append(token)
