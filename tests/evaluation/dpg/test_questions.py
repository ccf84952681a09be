"""Question files as people have them: four formats, three schemas, and faults that are noted and do no harm."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from twgi.errors import PromptError
from twgi.evaluation.dpg.questions import Question, read_questions

FIXTURE = Path(__file__).parents[2] / "fixtures" / "dsg_like" / "questions.csv"
ROW = {"item_id": "a.b", "text": "a dog", "proposition_id": 1, "dependency": "0", "tuple": "entity - whole (dog)"}


def rows() -> list[dict[str, str]]:
    with FIXTURE.open(newline="") as file:
        return list(csv.DictReader(file))


def written(folder: Path, *records: dict[str, Any]) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps({"question_natural_language": "Is it?", **record}) + "\n" for record in records))
    return path


def parents(path: Path, item: str) -> dict[int, tuple[int, ...]]:
    return {question.id: question.parents for question in read_questions(path).items[item].questions}


def test_every_format_holds_the_same_questions(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    with (tmp_path / "q.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows()[0], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows())
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    pq.write_table(pa.Table.from_pylist(rows()), tmp_path / "q.parquet")
    for name in ("q.tsv", "q.jsonl", "q.parquet"):
        assert read_questions(tmp_path / name).items == read_questions(FIXTURE).items


def test_a_spreadsheet_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_bytes(b"\xef\xbb\xbf" + FIXTURE.read_bytes().replace(b"\n", b"\r\n"))
    assert read_questions(tmp_path / "q.csv").items == read_questions(FIXTURE).items


def test_every_row_is_a_question_the_first_too() -> None:
    questions = read_questions(FIXTURE)
    assert [len(item.questions) for item in questions.items.values()] == [4, 3, 3, 2]
    assert questions.items["tifa160_7"].prompt == "A brown dog jumps and catches a frisbee."
    assert questions.items["tifa160_7"].questions[0] == Question(
        id=1, text="Is there a dog?", category="entity - whole"
    )


def test_several_parents_are_several() -> None:
    assert parents(FIXTURE, "tifa160_7")[4] == (1, 2)


def test_parents_come_first_wherever_they_stand() -> None:
    order = [question.id for question in read_questions(FIXTURE).items["whoops_12"].questions]
    assert order.index(1) > max(order.index(2), order.index(3))


def test_a_missing_parent_and_a_dependency_of_words_are_noted_with_file_and_line() -> None:
    notes = read_questions(FIXTURE).notes
    assert len(notes) == 2
    assert "questions.csv:11, whoops_12, question 3: its parent 9 is not in the file" in notes[0]
    assert "questions.csv:13, vrd_5, question 2: the dependency 'entity' is not a number" in notes[1]


@pytest.mark.parametrize("dependency", ["1,2", "1, 2", [1, 2], "1;2", "1.0, 2.0", "[1, 2]", "1,2,2,0"])
def test_dependencies_are_read_in_any_dress(tmp_path: Path, dependency: object) -> None:
    path = written(tmp_path, ROW, ROW | {"proposition_id": 2}, ROW | {"proposition_id": 3, "dependency": dependency})
    assert parents(path, "a.b")[3] == (1, 2)


@pytest.mark.parametrize("dependency", [0, "0", "", None, "0.0", float("nan")])
def test_no_dependency_has_many_spellings(tmp_path: Path, dependency: object) -> None:
    assert parents(written(tmp_path, ROW | {"dependency": dependency}), "a.b")[1] == ()


def test_questions_that_wait_for_each_other_lose_one_dependency(tmp_path: Path) -> None:
    first, second = ROW | {"dependency": "2"}, ROW | {"proposition_id": 2, "dependency": "1"}
    own = ROW | {"proposition_id": 3, "dependency": "3"}
    path = written(tmp_path, first, second, own)
    found = parents(path, "a.b")
    assert sorted(len(each) for each in found.values()) == [0, 0, 1]
    assert len(read_questions(path).notes) == 2


def test_a_question_that_stands_twice_is_asked_once(tmp_path: Path) -> None:
    questions = read_questions(written(tmp_path, ROW, ROW))
    assert len(questions.items["a.b"].questions) == 1
    assert "stands twice" in questions.notes[0]


def test_categories_are_the_tuple_up_to_its_dash_and_its_parenthesis() -> None:
    question = read_questions(FIXTURE).items["tifa160_7"].questions[-1]
    assert (question.broad, question.category) == ("relation", "relation - non-spatial")


def test_geneval_2_has_its_own_schema(tmp_path: Path) -> None:
    line = {
        "prompt": "four white bicycles", "atom_count": 3, "skills": ["count", "attribute"],
        "vqa_list": [["How many bicycles are in the image?", "four"], ["Are the bicycles white?", "Yes"]],
    }  # fmt: skip
    (tmp_path / "data.jsonl").write_text(json.dumps(line) + "\n")
    questions = read_questions(tmp_path / "data.jsonl")
    assert questions.soft
    assert [(q.expected, q.category) for q in questions.items["0"].questions] == [
        ("four", "count"),
        ("yes", "attribute"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "q.csv",
            "item_id,text\n1,a dog\n",
            "q.csv:2: no column proposition_id, dependency, question_natural_language",
        ),
        ("q.csv", "", "no questions"),
        ("q.jsonl", "{\n", "q.jsonl:1: broken JSON"),
        ("q.jsonl", "[]\n", "q.jsonl:1: expected an object"),
        ("q.jsonl", json.dumps({**ROW, "question": "?", "proposition_id": "x"}), "number must be 1 or more, got 'x'"),
        ("q.jsonl", json.dumps({**ROW, "question": ""}), "needs an item_id and a question"),
        (
            "q.jsonl",
            json.dumps({"prompt": "x", "vqa_list": [["only a question"]]}),
            "q.jsonl:1: not a line of GenEval 2",
        ),
        ("q.parquet", "no parquet", "not a parquet file"),
        ("q.xlsx", "", "unknown kind"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_its_place(tmp_path: Path, name: str, content: str, problem: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(content)
    with pytest.raises(PromptError, match=problem):
        read_questions(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"nowhere\.csv"):
        read_questions(tmp_path / "nowhere.csv")
