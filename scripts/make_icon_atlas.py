"""Draw `src/twgi/icons/icons.png`: one 24 x 24 mask per GenEval object name, from two free icon fonts.

Needs `fonticon-materialdesignicons7` and `fontTools` (extra `icons`), and the npm package `@fontsource/noto-emoji`:

    npm pack @fontsource/noto-emoji@5.3.2 && tar xzf fontsource-noto-emoji-5.3.2.tgz
    python scripts/make_icon_atlas.py package/files/noto-emoji-emoji-700-normal.woff
"""

import io
import re
import sys
from pathlib import Path

import fonticon_mdi7
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from twgi.icons.world import ATLAS_COLUMNS, ICON_PX, ICONS_PNG, NAMES

# GenEval name -> glyph name in Material Design Icons; names not listed here or below are glyph names (spaces as _).
MATERIAL = {
    "person": "human", "car": "car_side", "motorcycle": "motorbike", "bus": "bus_side", "boat": "sail_boat",
    "dog": "dog_side", "backpack": "bag_personal", "handbag": "purse", "suitcase": "bag_suitcase",
    "sports ball": "soccer", "tennis racket": "tennis", "bottle": "bottle_soda_classic", "wine glass": "glass_wine",
    "fork": "silverware_fork", "spoon": "silverware_spoon", "apple": "food_apple", "hot dog": "food_hot_dog",
    "cake": "cake_variant", "couch": "sofa", "dining table": "table_furniture", "tv": "television_classic",
    "computer mouse": "mouse", "tv remote": "remote_tv", "computer keyboard": "keyboard", "cell phone": "cellphone",
    "oven": "stove", "refrigerator": "fridge", "book": "book_open_page_variant", "scissors": "content_cut",
    "hair drier": "hair_dryer", "stop sign": "octagon_outline", "surfboard": "surfing", "orange": "fruit_citrus",
    "sink": "countertop", "parking meter": "parking", "baseball glove": "boxing_glove", "chair": "chair_rolling",
}  # fmt: skip
NOTO = {
    "zebra": 0x1F993, "giraffe": 0x1F992, "banana": 0x1F34C, "broccoli": 0x1F966, "vase": 0x1F3FA, "bear": 0x1F43B,
    "donut": 0x1F369, "frisbee": 0x1F94F, "sandwich": 0x1F96A, "potted plant": 0x1FAB4, "skis": 0x1F3BF,
}  # fmt: skip


def material_font() -> tuple[Path, dict[str, str]]:
    folder = Path(fonticon_mdi7.__file__).parent
    pairs = re.findall(r'^\s+(\w+)\s*=\s*["\']([^"\']+)["\']', (folder / "mdi7.py").read_text(), re.M)
    glyphs = {name: char.encode().decode("unicode_escape") for name, char in pairs}
    return folder / "fonts" / "materialdesignicons-webfont.ttf", glyphs


def noto_font(woff: str) -> io.BytesIO:
    font = TTFont(woff)
    font.flavor = None
    out = io.BytesIO()
    font.save(out)
    return out


def mask(font: ImageFont.FreeTypeFont, char: str) -> Image.Image:
    """The glyph, cut tight, fitted into a square of ICON_PX by area averaging; 255 = ink."""
    big = Image.new("L", (1600, 1600))
    ImageDraw.Draw(big).text((300, 200), char, font=font, fill=255)
    tight = big.crop(big.getbbox())
    side = max(tight.size)
    square = Image.new("L", (side, side))
    square.paste(tight, ((side - tight.width) // 2, (side - tight.height) // 2))
    return square.resize((ICON_PX, ICON_PX), Image.Resampling.BOX)


def main(noto_woff: str) -> None:
    path, glyphs = material_font()
    material = ImageFont.truetype(str(path), 900)
    noto_bytes = noto_font(noto_woff)
    noto_bytes.seek(0)
    noto = ImageFont.truetype(noto_bytes, 900)
    rows = -(-len(NAMES) // ATLAS_COLUMNS)
    atlas = Image.new("L", (ATLAS_COLUMNS * ICON_PX, rows * ICON_PX))
    for i, name in enumerate(NAMES):
        if name in NOTO:
            icon = mask(noto, chr(NOTO[name]))
        else:
            icon = mask(material, glyphs[MATERIAL.get(name, name.replace(" ", "_"))])
        atlas.paste(icon, (i % ATLAS_COLUMNS * ICON_PX, i // ATLAS_COLUMNS * ICON_PX))
    atlas.save(ICONS_PNG, optimize=True)
    print(f"{ICONS_PNG}: {len(NAMES)} icons, {ICONS_PNG.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
