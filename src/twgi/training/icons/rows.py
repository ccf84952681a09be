"""Rows of the icon world, made fresh as training goes. What step i trains on is a pure function of (seed, i)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from twgi.data.rows import TokenRow
from twgi.icons import chains, tasks, world
from twgi.icons.chains import Chain, Drawn
from twgi.icons.world import Placed, Scene, render
from twgi.thinking.modes import MODES
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.training.batches import collate

Piece = tuple[Sequence[int], bool]
"""Ids, and whether they carry loss."""
GROUP = 8  # steps whose rows are made together, so that rows of like length meet in a batch


class SceneCodes:
    """Codes of a scene, laid together from the codes of its things seen alone: a thousand times faster than encoding.

    The image tokenizer gives a thing the same codes beside whatever it stands, so they are the same in all but few cells.
    """

    def __init__(self, tokenizer: MultimodalTokenizer) -> None:
        self.tokenizer = tokenizer
        self.ground = self.encode([Scene(())])[0]
        self.alone = functools.cache(self._alone)

    def encode(self, scenes: Sequence[Scene]) -> np.ndarray:
        """By the real encoder: int64 [scenes, tokens per image]."""
        return np.asarray(self.tokenizer.codes([render(scene) for scene in scenes]))

    def _alone(self, col: int, row: int) -> np.ndarray:
        """Codes of every coloured icon alone at this place: [name, colour, N]."""
        looks = [(name, color) for name in world.NAMES for color in world.COLORS]
        scenes = [Scene((Placed(name, color, col, row),)) for name, color in looks]
        parts = [self.encode(scenes[i : i + 100]) for i in range(0, len(scenes), 100)]
        return np.concatenate(parts).reshape(len(world.NAMES), len(world.COLORS), -1).astype(np.int32)

    def __call__(self, scene: Scene) -> np.ndarray:
        codes = self.ground.copy()
        for thing in scene.objects:
            alone = self.alone(thing.col, thing.row)[
                world.NAMES.index(thing.name), tasks.COLOR_NAMES.index(thing.color)
            ]
            changed = alone != self.ground
            codes[changed] = alone[changed]
        return codes


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """How many rows of what; shares are of rows unless said otherwise."""

    direct_rows: int = 32
    chain_tokens: int = 3200
    unconditional: float = 0.10
    bare_prompt: float = 0.04
    pictures_only: float = 0.04
    chains: dict[str, float] = field(default_factory=lambda: {"subgoal": 0.4, "critique": 0.3, "general": 0.3})
    tasks: dict[str, float] = field(
        default_factory=lambda: {
            "single_object": 0.12, "two_object": 0.16, "counting": 0.16, "colors": 0.12, "position": 0.14,
            "color_attr": 0.16, "many": 0.07, "related": 0.07,
        }
    )  # fmt: skip
    simple_steps: int = 400  # until here, simple scenes are drawn more often


SIMPLE = ("single_object", "colors")


class RowMaker:
    """Random rows of every kind."""

    def __init__(self, tokenizer: MultimodalTokenizer, codes: SceneCodes, mixture: Mixture) -> None:
        self.tokenizer, self.codes, self.mixture = tokenizer, codes, mixture
        self.words = functools.lru_cache(maxsize=50_000)(lambda text: tuple(tokenizer.text.encode(text)))

    def image(self, scene: Scene, *, learn: bool, boi: bool = False) -> list[Piece]:
        """A picture, and whether its tokens and the mark before them carry loss."""
        ids = self.tokenizer.image_block(self.codes(scene).tolist())
        return [(ids[:1], boi), (ids[1:], learn)]

    def prompt_ids(self, chain: Chain) -> list[int]:
        pictures = [self.codes(scene).tolist() for scene in chain.pictures]
        return self.tokenizer.encode_prompt(MODES[chain.mode].prompt_text(chain.prompt), pictures)

    def row(self, chain: Chain) -> TokenRow:
        """The whole row: loss on the response alone, and there not on pictures that are only context."""
        pieces: list[Piece] = [(self.prompt_ids(chain), False)]
        for part in chain.response:
            if isinstance(part, Drawn):
                pieces += self.image(part.scene, learn=part.learn, boi=True)
            else:
                pieces.append((self.words(part), True))
        return joined([*pieces, ([self.tokenizer.vocab.eos], True)], chain.mode)

    def bare(self, before: Sequence[int], scene: Scene) -> TokenRow:
        """A condition row of guidance: whatever comes before, then the picture."""
        return joined([(before, False), *self.image(scene, learn=True)], "picture")

    def pictures(self, chain: Chain) -> TokenRow:
        """What the image branch of guidance reads: bos and the pictures of the response."""
        drawn = [part for part in chain.response if isinstance(part, Drawn)]
        pieces = [piece for part in drawn for piece in self.image(part.scene, learn=part.learn)]
        return joined([([self.tokenizer.vocab.bos], False), *pieces], "pictures")

    def request(self, rng: np.random.Generator, step: int) -> tasks.Request:
        weights = dict(self.mixture.tasks)
        if step < self.mixture.simple_steps:
            weights = {task: w * (4 if task in SIMPLE else 1) for task, w in weights.items()}
        shares = np.array(list(weights.values()))
        return tasks.TASKS[list(weights)[rng.choice(len(shares), p=shares / shares.sum())]](rng)

    def direct_row(self, rng: np.random.Generator, step: int) -> TokenRow:
        request = self.request(rng, step)
        scene = tasks.make_scene(request, rng)
        chance = rng.random()
        if chance < self.mixture.unconditional:
            return self.bare([], scene)
        if chance < self.mixture.unconditional + self.mixture.bare_prompt:
            return self.bare(self.words(request.prompt), scene)
        return self.row(chains.direct(request, scene))

    def chain_row(self, rng: np.random.Generator, step: int) -> TokenRow:
        request = self.request(rng, step)
        scene = tasks.make_scene(request, rng)
        shares = self.mixture.chains
        match str(rng.choice(list(shares), p=list(shares.values()))):
            case "subgoal":
                chain = chains.subgoal(request, scene)
            case "critique":
                chain = chains.critique(request, scene, rng)
            case _:
                chain = chains.general(scene, rng)
        return self.pictures(chain) if rng.random() < self.mixture.pictures_only else self.row(chain)


def joined(pieces: Sequence[Piece], source: str) -> TokenRow:
    lengths = [len(ids) for ids, _ in pieces]
    ids = np.concatenate([np.array(ids, np.int64) for ids, _ in pieces])
    return TokenRow(ids=ids, learn=np.repeat([learn for _, learn in pieces], lengths), source=source)


class FreshRows:
    """Called with a step: one batch of direct rows, and one of chains of like length."""

    def __init__(self, maker: RowMaker, *, seed: int) -> None:
        self.maker, self.seed = maker, seed
        self.group = functools.lru_cache(maxsize=2)(self._group)

    def __call__(self, step: int) -> list[dict[str, Any]]:
        parts = self.group(step // GROUP)[step % GROUP]
        return [collate([[row] for row in rows], self.maker.tokenizer.vocab.pad) for rows in parts if rows]

    def _group(self, group: int) -> list[tuple[list[TokenRow], list[TokenRow]]]:
        """Chains are sorted by length and cut into batches of about equal numbers of tokens."""
        rng, step, mixture = np.random.default_rng([self.seed, group]), group * GROUP, self.maker.mixture
        direct = [self.maker.direct_row(rng, step) for _ in range(mixture.direct_rows * GROUP)]
        chained: list[TokenRow] = []
        while sum(len(row.ids) for row in chained) < mixture.chain_tokens * GROUP:
            chained.append(self.maker.chain_row(rng, step))
        chained.sort(key=lambda row: len(row.ids))
        ends = np.cumsum([len(row.ids) for row in chained])
        part = (ends - 1) * GROUP // ends[-1]
        batches = [[row for row, p in zip(chained, part, strict=True) if p == i] for i in range(GROUP)]
        return [(direct[i::GROUP], batches[place]) for i, place in enumerate(rng.permutation(GROUP))]
