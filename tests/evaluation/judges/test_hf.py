"""The transformers judge on a tiny random LLaVA: a real architecture, a real processor, no torchvision."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from twgi.errors import CheckpointError
from twgi.evaluation.judges.answer import Picture, Query
from twgi.evaluation.judges.hf import TransformersJudge
from twgi.evaluation.judges.named import judge_named

transformers = pytest.importorskip("transformers")

SPECIAL = ("[UNK]", "<s>", "</s>", "<pad>", "<image>")
SAID = "USER: ASSISTANT: Is it red ? Answer with a single word : yes or no . Yes No four 4"
WORDS = [*SPECIAL, *SAID.split()]
TEMPLATE = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}ASSISTANT:"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint, as transformers itself saves it."""
    path = tmp_path_factory.mktemp("llava")
    torch.manual_seed(0)
    text = transformers.LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=3,
    )  # fmt: skip
    vision = transformers.CLIPVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8,
    )  # fmt: skip
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=WORDS.index("<image>"))
    transformers.LlavaForConditionalGeneration(config).save_pretrained(path)
    processor().save_pretrained(path)
    return path


def processor() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return transformers.LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=TEMPLATE,
    )  # fmt: skip


def picture(seed: int) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    return Picture(image=Image.fromarray(pixels))


def query(seed: int = 0, expected: str = "yes") -> Query:
    return Query(picture=picture(seed), question="Is it red ?", expected=expected)


def test_words_and_probability_come_from_one_greedy_pass(folder: Path) -> None:
    """Against the model called by hand: the softmax of the next token's logits, summed over the spellings."""
    judge = judge_named(f"hf:{folder}")
    ((_, answer),) = judge.answer([query()])
    made = processor()
    words = "USER: <image> Is it red ?\nAnswer with a single word: yes or no. ASSISTANT:"
    inputs = made(text=words, images=[picture(0).image], return_tensors="pt")
    model = transformers.LlavaForConditionalGeneration.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1]
    expected = logits.softmax(-1)[[WORDS.index("yes"), WORDS.index("Yes")]].sum()
    assert answer.p_yes == pytest.approx(float(expected), abs=1e-5)
    first = made.tokenizer.decode([int(logits.argmax())], skip_special_tokens=True)
    assert answer.raw.startswith(first)


def test_the_picture_matters_and_the_neighbours_do_not(folder: Path) -> None:
    judge = TransformersJudge(str(folder))
    alone = [next(judge.answer([query(seed)]))[1] for seed in range(3)]
    together = [answer for _, answer in judge.answer([query(seed) for seed in range(3)])]
    assert alone == together
    assert len({answer.p_yes for answer in alone}) == 3


def test_a_number_has_its_own_spellings(folder: Path) -> None:
    judge = TransformersJudge(str(folder))
    found = {expected: next(judge.answer([query(expected=expected)]))[1].p_yes for expected in ("four", "yes")}
    assert found["four"] is not None
    assert found["four"] != found["yes"]


def test_a_word_of_several_tokens_has_no_probability(folder: Path) -> None:
    judge = TransformersJudge(str(folder))
    logits = torch.zeros(len(WORDS))
    assert judge._probability(logits, "yes") == pytest.approx(2 / len(WORDS))
    judge._processor.tokenizer.encode = lambda text, **_: [4, 5]
    assert judge._probability(logits, "yes") is None


def test_other_weights_are_another_version(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    judges = [TransformersJudge(str(path)) for path in (folder, folder, tmp_path)]
    assert judges[0].version == judges[1].version != judges[2].version
    assert "float32" in judges[0].version
    assert str(folder.parent) not in judges[0].name


def test_what_is_no_judge_is_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot load the judge"):
        TransformersJudge(str(tmp_path))
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="no chat template"):
        TransformersJudge(str(tmp_path))


def test_weights_in_a_pickle_are_not_read(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(load_file(folder / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot load the judge"):
        TransformersJudge(str(tmp_path))


def test_code_beside_the_weights_is_not_run(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForImageTextToText": "evil.Model", "AutoConfig": "evil.Config"}}
    config |= {"model_type": "unheard-of", "trust_remote_code": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(CheckpointError, match="cannot load the judge"):
        TransformersJudge(str(tmp_path))
    assert not (tmp_path / "ran").exists()
