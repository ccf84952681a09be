"""Draw the first wrong picture of each task of an evaluated run (the failures in the README).

python scripts/draw_failures.py out/direct assets/failures.png
"""

import json
import sys
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIDE, GAP, WORDS = 128, 16, 40


def draw(folder: Path) -> Image.Image:
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    wrong = {row["tag"]: row for row in reversed(rows) if not row["correct"] and row["images"]}
    sheet = Image.new("RGB", (GAP + len(wrong) * (SIDE + GAP), SIDE + WORDS + 2 * GAP), (250, 250, 247))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for i, row in enumerate(sorted(wrong.values(), key=lambda row: row["prompt_index"])):
        x = GAP + i * (SIDE + GAP)
        picture = Image.open(folder / row["images"][-1])
        sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, GAP))
        words = textwrap.wrap(row["prompt"].removeprefix("a photo of "), 22)
        pen.multiline_text((x, SIDE + GAP + 6), "\n".join(words), (28, 30, 34), font)
    return sheet


if __name__ == "__main__":
    draw(Path(sys.argv[1])).save(sys.argv[2], optimize=True)
