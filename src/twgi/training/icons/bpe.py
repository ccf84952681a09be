"""A small byte-level BPE in Chameleon's token layout, trained on the icon world's own sentences."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from twgi.icons import chains, tasks
from twgi.thinking.modes import MODES, NEGATIVE_PROMPT
from twgi.vocab import image_name

MARKS_BEFORE = ("<s>", "<pad>", "</s>", "<unk>")
MARKS_AFTER = ("<eoss>", "<racm3:break>", *(f"<reserved0870{i}>" for i in range(2, 7)), "<image>")


def sentences(count: int, seed: int) -> Iterator[str]:
    """Prompts and words of random chains of all modes, as the model will read them."""
    rng = np.random.default_rng(seed)
    builders = list(tasks.TASKS.values())
    for i in range(count):
        request = builders[i % len(builders)](rng)
        scene = tasks.make_scene(request, rng)
        for chain in (chains.subgoal(request, scene), chains.critique(request, scene, rng), chains.general(scene, rng)):
            yield MODES[chain.mode].prompt_text(chain.prompt).replace("<image>", "")
            yield from (part for part in chain.response if isinstance(part, str))
    yield NEGATIVE_PROMPT


def train_bpe(texts: Iterable[str], *, codes: int, merges: int) -> Tokenizer:
    """Ids: four marks, `codes` image tokens in codebook order, eoi, boi, reserved, separator, `<image>`, then text."""
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + merges, initial_alphabet=alphabet, show_progress=False, min_frequency=2
    )
    learned.train_from_iterator(texts, trainer)
    model = json.loads(learned.to_str())["model"]
    names = [*MARKS_BEFORE, *(image_name(code) for code in range(codes)), *MARKS_AFTER]
    words = sorted(model["vocab"], key=model["vocab"].__getitem__)
    vocab = {name: i for i, name in enumerate([*names, *words])}
    bpe = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(pair) for pair in model["merges"]]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in (*MARKS_BEFORE, *MARKS_AFTER)])
    return bpe
