"""A tokenizer with the published checkpoints' ids, where each text id is one character of a private plane."""

import json
import random
from functools import cache

from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.tokenizer.text import TextTokenizer
from twgi.vocab import Vocab, image_name

SIZE, CODES, TOKENS_PER_IMAGE = 65_536, 8192, 1024
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
SEPARATOR, PLACEHOLDER = 8710, 8711
PRIVATE = 0xF0000


@cache
def published_layout() -> MultimodalTokenizer:
    """Without an image tokenizer. The codes of the image tokens are shuffled, as their order may be any."""
    codes = random.Random(0).sample(range(CODES), CODES)
    names = [*SPECIAL, *map(image_name, codes), "<eoss>", "<racm3:break>"]
    names += [f"<reserved{place - 4:05}>" for place in range(len(names), PLACEHOLDER)]
    names += ["<image>"]
    names += [chr(PRIVATE + token) for token in range(len(names), SIZE)]
    vocab = {name: token for token, name in enumerate(names)}
    assert vocab["<reserved08706>"] == SEPARATOR
    model = {"type": "BPE", "vocab": vocab, "merges": []}
    text = TextTokenizer.from_json(json.dumps({"version": "1.0", "decoder": {"type": "Fuse"}, "model": model}))
    return MultimodalTokenizer(Vocab.from_names(vocab, tokens_per_image=TOKENS_PER_IMAGE, size=SIZE), text)
