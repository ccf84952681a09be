"""Thoughts by Ray actors, on one or many machines: a thinker that has others do the work.

Each actor holds the whole model. A thought depends on nothing but its task, so the records are those of one process;
the run folder is written by the process that asked, which is therefore resumed in the same way.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from twgi import load
from twgi.errors import ConfigError, TwgiError
from twgi.thinking.thought import Done, Failed, ImageFinished, Task, ThoughtEvent
from twgi.trace import Trace

BLOCK = 2  # batches that an actor takes at a time: enough to keep it busy, little to lose


class RayThinker:
    """A thinker whose thoughts are made by `actors` Ray actors, each with `model` (a preset, or a path all can read).

    `loading` is what `twgi.load` is told beside the model's name.

    Raises:
        ConfigError: Ray is not installed.
    """

    def __init__(self, model: str, *, actors: int, loading: Mapping[str, Any]) -> None:
        try:
            import ray.data  # noqa: F401
        except ImportError as error:
            raise ConfigError(f"--ray needs the extra ray: pip install 'twgi[ray]' ({error})") from None
        self.model, self.actors, self.loading = model, actors, dict(loading)
        self.thinking = load(model, **self.loading).thinking

    def stream_many(self, tasks: Iterable[Task], *, batch: int = 8) -> Iterator[tuple[int, ThoughtEvent | Failed]]:
        """(index, event) of all tasks as actors finish them; of each picture only that it is there."""
        import ray.data

        rows = [{"index": index, "task": task} for index, task in enumerate(tasks)]
        if not rows:
            return
        size = batch * BLOCK
        data = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // size)).map_batches(
            _Actor,
            fn_constructor_args=(self.model, batch, self.loading),
            compute=ray.data.ActorPoolStrategy(size=self.actors),
            batch_size=size,
        )
        for row in data.iter_rows():
            yield from _events(row["index"], row["result"])


def _events(index: int, result: Trace | TwgiError) -> Iterator[tuple[int, ThoughtEvent | Failed]]:
    if isinstance(result, TwgiError):
        yield index, Failed(result)
        return
    pictures = (image.picture for image in result.images)
    drawn = (ImageFinished(number, picture) for number, picture in enumerate(pictures) if picture is not None)
    yield from ((index, event) for event in chain[ThoughtEvent](drawn, [Done(result)]))


class _Actor:
    """One copy of the model. A task that cannot be thought about comes back as its error, so that others go on."""

    def __init__(self, model: str, batch: int, loading: Mapping[str, Any]) -> None:
        self.thinker, self.batch = load(model, **loading), batch

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        indices, tasks = list(rows["index"]), list(rows["task"])
        done = list(self.thinker.think_many(tasks, batch=self.batch))
        return {"index": [indices[place] for place, _ in done], "result": [result for _, result in done]}
