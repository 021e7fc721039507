"""What comes in: the bodies of requests, as far as they are understood.

A field that would change the reply and that we cannot honour is refused; one that would not is
ignored, as clients send many.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lifelong.batching import Sampling
from lifelong.serve.problems import Problem

_REFUSED = """logprobs top_logprobs logit_bias tools tool_choice functions function_call modalities
audio response_format prediction best_of echo suffix""".split()
_PLAIN: Mapping[str, Sequence[Any]] = {  # ... unless it is what we do anyway
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "best_of": (1,),
}
_MOST = 8  # replies to one request


def _sayable(text: str) -> str:
    """Refuse lone surrogates: they are no text. Raises ValueError."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ValueError("holds half a character") from exc
    return text


Words = Annotated[str, AfterValidator(_sayable)]
Whole = Annotated[int, Field(ge=1, le=2**31)]


class Part(BaseModel):
    """A piece of a message."""

    type: Literal["text"]
    text: Words


class Turn(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Words | list[Part] | None = None

    def plain(self) -> dict[str, str]:
        """Role and text, as chat templates take them."""
        role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, list):
            return {"role": role, "content": "\n".join(part.text for part in self.content)}
        return {"role": role, "content": self.content or ""}


class StreamOptions(BaseModel):
    """What a stream tells beside the reply."""

    include_usage: bool = False


class Asked(BaseModel):
    """What chats and completions have in common."""

    model_config = ConfigDict(extra="allow")

    model: Annotated[str, Field(max_length=200)]
    max_tokens: Whole | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=_MOST)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[list[Words], Field(max_length=4)] | Words | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream shall end with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self, most: int, position: int = 0) -> Sampling:
        """How reply number `position` is sampled; `most` tokens unless the request says."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            self.limit or most,
            self.temperature,
            self.top_p,
            None if self.seed is None else (self.seed + position) % 2**63,
            tuple(filter(None, stop)),
            self.frequency_penalty or 0.0,
            self.presence_penalty or 0.0,
        )

    @property
    def limit(self) -> int | None:
        """The most tokens that the caller wants."""
        return self.max_tokens

    def check(self) -> None:
        """Refuse what cannot be honoured. Raises Problem."""
        for name in _REFUSED:
            value = (self.model_extra or {}).get(name)
            if value not in (None, False, 0, "", [], {}, *_PLAIN.get(name, ())):
                raise Problem(
                    400,
                    f"{name} is not supported here: leave it out.",
                    code="unsupported_parameter",
                    param=name,
                )


class ChatAsked(Asked):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Turn], Field(min_length=1, max_length=1_000)]
    max_completion_tokens: Whole | None = None

    @property
    def limit(self) -> int | None:
        """The newer name goes first."""
        return self.max_completion_tokens or self.max_tokens


class TextAsked(Asked):
    """POST /v1/completions."""

    prompt: Words | Annotated[list[Words], Field(min_length=1, max_length=_MOST)]

    @property
    def prompts(self) -> list[str]:
        """One text each."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class CorrectionIn(BaseModel):
    """POST /v1/corrections. Who says it, and for whom, is the key's to tell."""

    model_config = ConfigDict(extra="forbid")

    prompt: Words
    target: Words
    subject: Words | None = None
    relation: Words | None = None
    old: Words | None = None
    paraphrases: list[Words] = []
    locality: list[Words] = []
    valid_until: Words | None = None
    on_conflict: Literal["supersede", "reject", "review"] = "supersede"
    evidence: Annotated[Words, Field(max_length=2_000)] | None = None
    trace_id: Annotated[Words, Field(max_length=200)] | None = None


class CorrectionChange(BaseModel):
    """PATCH /v1/corrections/{id}: another answer to the same question, as a new edit."""

    model_config = ConfigDict(extra="forbid")

    target: Words


class Approval(BaseModel):
    """POST /v1/corrections/{id}:approve. A complaint needs the right answer."""

    model_config = ConfigDict(extra="forbid")

    target: Words | None = None
    reach: Literal["author", "tenant", "everyone"] | None = None
    reason: Annotated[Words, Field(max_length=500)] = ""


class Reasoned(BaseModel):
    """The body of the other verbs; it may be left out."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[Words, Field(max_length=500)] = ""


class FeedbackIn(BaseModel):
    """POST /v1/feedback: thumbs on an answer and, where they are down, perhaps the right one."""

    model_config = ConfigDict(extra="forbid")

    question: Words
    answer: Words
    rating: Literal["up", "down"]
    correction: Words | None = None
    source: Literal["HUMAN", "LLM", "CODE"] = "HUMAN"
    trace_id: Annotated[Words, Field(max_length=200)] | None = None
