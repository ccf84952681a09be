"""A task becomes a request to the engine: prompt and conditions as ids, and the grammar of the thought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from twgi.checkpoint.load import ModelDescription
from twgi.decoding.grammar import Grammar
from twgi.decoding.guidance import Branch, Ids
from twgi.decoding.request import Conditions, Request
from twgi.errors import CheckpointError, ConfigError, PromptError, RunError, is_out_of_memory
from twgi.thinking import published
from twgi.thinking.events import Picture, Task
from twgi.thinking.modes import KindOf, Mode, images_allowed, mode_named
from twgi.thinking.settings import Settings
from twgi.tokenizer.image import open_picture, to_square
from twgi.tokenizer.multimodal import Codes, MultimodalTokenizer, check_prompt, place_pictures
from twgi.trace import ModelId
from twgi.vocab import Vocab

KEPT_PIXELS = 4_000_000
"""Of the pictures of a prompt in its trace; those beyond are kept as the model saw them, which gives the same codes."""


class Described:
    """Whoever thinks with the weights of `source`."""

    source: ModelDescription

    @property
    def identity(self) -> ModelId:
        """Which weights think."""
        return ModelId(name=self.source.name, sha256=self.source.sha256)

    def resolved(self, settings: Settings) -> Settings:
        """The settings with what they leave to the checkpoint."""
        return settings.resolved(self.source.defaults, self.source.generation)


@dataclass(frozen=True)
class ModelFacts(Described):
    """What every thought of one model has in common; `context` is its positions."""

    tokenizer: MultimodalTokenizer
    context: int
    source: ModelDescription


@dataclass(kw_only=True)
class Draft:
    """A request that may still be edited."""

    mode: Mode
    vocab: Vocab
    prompt: Ids
    conditions: Conditions
    context: int
    asked_tokens: int | None  # the limits that the user gave
    asked_images: int | None
    images: int  # it may draw
    least_tokens: int  # the shortest thought of this mode
    stop_after_images: int | None
    kind_of: KindOf
    any_text: bool = False
    unread: frozenset[int] = frozenset()

    def grammar(self) -> Grammar:
        """The rules of the thought, and its room; `PromptError` or `ConfigError` where that is too small."""
        length, asked, least = len(self.prompt), self.asked_tokens, self.least_tokens
        room = self.context - length
        if room < least:
            raise PromptError(
                f"the prompt is too long: {length} tokens and at least {least} more, but the context holds "
                f"{self.context}"
            )
        if asked is not None and asked < least:
            raise ConfigError(
                f"max-tokens {asked} is too small for one picture: mode {self.mode.name!r} needs at least {least}"
            )
        return Grammar(
            vocab=self.vocab,
            budget=room if asked is None else min(asked, room),
            max_images=self.images,
            starts_with_image=self.mode.starts_with_image,
            stop_after_images=self.stop_after_images,
            any_text=self.any_text,
        )


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A request, with what only the thought needs: its settings, the pictures of its prompt, kinds of pictures."""

    request: Request
    settings: Settings
    pictures: tuple[Image.Image, ...]
    kind_of: KindOf


def plan(id: int, task: Task, facts: ModelFacts) -> Planned:
    """The request of a task.

    Raises `ConfigError`: settings that cannot be, or a limit too small for a picture; `PromptError`: the prompt is
    empty, too long, or does not fit its pictures; `ImageError`: a picture cannot be opened; `CheckpointError`: the mode
    draws, and the checkpoint cannot.
    """
    try:
        return _plan(id, task, facts)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError("too little memory to read this prompt: give fewer or smaller pictures") from None


def _plan(id: int, task: Task, facts: ModelFacts) -> Planned:
    settings = facts.resolved(task.settings)
    blank = [0] * facts.tokenizer.vocab.tokens_per_image
    draft = _draft(task.prompt, [blank] * len(task.pictures), settings, facts)
    grammar = draft.grammar()  # every limit is looked at before a picture is
    grammar.after(task.given)
    pictures, codes = _read(task.pictures, facts.tokenizer)
    if pictures:
        draft = _draft(task.prompt, codes, settings, facts)
    request = Request(
        id=id,
        prompt=draft.prompt,
        grammar=grammar,
        text=settings.sampling.text,
        image=settings.sampling.image,
        seed=task.seed,
        sample=task.sample,
        guidance={kind: settings.plan.for_picture(kind) for kind in draft.mode.kinds},
        conditions=draft.conditions,
        given=tuple(task.given),
        unread=draft.unread,
    )
    return Planned(request=request, settings=settings, pictures=tuple(pictures), kind_of=draft.kind_of)


def _read(pictures: Sequence[Picture], tokenizer: MultimodalTokenizer) -> tuple[list[Image.Image], list[Codes]]:
    """The pictures as the trace will have them, and their codes. One at a time is held in its full size."""
    kept, codes, room = list[Image.Image](), list[Codes](), KEPT_PIXELS
    for picture in pictures:
        whole = open_picture(picture) if isinstance(picture, str | Path) else picture
        codes += tokenizer.codes([whole])
        if whole is not picture and whole.width * whole.height > room and tokenizer.image is not None:
            whole = to_square(whole, tokenizer.image.resolution)
        room -= whole.width * whole.height
        kept.append(whole)
    return kept, codes


def _draft(prompt: str, codes: Sequence[Codes], settings: Settings, facts: ModelFacts) -> Draft:
    mode, tokenizer, sampling = mode_named(settings.mode), facts.tokenizer, settings.sampling
    check_prompt(prompt, len(codes))
    if codes and not mode.takes_pictures:
        raise PromptError(f"mode {mode.name!r} takes no pictures in its prompt; use general")
    images = len(codes) * tokenizer.vocab.image_length
    if images > facts.context:
        raise PromptError(
            f"the prompt is too long: its {len(codes)} pictures alone are {images} tokens, but the context holds "
            f"{facts.context}"
        )
    negative: Ids = ()
    if Branch.NEGATIVE in settings.plan.branches:
        if not settings.negative_prompt.strip():
            raise ConfigError(
                "the negative prompt is empty, and the guidance has a negative branch: set scale-negative to 0"
            )
        negative = tuple(tokenizer.text.encode(settings.negative_prompt))
    said = place_pictures(prompt, len(codes))
    bare = tuple(tokenizer.encode_prompt(said, codes)[1:-1])
    draft = Draft(
        mode=mode,
        vocab=tokenizer.vocab,
        prompt=tuple(tokenizer.encode_prompt(mode.prompt_text(said), codes)),
        conditions=Conditions(prompt=bare, negative=negative),
        context=facts.context,
        asked_tokens=sampling.max_tokens,
        asked_images=sampling.max_images,
        images=_images(mode, settings, tokenizer.draws),
        least_tokens=1 if mode.takes_pictures else tokenizer.vocab.image_length,
        stop_after_images=mode.stop_after_images,
        kind_of=mode.kind_of,
    )
    published.edit(draft, settings.quirks, config_bos=facts.source.config_bos)
    return draft


def _images(mode: Mode, settings: Settings, draws: bool) -> int:
    """Pictures that the thought may draw."""
    if not draws and mode.takes_pictures:
        return 0
    if not draws:
        raise CheckpointError(
            f"mode {mode.name!r} draws, and this checkpoint has no image decoder (model.vqmodel.decoder.*): "
            "give the original vqgan.ckpt with --vq, or use mode general to read and write"
        )
    asked, images = settings.sampling.max_images, images_allowed(mode, settings.rounds)
    if asked is None:
        return images
    return min(images, asked) if mode.stop_after_images else asked
