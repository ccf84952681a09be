"""Which tokens may come next: words, whole images, the end. States are values; no torch here.

A thought is text and images in any order. An image is boi, exactly `tokens_per_image` image tokens, eoi. Text never
holds an image token or a mark. An image starts only where a whole one still fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import cache

from twgi.errors import ConfigError, PromptError
from twgi.vocab import Vocab


class FinishReason(StrEnum):
    """Why a thought ended: it was complete, its room was used up, or somebody stopped it."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


class Choice(Enum):
    """The sets a next token is drawn from."""

    TEXT = "text"  # text or eos
    TEXT_OR_BOI = "text or boi"
    ANY_TEXT = "any text"  # reserved ids and marks too: all but what belongs to an image
    ANY_TEXT_OR_BOI = "any text or boi"
    IMAGE = "image"  # an image token


@dataclass(frozen=True, slots=True)
class State:
    """Where a thought is: tokens and images so far, and image tokens still missing (None in text, 0 before eoi)."""

    tokens: int = 0
    images: int = 0
    missing: int | None = None
    finish: FinishReason | None = None

    @property
    def in_image(self) -> bool:
        return self.missing is not None


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """The rules of one thought.

    Args:
        budget: tokens it may have after its prompt, at most what the context has room for.
        max_images: pictures it may draw; text may follow the last.
        starts_with_image: the first token is boi, whatever the model prefers.
        stop_after_images: the thought is complete with this many pictures; None leaves the end to the model.
        any_text: text may hold every id that belongs to no image (see `Quirk.ANY_TEXT`).

    Raises:
        ConfigError: a first image is asked for and does not fit the budget.
    """

    vocab: Vocab
    budget: int
    max_images: int
    starts_with_image: bool = False
    stop_after_images: int | None = None
    any_text: bool = False

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise ConfigError(f"a thought needs room for at least one token, got {self.budget}")
        if self.max_images < 0:
            raise ConfigError(f"max_images must be 0 or more, got {self.max_images}")
        if self.starts_with_image and not self._fits(State()):
            raise ConfigError(f"a picture needs {self.vocab.image_length} tokens, and there is room for {self.budget}")

    def _fits(self, state: State) -> bool:
        room = self.budget - state.tokens
        return state.images < self.max_images and room >= self.vocab.image_length

    def forced(self, state: State) -> int | None:
        """The next token where there is only one, so that no draw is needed."""
        if state.missing == 0:
            return self.vocab.eoi
        if state.tokens == 0 and self.starts_with_image:
            return self.vocab.boi
        return None

    def choice(self, state: State) -> Choice:
        """The set the next token is drawn from, where it is not forced."""
        if state.in_image:
            return Choice.IMAGE
        if self.any_text:
            return Choice.ANY_TEXT_OR_BOI if self._fits(state) else Choice.ANY_TEXT
        return Choice.TEXT_OR_BOI if self._fits(state) else Choice.TEXT

    def allows(self, state: State, token: int) -> bool:
        """Whether this token may come next."""
        if state.finish is not None:
            return False
        forced = self.forced(state)
        if forced is not None:
            return token == forced
        return is_allowed(self.vocab, self.choice(state), token)

    def advance(self, state: State, token: int) -> State:
        """The state after this token, which must be allowed (not checked again: this runs for every token)."""
        tokens, images, missing = state.tokens + 1, state.images, state.missing
        if missing is not None:
            missing = missing - 1 if missing else None
        elif token == self.vocab.boi:
            images, missing = images + 1, self.vocab.tokens_per_image
        return State(tokens, images, missing, self._finish(token, tokens, images))

    def after(self, tokens: Sequence[int]) -> State:
        """The state after these tokens of a thought that goes on.

        Raises:
            PromptError: one of them may not stand where it does, or the thought is over with them.
        """
        state = State()
        for position, token in enumerate(tokens):
            if not self.allows(state, token):
                raise PromptError(f"a thought cannot go on from token {token} at position {position}")
            state = self.advance(state, token)
        if state.finish is not None:
            raise PromptError(f"a thought of {len(tokens)} tokens is over: there is nothing to go on with")
        return state

    def _finish(self, token: int, tokens: int, images: int) -> FinishReason | None:
        complete = token == self.vocab.eoi and images == self.stop_after_images
        if complete or token == self.vocab.eos:
            return FinishReason.STOP
        return FinishReason.LENGTH if tokens >= self.budget else None


def is_allowed(vocab: Vocab, choice: Choice, token: int) -> bool:
    """Whether an id is of a choice."""
    if choice is Choice.IMAGE:
        return vocab.is_image(token)
    if token == vocab.boi:
        return choice in (Choice.TEXT_OR_BOI, Choice.ANY_TEXT_OR_BOI)
    if choice in (Choice.ANY_TEXT, Choice.ANY_TEXT_OR_BOI):
        return 0 <= token < vocab.size and token != vocab.eoi and not vocab.is_image(token)
    return token == vocab.eos or vocab.is_text(token)


@cache
def allowed_ids(vocab: Vocab, choice: Choice) -> tuple[int, ...]:
    """The ids of a choice, in ascending order."""
    return tuple(token for token in range(vocab.size) if is_allowed(vocab, choice, token))
