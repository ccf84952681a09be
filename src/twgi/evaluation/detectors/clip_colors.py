"""GenEval's colour classifier: CLIP ViT-L/14, zero-shot over ten colours, on the thing cut out upon grey."""

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from twgi.errors import CheckpointError
from twgi.evaluation.geneval.rules import COLORS, Detection

TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
GROUND = "#999"
FLAT = {"red": (220, 20, 20), "yellow": (250, 230, 20), "green": (20, 150, 40), "blue": (20, 40, 220)}
FLAT |= {"black": (5, 5, 5), "white": (255, 255, 255)}


def cut_out(picture: Image.Image, detection: Detection) -> Image.Image | None:
    """The thing inside its box, all else grey; None where the box has no area."""
    rgb = picture.convert("RGB")
    if detection.mask is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, GROUND), Image.fromarray(detection.mask))
    box = tuple(int(edge) for edge in detection.box)
    empty = box[2] <= box[0] or box[3] <= box[1]
    return None if empty else rgb.crop((box[0], box[1], box[2], box[3]))


class ClipColors:
    """Names colours with a `CLIPModel` on its device and its tokenizer; `version` is written beside scores."""

    name = "clip"

    def __init__(self, model: Any, tokenizer: Any, *, version: str) -> None:
        from transformers import CLIPImageProcessorPil

        self.model, self.tokenizer, self.version = model, tokenizer, version
        side = model.config.vision_config.image_size
        size = {"shortest_edge": side}
        self.processor = CLIPImageProcessorPil(size=size, crop_size={"height": side, "width": side})
        self._weights = cache(self._zero_shot)

    def classify(self, picture: Image.Image, detections: Sequence[Detection]) -> list[str]:
        """The likeliest colour of each thing, all of one class; "" where there is nothing to see."""
        crops = [cut_out(picture, detection) for detection in detections]
        seen = [crop for crop in crops if crop is not None]
        told = iter(self.colors(seen, detections[0].name) if seen else ())
        return [next(told) if crop is not None else "" for crop in crops]

    @torch.inference_mode()
    def colors(self, crops: Sequence[Image.Image], name: str) -> list[str]:
        """The likeliest colour of each crop, which shows a thing of this name."""
        pixels = self.processor(list(crops), return_tensors="pt")["pixel_values"].to(self.model.device)
        features_NE = F.normalize(_pooled(self.model.get_image_features(pixel_values=pixels)), dim=-1)
        likeness_NC = features_NE @ self._weights(name).T
        return [COLORS[index] for index in likeness_NC.argmax(-1).tolist()]

    @torch.inference_mode()
    def _zero_shot(self, name: str) -> Tensor:
        """CE: of each colour the mean of its normalised sentences, normalised again."""
        rows = []
        for color in COLORS:
            said = [template.format(color=color, name=name) for template in TEMPLATES]
            ids = self.tokenizer(said, return_tensors="pt", padding=True).to(self.model.device)
            text_TE = F.normalize(_pooled(self.model.get_text_features(**ids)), dim=-1)
            rows.append(F.normalize(text_TE.mean(0), dim=0))
        return torch.stack(rows)


def _pooled(features: Any) -> Tensor:
    """Features as a tensor; transformers 5 wraps them."""
    pooled: Tensor = getattr(features, "pooler_output", features)
    return pooled


def weights_hash(model: Any) -> str:
    """SHA-256 over the names and values of all weights, whichever file they came from."""
    content = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        content.update(name.encode())
        content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def first_line(error: Exception) -> str:
    """Of an error's words."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def load_clip(path: str, *, device: str = "cpu") -> ClipColors:
    """CLIP from a folder or from the hub's cache. Raises `CheckpointError` where it cannot be loaded."""
    from transformers import CLIPModel, CLIPTokenizer

    try:
        model = CLIPModel.from_pretrained(path, use_safetensors=True).eval().to(device)
        tokenizer = CLIPTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot load CLIP {path!r} ({first_line(error)}); "
            f"fetch it once with: hf download {path}; or give its folder, --clip"
        ) from None
    return ClipColors(model, tokenizer, version=weights_hash(model)[:16])


def flat_colors(colors: ClipColors) -> None:
    """Show it squares of one plain colour each. Raises `CheckpointError` where it names one wrong."""
    told = colors.colors([Image.new("RGB", (64, 64), rgb) for rgb in FLAT.values()], "book")
    wrong = [f"{color} is called {name}" for color, name in zip(FLAT, told, strict=True) if color != name]
    if wrong:
        raise CheckpointError(f"CLIP fails its self-test, so nothing was scored: plain {wrong[0]}; check its weights")
