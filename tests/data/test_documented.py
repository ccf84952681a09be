"""docs/data.md: every example in it is a record, and says what the page says it does."""

import json
from pathlib import Path

import pytest

from twgi.data.records import KNOWN, Record, parse_record

EXAMPLES = [
    line
    for line in (Path(__file__).parents[2] / "docs" / "data.md").read_text().splitlines()
    if line.startswith("{") and '"version"' not in line
]


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_is_a_record(line: str) -> None:
    record = parse_record(json.loads(line), where="data.md", folder=Path())
    assert isinstance(record, Record)


def test_the_examples_use_every_key() -> None:
    used = {key for line in EXAMPLES for key in json.loads(line)}
    assert used == set(KNOWN)
