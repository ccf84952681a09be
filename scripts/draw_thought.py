"""Draw one thought of a run folder as a strip of words and pictures (the picture on top of the README).

python scripts/draw_thought.py out/couch assets/thought.png
"""

import sys
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from twgi.trace import ImageSegment, TextSegment, Trace, read_traces

SIDE, GAP, TOP, WORDS = 192, 28, 64, 92
INK, GREY, PAPER, MARK = (28, 30, 34), (110, 116, 124), (250, 250, 247), (196, 84, 40)


def columns(trace: Trace) -> list[tuple[str, Image.Image | None, str]]:
    """(words before, picture, role) of each picture, and the words after the last."""
    made: list[tuple[str, Image.Image | None, str]] = []
    words = ""
    for segment in trace.segments:
        if isinstance(segment, TextSegment):
            words += segment.text
        elif isinstance(segment, ImageSegment) and segment.role != "input":
            made.append((words.strip(), segment.picture, str(segment.role)))
            words = ""
    return [*made, (words.strip(), None, "")] if words.strip() else made


def draw(trace: Trace) -> Image.Image:
    parts = columns(trace)
    sheet = Image.new("RGB", (GAP + len(parts) * (SIDE + GAP), TOP + WORDS + SIDE + 44), PAPER)
    pen, small, large = ImageDraw.Draw(sheet), ImageFont.load_default(14), ImageFont.load_default(20)
    pen.text((GAP, 20), f"{trace.prompt}   ({trace.mode}, seed {trace.seed})", INK, large)
    for i, (words, picture, role) in enumerate(parts):
        x = GAP + i * (SIDE + GAP)
        pen.multiline_text((x, TOP), "\n".join(textwrap.wrap(words, 28)), INK, small, spacing=3)
        if picture is not None:
            sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, TOP + WORDS))
            pen.text((x, TOP + WORDS + SIDE + 10), role, MARK if role == "final" else GREY, small)
    return sheet


if __name__ == "__main__":
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    draw(next(iter(read_traces(folder / "traces.jsonl"))).with_pictures(folder)).save(target, optimize=True)
