"""The judge behind an OpenAI-compatible endpoint (`/v1/chat/completions`): a picture and a question there, a word back.

What can pass is tried again: 429, 5xx, a broken connection, an answer that is no JSON. What cannot is not: a 400
leaves its question without an answer, a refused key or an unknown model stops the run. Redirects are never followed,
since they would carry the key elsewhere. The key comes from an environment variable and appears in no row, no message
and no cache.
"""

import base64
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from twgi.client import CHAT, Call, Endpoint, EndpointOptions, NoAnswer
from twgi.errors import RunError
from twgi.evaluation.judges.answer import Answer, Query, instruction, spellings, understood
from twgi.trace import png

KEY = "TWGI_JUDGE_KEY"
STOP_AFTER = 50  # questions in a row without an answer: the endpoint is down, and --resume can go on later


@dataclass(frozen=True, kw_only=True)
class JudgeOptions(EndpointOptions):
    """How to ask it. `logprobs`: for probabilities as well (Soft-TIFA needs them; not every server has them)."""

    key_variable: str = KEY
    logprobs: bool = False


class OpenAIJudge:
    """A vision-language model behind an endpoint; `sleep` and `seed` are for tests."""

    version = "1"  # of our words to it; what runs behind an address, nobody can tell
    needs_test = True

    def __init__(self, options: JudgeOptions, *, sleep: Callable[[float], None] = time.sleep, seed: int = 0) -> None:
        self.options, self._endpoint = options, Endpoint(options, sleep=sleep, seed=seed)
        self.name = f"openai:{self._endpoint.name}"

    def answer(self, queries: Iterable[Query]) -> Iterator[tuple[Query, Answer]]:
        """Up to `concurrency` questions at a time. Raises `ConfigError`: it refuses, `RunError`: it only fails."""
        lost = 0
        pool = ThreadPoolExecutor(self.options.concurrency)
        try:
            for query, answer in _in_flight(pool, self._ask, queries, self.options.concurrency):
                lost = 0 if answer.problem is None else lost + 1
                yield query, answer
                if lost >= STOP_AFTER:
                    raise RunError(f"{self.name}: {lost} questions in a row without an answer ({answer.problem})")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, query: Query) -> Answer:
        assert query.picture is not None
        data = base64.b64encode(png(query.picture.image)).decode()
        parts = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
            {"type": "text", "text": f"{query.question}\n{instruction(query.expected)}"},
        ]
        asked = {"logprobs": True, "top_logprobs": 20} if self.options.logprobs else {}
        messages = [{"role": "user", "content": parts}]
        fields = {"model": self.options.model, "messages": messages, "temperature": 0, "max_tokens": 8, **asked}

        def read(reply: Any) -> Answer:
            choice = reply["choices"][0]
            if not isinstance(raw := choice["message"]["content"], str):
                raise TypeError
            return understood(raw, expected=query.expected, p_yes=_probability(choice, query.expected))

        try:
            return self._endpoint.post(Call(path=CHAT, fields=fields), read).value
        except NoAnswer as error:
            return Answer(problem=str(error))


def _in_flight(
    pool: ThreadPoolExecutor, ask: Callable[[Query], Answer], queries: Iterable[Query], limit: int
) -> Iterator[tuple[Query, Answer]]:
    """Never more than `limit` questions (and their pictures) on their way."""
    waiting: dict[Future[Answer], Query] = {}
    coming = iter(queries)
    while True:
        for query in coming:
            waiting[pool.submit(ask, query)] = query
            if len(waiting) >= limit:
                break
        if not waiting:
            return
        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield waiting.pop(future), future.result()


def _probability(choice: Mapping[str, Any], expected: str) -> float | None:
    """Of the wanted answer as the first token, where the server tells."""
    try:
        top = choice["logprobs"]["content"][0]["top_logprobs"]
        wanted = set(spellings(expected))
        return min(1.0, sum(math.exp(entry["logprob"]) for entry in top if entry["token"] in wanted))
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        return None
