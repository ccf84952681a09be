"""The judge that runs here: a vision-language model of transformers, from a local folder or the hub's cache.

One greedy pass gives both the words and the probability of the wanted answer, read off the logits of the first token
as in Soft-TIFA (GenEval 2). Questions are asked one at a time, so that no answer depends on padding or on its
neighbours.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from twgi.errors import CheckpointError
from twgi.evaluation.judges.answer import Answer, Query, instruction, spellings, understood
from twgi.files import open_regular

MAX_NEW_TOKENS = 8
WORDING = "1"  # of our words around the question


class TransformersJudge:
    """Any `AutoModelForImageTextToText` with a chat template, as safetensors. Raises `CheckpointError`."""

    needs_test = True

    def __init__(self, source: str, *, device: str | None = None) -> None:
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if self._device.startswith("cuda") else torch.float32
        self._processor, self._model = _load(source, dtype)
        self._model.to(self._device).eval()
        self.name = f"hf:{Path(source).name if Path(source).is_dir() else source}"
        self.version = f"{_version(source, self._model)}-{str(dtype).removeprefix('torch.')}-{WORDING}"

    def answer(self, queries: Iterable[Query]) -> Iterator[tuple[Query, Answer]]:
        for query in queries:
            yield query, self._one(query)

    def _one(self, query: Query) -> Answer:
        assert query.picture is not None
        content = [{"type": "image"}, {"type": "text", "text": f"{query.question}\n{instruction(query.expected)}"}]
        text = self._processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = self._processor(text=text, images=[query.picture.image], return_tensors="pt")
        inputs = inputs.to(self._device, dtype=self._model.dtype)
        with torch.inference_mode():
            made = self._model.generate(
                **inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, output_logits=True,
                return_dict_in_generate=True,
            )  # fmt: skip
        new = made.sequences[0, inputs["input_ids"].shape[1] :]
        raw = self._processor.tokenizer.decode(new, skip_special_tokens=True)
        return understood(raw, expected=query.expected, p_yes=self._probability(made.logits[0][0], query.expected))

    def _probability(self, logits_V: torch.Tensor, expected: str) -> float | None:
        """Of the first token being the wanted answer in one of its spellings; None where none is a single token."""
        tokens = {tuple(self._processor.tokenizer.encode(s, add_special_tokens=False)) for s in spellings(expected)}
        whole = sorted({spelled[0] for spelled in tokens if len(spelled) == 1})
        if not whole:
            return None
        return min(1.0, float(logits_V.float().softmax(-1)[whole].sum()))


def _load(source: str, dtype: torch.dtype) -> tuple[Any, Any]:
    try:
        from transformers import AutoModelForImageTextToText
    except ImportError:
        raise CheckpointError("a judge of transformers needs it installed: pip install 'twgi[eval]'") from None
    try:
        processor = _processor(source)
        model = AutoModelForImageTextToText.from_pretrained(
            source, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"cannot load the judge {source}: {reason}") from None
    if not getattr(processor, "chat_template", None):
        raise CheckpointError(f"the judge {source} has no chat template: give an instruction-tuned model")
    return processor, model


def _processor(source: str) -> Any:
    """The checkpoint's processor; where that wants a video processor, which needs torchvision, the same class with the
    same parts but that one: a judge sees no videos."""
    import transformers

    try:
        return transformers.AutoProcessor.from_pretrained(source, trust_remote_code=False)
    except ImportError as error:
        if "torchvision" not in str(error).lower():
            raise
    config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    kind = transformers.PROCESSOR_MAPPING[type(config)]

    def check(self: Any, name: str, part: Any) -> None:
        if name != "video_processor":
            kind.check_argument_for_proper_class(self, name, part)

    tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})(
        image_processor=transformers.AutoImageProcessor.from_pretrained(source, trust_remote_code=False),
        tokenizer=tokenizer,
        video_processor=None,
        chat_template=kind.get_processor_dict(source)[0].get("chat_template") or tokenizer.chat_template,
    )


def _version(source: str, model: Any) -> str:
    """The commit on the hub, or a hash of the folder's files."""
    folder = Path(source)
    if not folder.is_dir():
        return str(getattr(model.config, "_commit_hash", None) or "unknown")[:16]
    total = hashlib.sha256()
    for file in sorted((*folder.glob("*.json"), *folder.glob("*.jinja"), *folder.glob("*.safetensors"))):
        with open_regular(file) as data:
            total.update(f"{file.name}\n".encode() + hashlib.file_digest(data, "sha256").digest())
    return total.hexdigest()[:16]
