"""A judge whose processor wants a video processor (Qwen-VL's do, and that needs torchvision) is loaded without one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from twgi.evaluation.judges.answer import Picture, Query
from twgi.evaluation.judges.hf import TransformersJudge

transformers = pytest.importorskip("transformers")

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
QUESTION = "Is it red ? Answer with a single word: yes or no."
WORDS = ["[UNK]", *SPECIAL, "user", "assistant", *QUESTION.split(), "Yes", "no", "No"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|> user {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|> <|image_pad|> <|vision_end|> {% else %}{{ part['text'] }} "
    "{% endif %}{% endfor %}<|im_end|> {% endfor %}<|im_start|> assistant"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Qwen3-VL with the files that its published checkpoints have."""
    path = tmp_path_factory.mktemp("qwen")
    torch.manual_seed(0)
    text = {
        "vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "eos_token_id": 3,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0},
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 8, "out_hidden_size": 32,
        "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1],
    }  # fmt: skip
    config = transformers.Qwen3VLConfig(
        text_config=text, vision_config=vision, image_token_id=WORDS.index("<|image_pad|>"),
        video_token_id=WORDS.index("<|video_pad|>"), vision_start_token_id=WORDS.index("<|vision_start|>"),
        vision_end_token_id=WORDS.index("<|vision_end|>"),
    )  # fmt: skip
    transformers.Qwen3VLForConditionalGeneration(config).save_pretrained(path)
    tokenizer().save_pretrained(path)
    images = {
        "image_processor_type": "Qwen2VLImageProcessorFast", "processor_class": "Qwen3VLProcessor", "patch_size": 8,
        "temporal_patch_size": 2, "merge_size": 2, "size": {"shortest_edge": 256, "longest_edge": 4096},
    }  # fmt: skip
    (path / "preprocessor_config.json").write_text(json.dumps(images))
    videos = {"video_processor_type": "Qwen3VLVideoProcessor", "processor_class": "Qwen3VLProcessor"}
    (path / "video_preprocessor_config.json").write_text(json.dumps(videos))
    return path


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL,
    )  # fmt: skip
    made.chat_template = TEMPLATE
    return made


def test_its_probability_is_that_of_the_model_called_by_hand(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    query = Query(picture=Picture(image=Image.fromarray(pixels)), question="Is it red ?")
    ((_, answer),) = TransformersJudge(str(folder)).answer([query])

    images = transformers.AutoImageProcessor.from_pretrained(folder)(
        images=[Image.fromarray(pixels)], return_tensors="pt"
    )
    places = int(images["image_grid_thw"].prod()) // 4
    head = ["<|im_start|>", "user", "<|vision_start|>", *["<|image_pad|>"] * places, "<|vision_end|>"]
    words = [*QUESTION.split(), "<|im_end|>", "<|im_start|>", "assistant"]
    ids = torch.tensor([[WORDS.index(word) for word in (*head, *words)]])
    kinds = (ids == WORDS.index("<|image_pad|>")).int()
    model = transformers.Qwen3VLForConditionalGeneration.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = model(input_ids=ids, mm_token_type_ids=kinds, **images).logits[0, -1]
    expected = logits.softmax(-1)[[WORDS.index("yes"), WORDS.index("Yes")]].sum()
    assert answer.p_yes == pytest.approx(float(expected), abs=1e-5)
