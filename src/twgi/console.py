"""What the command line shows: a thought's story as it unfolds, or how far a run of many has come.

Stories and JSON lines go to stdout, progress and complaints to stderr.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # the command line starts, and complains, without torch
    from collections.abc import Iterable
    from pathlib import Path

    from rich.progress import Progress

    from twgi.runs.run import Outcome
    from twgi.thinking.events import ThoughtEvent
    from twgi.trace import Trace

Item = TypeVar("Item")

_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
LINE_EVERY = 10.0  # seconds
SHOWN = 10**9  # bytes from which on a bar is shown


def complain(text: str) -> None:
    """One line on stderr."""
    print(f"twgi: {shown(' '.join(text.split()))}", file=sys.stderr, flush=True)


class Steady:
    """A stream of text that loses what it cannot take, instead of ending what is at work; `lost` is why.

    With `ends`, a reader who has gone ends it still: `BrokenPipeError`.
    """

    def __init__(self, stream: IO[str], *, ends: bool) -> None:
        self._stream, self._ends, self.lost = stream, ends, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._tried(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._tried(self._stream.flush)

    def _tried(self, act: Callable[..., Any], *given: str) -> None:
        try:
            if not self.lost:
                act(*given)
        except (OSError, ValueError) as error:
            self.lost = str(getattr(error, "strerror", None) or error)
            with suppress(OSError, ValueError):  # what is still buffered goes nowhere
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if self._ends and isinstance(error, BrokenPipeError):
                self.lost = ""
                raise


def steady() -> None:
    """From now on no stream ends the program: one that is closed is nowhere, one that cannot be written loses what is
    told, and what its encoding lacks is escaped as in JSON."""
    codecs.register_error("json", _escaped)
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "r+", encoding="utf-8")  # noqa: SIM115 - as long as we run
        if name != "stdin":
            with suppress(AttributeError):
                stream.reconfigure(errors="json")
            stream = Steady(stream, ends=name == "stdout")
        setattr(sys, name, stream)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4)), error.end


class Quiet:
    """Nothing but complaints."""

    def begin(self, todo: int) -> None: ...
    def hear(self, event: ThoughtEvent, path: Path | None) -> None: ...
    def finished(self, trace: Trace) -> None: ...
    def close(self) -> None: ...

    def failed(self, where: str, problem: str) -> None:
        complain(f"{where}: {problem}" if where else problem)

    def conclude(self, outcome: Outcome) -> None:
        """What came of it, and where to look at it."""
        if outcome.failed_prompts > 1 or (outcome.failures and outcome.thoughts):
            failed = f"{outcome.failed_prompts} of {counted(outcome.prompts, 'prompt')} failed"
            complain(f"{failed}: see {outcome.folder}/errors.jsonl" if outcome.page else failed)
        if outcome.page:
            self.say(f"page: {outcome.page}")

    def say(self, text: str) -> None:
        print(text, flush=True)


class JsonLines(Quiet):
    """Each trace as a line of JSON on stdout, which holds nothing else."""

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def finished(self, trace: Trace) -> None:
        from twgi.trace import to_line

        print(to_line(trace).decode(), end="", flush=True)


class Story(Quiet):
    """One thought as it unfolds: words as they come, pictures by name."""

    def __init__(self) -> None:
        self.kind, self.at_line_start, self.is_terminal = "", True, sys.stderr.isatty()

    def hear(self, event: ThoughtEvent, path: Path | None) -> None:
        """Words are printed as they come, so that lines end where the model ends them."""
        from twgi.thinking.events import ImageFinished, ImageProgress, ImageStarted, TextPiece
        from twgi.thinking.modes import KINDS

        match event:
            case TextPiece(text=text):
                self._words(text.lstrip() if self.at_line_start else text)
            case ImageStarted(kind=kind):
                self.kind = KINDS[kind].title
            case ImageProgress(number=number, done=done, total=total) if self.is_terminal:
                self._status(f"drawing picture {number + 1}: {100 * done // total} %")
            case ImageFinished(number=number):
                self._line(f"[picture {number + 1}{': ' * bool(self.kind)}{self.kind} -> {path}]")

    def finished(self, trace: Trace) -> None:
        """How it ended, when not by itself."""
        if trace.finish_reason == "length":
            self._line("(the thought was cut off: no room for more tokens)")
        elif not self.at_line_start:
            self._words("\n")

    def conclude(self, outcome: Outcome) -> None:
        if outcome.page:
            print()
        super().conclude(outcome)

    def _words(self, text: str) -> None:
        if text:
            print(shown(text), end="", flush=True)
            self.at_line_start = text.endswith("\n")

    def _line(self, text: str) -> None:
        if self.is_terminal:
            self._status("")
        self._words(f"{'' if self.at_line_start else chr(10)}{text}\n")

    def _status(self, text: str) -> None:
        if not self.at_line_start:
            self._words("\n")
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


class Lines(Quiet):
    """A plain line on stderr for each thought: for logs and pipes."""

    def conclude(self, outcome: Outcome) -> None:
        """With the number of thoughts, of earlier runs in the folder too."""
        if outcome.page:
            self.say(outcome.kept)
        super().conclude(outcome)

    def begin(self, todo: int) -> None:
        self.todo, self.done, self.start = todo, 0, time.monotonic()

    def finished(self, trace: Trace) -> None:
        """What was thought, and how long it may yet take."""
        self.done += 1
        left = (time.monotonic() - self.start) / self.done * (self.todo - self.done)
        text = f"{shortened(trace.prompt)}: {counted(len(trace.images), 'picture')}, {duration(left)} left"
        print(f"{self.done}/{self.todo} {shown(text)}", file=sys.stderr, flush=True)


class Bar(Lines):
    """A bar on stderr in place of lines: for people."""

    def begin(self, todo: int) -> None:
        self.pictures, self._bar = 0, _bar("{task.fields[pictures]}")
        self._task = self._bar.add_task("thinking", total=todo, pictures="no picture yet")
        self._bar.start()

    def hear(self, event: ThoughtEvent, path: Path | None) -> None:
        """Pictures count as soon as they are drawn."""
        from twgi.thinking.events import ImageFinished

        if isinstance(event, ImageFinished):
            self.pictures += 1
            self._bar.update(self._task, pictures=counted(self.pictures, "picture"))

    def finished(self, trace: Trace) -> None:
        self._bar.advance(self._task)

    def close(self) -> None:
        if hasattr(self, "_bar"):
            self._bar.stop()


def reporter(*, many: bool, json: bool) -> Quiet:
    """Who tells of a run: of one thought or of many, to a person, a log or a program."""
    if json:
        return JsonLines()
    if not many:
        return Story()
    return Bar() if sys.stderr.isatty() else Lines()


def tracked(items: Iterable[Item], total: int, doing: str, *, quiet: bool = False) -> Iterator[Item]:
    """The items, counted on stderr as they are taken."""
    if quiet:
        yield from items
        return
    with counting(total, doing) as advance:
        for item in items:
            yield item
            advance()


def _bar(*columns: str, of_bytes: bool = False) -> Progress:
    """A bar on stderr with its count, these columns, and the time that is left."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    count = DownloadColumn() if of_bytes else MofNCompleteColumn()
    all_columns = ("{task.description}", BarColumn(), count, *columns, TimeRemainingColumn(), "left")
    return Progress(*all_columns, console=Console(stderr=True))


@contextmanager
def counting(todo: int, doing: str) -> Iterator[Callable[[], None]]:
    """Call what it gives after each of so many things; a bar for people, now and then a line for a log."""
    if sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(doing, total=todo)
            yield lambda: bar.advance(task)
        return
    done, last = 0, time.monotonic()

    def advance() -> None:
        nonlocal done, last
        done += 1
        if time.monotonic() - last > LINE_EVERY:
            last = time.monotonic()
            print(f"{doing}: {done}/{todo}", file=sys.stderr, flush=True)

    yield advance


def bytes_bar(title: str) -> Callable[[int, int], None]:
    """To be told (bytes done, bytes in all): a bar for work on many bytes, where people look; else nothing."""
    bars: list[Progress] = []

    def told(done: int, total: int) -> None:
        if total < SHOWN or not sys.stderr.isatty():
            return
        if not bars:
            bars.append(_bar(of_bytes=True))
            bars[0].add_task(title, total=total)
            bars[0].start()
        bars[0].update(bars[0].task_ids[0], completed=done)
        if done >= total:
            bars[0].stop()

    return told


def shown(text: str) -> str:
    """Text of a model or a user, without what would command the terminal."""
    return _COMMANDS.sub("�", text)


def counted(number: int, noun: str) -> str:
    """``1 picture``, ``2 pictures``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """``12 s``, ``3:05``, ``2:10:00``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def shortened(text: str, length: int = 60) -> str:
    """At most ``length`` signs of it, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
