"""A book of answers: each is asked for once, whatever happens to the process."""

import json
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from twgi.answers import AnswerBook
from twgi.errors import DataError, RunError


def entry(number: int) -> dict[str, Any]:
    return {"key": f"k{number}", "text": "é" * number}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "answers.jsonl"


def test_what_was_added_is_found_again_also_by_the_next_process(path: Path) -> None:
    with AnswerBook(path) as book:
        assert (book.get("k1"), list(book.entries())) == (None, [])
        for number in range(3):
            book.add(entry(number))
        assert [book.get(f"k{number}") for number in range(3)] == [entry(number) for number in range(3)]
    with AnswerBook(path) as book:
        assert [book.get(f"k{number}") for number in range(3)] == list(book.entries())
        book.add({**entry(1), "text": "later"})
        assert (book.get("k1") or {})["text"] == "later"


def test_what_had_no_answer_is_noted_and_asked_again(path: Path) -> None:
    with AnswerBook(path) as book:
        book.add({"key": "k", "problem": "HTTP 400"})
        assert book.get("k") is None
        assert list(book.entries()) == [{"key": "k", "problem": "HTTP 400"}]
    with AnswerBook(path) as book:
        assert book.get("k") is None


@pytest.mark.parametrize("torn", [b'{"key": "k9", "te', b"\xff", b"[" * 100_000])
def test_a_torn_last_line_is_cut_off_and_lines_of_others_are_passed_over(path: Path, torn: bytes) -> None:
    path.parent.mkdir()
    whole = b'{"key": "k1", "text": "a"}\nno JSON\n["a list"]\n{"other": 1}\n{"key": 7}\n'
    path.write_bytes(whole + torn)
    with AnswerBook(path) as book:
        assert path.read_bytes() == whole
        book.add(entry(2))
        assert [(book.get(key) or {}).get("text") for key in ("k1", "k2", "k9")] == ["a", "éé", None]


def test_answers_of_other_books_count_and_those_are_only_read(tmp_path: Path, path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_bytes(b'{"key": "k1", "text": "other"}\n{"key": "k2", "text": "other"}\n{"key": "to')
    before = other.read_bytes()
    with AnswerBook(path, others=[other]) as book:
        book.add({"key": "k1", "text": "own"})
    with AnswerBook(path, others=[other]) as book:
        assert [(book.get(key) or {})["text"] for key in ("k1", "k2")] == ["own", "other"]
        assert [line["text"] for line in book.entries()] == ["own"]
    assert other.read_bytes() == before
    with pytest.raises(DataError, match=r"absent\.jsonl"):
        AnswerBook(path, others=[tmp_path / "absent.jsonl"])


def test_keys_may_be_made_from_what_a_line_says(path: Path) -> None:
    def key_of(line: Mapping[str, Any]) -> str | None:
        return f"{line['picture']}/{line['by']}" if "picture" in line else None

    with AnswerBook(path, key_of=key_of) as book:
        book.add({"picture": "p", "by": "eyes", "seen": 3})
        assert (book.get("p/eyes") or {})["seen"] == 3


def test_one_process_at_a_time_has_a_book(path: Path) -> None:
    with AnswerBook(path) as book:
        open_it = f"from pathlib import Path; from twgi.answers import AnswerBook; AnswerBook(Path({str(path)!r}))"
        done = subprocess.run([sys.executable, "-c", open_it], capture_output=True, text=True, check=False)
        assert "is in use by process" in done.stderr
        with pytest.raises(RunError, match="in use"):
            AnswerBook(path)
        AnswerBook(path.with_name("another.jsonl")).close()
        book.add(entry(1))
    AnswerBook(path).close()


def test_threads_may_share_a_book(path: Path) -> None:
    with AnswerBook(path) as book, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: book.add(entry(number)), range(64)))
        assert list(pool.map(lambda number: book.get(f"k{number}"), range(64))) == [entry(n) for n in range(64)]
    assert sorted(json.loads(line)["key"] for line in path.read_text().splitlines()) == sorted(
        f"k{number}" for number in range(64)
    )
