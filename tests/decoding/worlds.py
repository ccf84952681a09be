"""A tiny vocabulary and a tiny random model that likes to draw, for tests of the engine."""

import functools
from collections.abc import Iterable
from dataclasses import replace

import torch

from twgi.decoding.engine import Engine
from twgi.decoding.events import Event, Finished, Token
from twgi.decoding.grammar import Grammar
from twgi.decoding.guidance import Guidance, Ids
from twgi.decoding.pages import PAGE
from twgi.decoding.params import Filter
from twgi.decoding.request import Conditions, Request
from twgi.decoding.scheduler import most_pages
from twgi.model.config import TransformerConfig
from twgi.model.transformer import Transformer
from twgi.vocab import Vocab

VOCAB = Vocab(
    size=60, bos=0, pad=1, eos=2, unk=3, boi=20, eoi=21, separator=22, placeholder=23, reserved=(24, 25),
    image_tokens=(9, 8, 7, 6, 5, 4, 19, 18, 17, 16, 15, 14), tokens_per_image=9,
)  # fmt: skip
NEGATIVE = (40, 41, 42, 43)


@functools.cache
def tiny_model(*, swin_norm: bool = False, packed: bool = True, max_positions: int = 160) -> Transformer:
    config = TransformerConfig(
        vocab_size=VOCAB.size, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2,
        max_positions=max_positions, swin_norm=swin_norm,
    )  # fmt: skip
    model = Transformer(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.3, generator=generator)
        model.head.weight[VOCAB.boi] *= 3.0
    model.eval().requires_grad_(False)
    return model.pack() if packed else model


def kind_of(one: Request, number: int) -> str:
    """The k-th picture has the k-th guidance; the last one is for all that follow."""
    kinds = list(one.guidance)
    return kinds[min(number, len(kinds) - 1)]


def request(
    name: int = 0,
    *,
    prompt: Ids = (0, 30, 31, 32, 22),
    guidances: tuple[Guidance, ...] = (Guidance.normal(2.0),),
    seed: int = 0,
    sample: int = 0,
    budget: int = 60,
    max_images: int = 3,
    by: Filter | None = None,
    starts_with_image: bool = False,
    stop_after_images: int | None = None,
) -> Request:
    by = by or Filter()
    return Request(
        id=name,
        prompt=prompt,
        grammar=Grammar(
            vocab=VOCAB, budget=budget, max_images=max_images, starts_with_image=starts_with_image,
            stop_after_images=stop_after_images,
        ),
        text=by,
        image=by,
        seed=seed,
        sample=sample,
        guidance={f"kind {i}": guidance for i, guidance in enumerate(guidances)},
        conditions=Conditions(prompt=prompt[1:-1], negative=NEGATIVE),
    )  # fmt: skip


def numbered(many: Iterable[Request]) -> list[Request]:
    return [replace(one, id=name) for name, one in enumerate(many)]


def room(many: Iterable[Request], page: int = PAGE) -> int:
    """Positions that the largest of these needs."""
    return page * max(most_pages(one, page) for one in many)


def decode(
    requests: list[Request],
    *,
    tokens: int = 2000,
    page: int = PAGE,
    model: Transformer | None = None,
    serial: bool = False,
    window: int | None = None,
) -> dict[int, list[int]]:
    """The tokens of each request, decoded together."""
    engine = Engine(model or tiny_model(), VOCAB, tokens=tokens, page=page, serial=serial, window=window)
    return tokens_of(events_of(engine, requests))


def events_of(engine: Engine, requests: list[Request]) -> list[Event]:
    by_id = {one.id: one for one in requests}
    for one in requests:
        engine.submit(one)
    events = list(engine.run(lambda id, number: kind_of(by_id[id], number)))
    assert not engine.busy
    assert engine.pages.in_use == 0
    return events


def tokens_of(events: list[Event]) -> dict[int, list[int]]:
    tokens: dict[int, list[int]] = {event.id: [] for event in events}
    done: set[int] = set()
    for event in events:
        assert event.id not in done, "an event after the end"
        if isinstance(event, Token):
            tokens[event.id].append(event.token)
        elif isinstance(event, Finished):
            done.add(event.id)
    return tokens
