"""What the command line shows: a thought's story as it unfolds, or how far a run of many has come.

Stories and results go to stdout, progress and complaints to stderr.
"""

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def complain(text: str) -> None:
    """One line on stderr."""
    print(f"twgi: {text}", file=sys.stderr, flush=True)


class Lines:
    """Progress as plain lines on stderr: for logs and pipes."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.pictures, self.start = total, 0, 0, time.monotonic()

    def finished(self, prompt: str, pictures: int) -> None:
        """A thought is stored."""
        self.done += 1
        self.pictures += pictures
        text = f"{self.done}/{self.total} {shortened(prompt)}: {counted(pictures, 'picture')}, {self._left()}"
        print(text, file=sys.stderr, flush=True)

    def failed(self, where: str, problem: str) -> None:
        """A thought could not be had."""
        self.done += 1
        complain(f"{where}: {problem}")

    def close(self) -> None: ...

    def _left(self) -> str:
        seconds = (time.monotonic() - self.start) / self.done * (self.total - self.done)
        return f"{duration(seconds)} left"


class Bar:
    """Progress as a bar on stderr: for people."""

    def __init__(self, total: int) -> None:
        self.pictures = 0
        self._bar = _bar()
        self._task = self._bar.add_task("thinking", total=total, pictures="")
        self._bar.start()

    def finished(self, prompt: str, pictures: int) -> None:
        """A thought is stored."""
        self.pictures += pictures
        self._bar.update(self._task, advance=1, pictures=counted(self.pictures, "picture"))

    def failed(self, where: str, problem: str) -> None:
        """A thought could not be had."""
        self._bar.console.print(f"twgi: {where}: {problem}", markup=False, highlight=False, soft_wrap=True)
        self._bar.update(self._task, advance=1)

    def close(self) -> None:
        """Leave the line."""
        self._bar.stop()


class Quiet:
    """No progress; complaints only."""

    def finished(self, prompt: str, pictures: int) -> None: ...

    def failed(self, where: str, problem: str) -> None:
        """A thought could not be had."""
        complain(f"{where}: {problem}")

    def close(self) -> None: ...


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pictures]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


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
