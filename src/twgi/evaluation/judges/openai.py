"""The judge behind an OpenAI-compatible endpoint (`/v1/chat/completions`): a picture and a question there, a word back.

When it is asked again, and what stops the run, is said in `twgi.client`; the key appears in no row, no message and no
cache.
"""

import base64
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from twgi.client import CHAT, Call, Endpoint, EndpointOptions, NoAnswer
from twgi.errors import RunError
from twgi.evaluation.judges.answer import Answer, Query, bare, instruction, plain, spellings, understood
from twgi.replies import words
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

    needs_test = True

    def __init__(self, options: JudgeOptions, *, sleep: Callable[[float], object] | None = None, seed: int = 0) -> None:
        self.options, self._endpoint = options, Endpoint(options, sleep=sleep, seed=seed)
        self.name = f"openai:{self._endpoint.name}"
        self.version = "2"  # of our words to it; what runs behind an address, nobody can tell
        if options.parameters:
            self.version += f" {json.dumps(options.parameters, sort_keys=True)}"

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
        except BaseException:
            self._endpoint.stop()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, query: Query) -> Answer:
        assert query.picture is not None
        data = base64.b64encode(png(query.picture.image)).decode()
        parts = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
            {"type": "text", "text": f"{query.question}\n{instruction(query.expected)}"},
        ]
        wanted: dict[str, Any] = {"temperature": 0}
        if self.options.logprobs:
            wanted |= {"logprobs": True, "top_logprobs": 20}
        ours: dict[str, Any] = {"model": self.options.model, "messages": [{"role": "user", "content": parts}]}
        if "max_completion_tokens" not in self.options.parameters:
            ours["max_tokens"] = 8
        optional = tuple(name for name in wanted if name not in self.options.parameters)
        call = Call(path=CHAT, fields=ours | wanted | self.options.parameters, optional=optional)

        def read(reply: Any) -> Answer:
            raw = words(reply)
            p_yes = _probability(reply["choices"][0].get("logprobs"), raw, query.expected)
            return understood(raw, expected=query.expected, p_yes=p_yes)

        try:
            return self._endpoint.post(call, read).value
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


_SIGNS = (("\u0120", " "), ("\u2581", " "), ("\u010a", "\n"), ("\u0109", "\t"), ("<0x0A>", "\n"), ("</w>", ""))
"""Marks in names of tokens (byte-level BPE, SentencePiece) and the signs they stand for."""
_THOUGHT_END = ("</think>", "</thinking>", "[/THINK]")
DOUBT = 0.05  # of what is not told; below it the wanted answer's probability may be called 0


def _probability(told: Any, raw: str, expected: str) -> float | None:
    """Of the wanted answer where the answer begins; None where nobody can tell.

    That is where the server names no tokens, or in a way that does not fit the answer's words, and where neither the
    wanted answer is among the likeliest nor so much else that it has no chance.
    """
    try:
        wanted = {bare(spelling) for spelling in spellings(expected)}
        path = _from_answer([(_name(entry), entry) for entry in told["content"]], raw)
        if path is None:
            return None
        top = [(bare(_name(entry)), _chance(entry)) for entry in path[0][1].get("top_logprobs") or [path[0][1]]]
        if found := [chance for name, chance in top if name in wanted]:
            return min(1.0, sum(found))
        said, chances = "", 1.0
        for name, entry in path:  # a wanted word of several tokens, if that was said
            said, chances = said + name, chances * _chance(entry)
            if bare(said) in wanted:
                return chances
        unseen = min(max(0.0, 1 - sum(chance for _, chance in top)), min(chance for _, chance in top))
        begun = sum(chance for name, chance in top if any(word.startswith(name) for word in wanted))
        return 0.0 if unseen + begun < DOUBT else None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _from_answer(named: list[tuple[str, Any]], raw: str) -> list[tuple[str, Any]] | None:
    """The tokens from that on with which the answer begins, after thoughts, blanks and words like "Answer:"."""
    ends = [number for number, (name, _) in enumerate(named, 1) if name.strip() in _THOUGHT_END]
    rest, before, said = named[ends[-1] if ends else 0 :], "", plain(raw)
    for number, (name, _) in enumerate(rest):
        if bare(name) and said.startswith(bare(name)):
            return rest[number:]
        before += name
        if plain(before):
            return None
    return None


def _name(entry: Mapping[str, Any]) -> str:
    """A token's text; empty where only its number is told."""
    if entry.get("bytes"):
        return bytes(entry["bytes"]).decode(errors="replace")
    name = str(entry["token"])
    for mark, sign in _SIGNS:
        name = name.replace(mark, sign)
    return "" if name.startswith("token_id:") else name


def _chance(entry: Mapping[str, Any]) -> float:
    """Raises `ValueError` where the logarithm is none of a probability."""
    if isinstance(entry["logprob"], bool) or entry["logprob"] > 0.001:
        raise ValueError("no probability")
    return math.exp(entry["logprob"])
