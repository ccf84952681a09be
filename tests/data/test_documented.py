"""docs/data.md: every example in it is a record or a row, and all keys are shown."""

import json
from pathlib import Path

import pytest

from twgi.data.records import KNOWN, TrainingRecord, parse_record
from twgi.data.rows import TrainingRow

LINES = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "docs" / "data.md").read_text().splitlines()
    if line.startswith("{")
]
ROWS = [line for line in LINES if "version" in line]
RECORDS = [line for line in LINES if "version" not in line]


@pytest.mark.parametrize("line", RECORDS)
def test_every_example_is_a_record(line: dict[str, object]) -> None:
    assert isinstance(parse_record(line, where="data.md", folder=Path()), TrainingRecord)


def test_the_examples_use_every_key() -> None:
    assert {key for line in RECORDS for key in line} == set(KNOWN)


def test_the_row_is_one_with_its_loss() -> None:
    (line,) = ROWS
    assert TrainingRow.from_json(line).to_json() == line
    assert TrainingRow.from_json(line).mask.tolist() == [False, False, False, True, True]
