"""Thoughts by Ray actors, on one or many machines: a thinker that has others do the work.

Each actor holds the whole model and thinks about several tasks at once, which it is handed one by one: as soon as one
is done the next goes to the same actor. A thought depends on nothing but its task, so the records are those of one
process; the run folder is written by the process that asked, which is therefore resumed in the same way. What an actor
was thinking about when it died is thought about by another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from twgi import load
from twgi.checkpoint.load import identify
from twgi.errors import ConfigError, RunError, TwgiError
from twgi.thinking.events import Done, ImageFinished, Task, ThoughtEvent, ThoughtFailed
from twgi.thinking.request import Described
from twgi.trace import Trace

MOST_DEATHS = 3  # of actors in a row, without a thought in between


class RayThinker(Described):
    """A thinker whose thoughts are made by `actors` Ray actors, each with `model` (a preset, or a path all can read).

    `loading` is what `twgi.load` is told beside the model's name. Raises `ConfigError`: Ray is not installed.
    """

    def __init__(self, model: str, *, actors: int, loading: Mapping[str, Any]) -> None:
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise ConfigError(f"--ray needs the extra ray: pip install 'twgi[ray]' ({error})") from None
        self.model, self.actors, self.loading = model, actors, dict(loading)
        self.handles: list[Any] = []  # the actors at work
        self.source = identify(model, vq=self.loading.get("vq"))

    def stream_many(self, tasks: Iterable[Task], *, batch: int = 8) -> Iterator[tuple[int, ThoughtEvent]]:
        """(index, event) of all tasks as actors finish them; of each picture only that it is there.

        Raises `RunError`: actor after actor dies.
        """
        import ray

        ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
        numbered, again, deaths = enumerate(tasks), list[tuple[int, Task]](), 0
        self.handles = actors = [self._actor(batch) for _ in range(self.actors)]
        asked: dict[Any, tuple[int, int, Task]] = {}  # answer to come -> place of the actor, index of the task, task
        free = list(range(self.actors)) * batch  # places of actors that have room for a task
        while True:
            while free and (entry := again.pop() if again else next(numbered, None)):
                place = free.pop(0)
                asked[actors[place].think.remote(entry[1])] = place, *entry
            if not asked:
                break
            (ready,), _ = ray.wait(list(asked))
            place, index, task = asked.pop(ready)
            try:
                yield from _events(index, ray.get(ready))
                free, deaths = [*free, place], 0
            except ray.exceptions.RayActorError as error:
                again.append((index, task))
                if deaths == MOST_DEATHS:
                    raise RunError(f"{deaths} actors died one after the other: {error}") from None
                free = [other for other in free if other != place]
                if not any(other == place for other, _, _ in asked.values()):
                    actors[place], deaths = self._actor(batch), deaths + 1
                    free += [place] * batch
        for actor in actors:
            ray.kill(actor)

    def _actor(self, batch: int) -> Any:
        import ray

        remote = ray.remote(Actor).options(max_concurrency=batch, max_restarts=0)
        return remote.remote(self.model, batch, self.loading)


def _events(index: int, result: Trace | TwgiError) -> Iterator[tuple[int, ThoughtEvent]]:
    if isinstance(result, TwgiError):
        yield index, ThoughtFailed(result)
        return
    for number, image in enumerate(result.images):
        if image.picture is not None:
            yield index, ImageFinished(number, image.picture)
    yield index, Done(result)


class Actor:
    """One copy of the model. A task that cannot be thought about comes back as its error, so that others go on."""

    def __init__(self, model: str, batch: int, loading: Mapping[str, Any]) -> None:
        self.thinker = load(model, **loading)
        self.thinker.session(batch)

    def think(self, task: Task) -> Trace | TwgiError:
        """Several of these run at once, each on a thread of its own, and share the steps of one engine."""
        ((_, result),) = self.thinker.think_many([task], batch=1)
        return result
