"""What is shown of a run: for people on a terminal, for logs, for programs."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from twgi.console import Bar, JsonLines, Lines, Story, duration, reporter, shortened, shown, tracked
from twgi.thinking.events import ImageFinished, ImageProgress, ImageStarted, TextPiece
from twgi.trace import ImageSegment, ModelId, Trace

PICTURE = Image.new("RGB", (4, 4))
TRACE = Trace(
    prompt="a\nred couch", mode="direct", seed=0, model=ModelId(name="tiny", sha256=""), finish_reason="stop",
    segments=(ImageSegment(picture=PICTURE, role="final"),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (185, "3:05"), (7800, "2:10:00")]
)
def test_a_duration_is_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_text_is_shortened_to_one_line_and_commands_no_terminal() -> None:
    assert shortened("a\nred   couch") == "a red couch"
    assert shortened("x" * 70) == "x" * 59 + "…"
    assert shown("a\x1b[2J\x9b\r\tb\n") == "a�[2J��\tb\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_who_is_told_gets_what_they_can_read(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert type(reporter(many=True, json=True)) is JsonLines
    assert type(reporter(many=False, json=False)) is Story
    assert type(reporter(many=True, json=False)) is (Bar if terminal else Lines)


def tell(story: Story) -> None:
    story.hear(TextPiece(" First"), None)
    story.hear(TextPiece(" a couch."), None)
    story.hear(ImageStarted(0, "part"), None)
    story.hear(ImageProgress(0, 3, 4, 7), None)
    story.hear(ImageFinished(0, PICTURE), Path("out/images/00000-0-0.png"))
    story.hear(TextPiece(" Then"), None)
    story.hear(TextPiece(" the whole."), None)
    story.finished(TRACE)


def test_a_story_keeps_words_and_pictures_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Story())
    told = capsys.readouterr()
    assert told.out == "First a couch.\n[picture 1: subgoal -> out/images/00000-0-0.png]\nThen the whole.\n"
    assert told.err == ""


def test_a_terminal_sees_a_picture_being_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    tell(Story())
    told = capsys.readouterr()
    assert told.out == "First a couch.\n[picture 1: subgoal -> out/images/00000-0-0.png]\nThen the whole.\n"
    assert "drawing picture 1: 75 %" in told.err
    assert told.err.endswith("\r\033[K"), "what was shown for a moment is taken away"


def test_a_bar_counts_pictures_and_complains_aside(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    bar.begin(3)
    bar.hear(ImageFinished(0, PICTURE), None)
    bar.finished(TRACE)
    bar.failed("prompts.jsonl:2", "broken [b]JSON[/b]")
    bar.close()
    told = capsys.readouterr()
    assert told.out == ""
    assert "1/3 1 picture" in told.err
    assert "twgi: prompts.jsonl:2: broken [b]JSON[/b]" in told.err


def test_lines_tell_what_is_done_and_how_long_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.begin(1)
    lines.finished(TRACE)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "1/1 a red couch: 1 picture, 0 s left\n"


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("quiet", [True, False])
def test_items_pass_a_bar_unchanged_and_only_a_person_sees_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool, quiet: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert list(tracked(iter("abc"), 3, "reading", quiet=quiet)) == ["a", "b", "c"]
    said = capsys.readouterr()
    assert said.out == ""
    assert ("reading" in said.err) == (terminal and not quiet)
