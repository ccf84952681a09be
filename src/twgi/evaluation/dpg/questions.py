"""Question files: what is asked about each prompt's pictures, and which questions make sense only after which others.

DPG-Bench (Hu et al., 2024) and DSG-1k (Cho et al., 2023) share one schema, a row for each question; GenEval 2 (Kamath
et al., 2025) has a line for each prompt. The files are the user's own copies, as CSV, TSV, JSON lines or parquet, and
none is without faults: a dependency that is no number, a parent that stands later or nowhere. What can be read is
read, and each fault is noted.
"""

import hashlib
import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from twgi.errors import DataError, PromptError
from twgi.evaluation.frame import Item
from twgi.evaluation.pictures import words
from twgi.evaluation.tables import read_table

COLUMNS: Mapping[str, tuple[str, ...]] = {  # ours -> the names it has in the published files
    "item_id": ("item_id", "id"),
    "prompt": ("text", "prompt"),
    "proposition": ("proposition_id", "question_id"),
    "dependency": ("dependency", "dependency_id"),
    "tuple": ("tuple",),
    "question": ("question_natural_language", "question"),
}
REQUIRED = ("item_id", "proposition", "dependency", "question")
BROAD = ("global", "entity", "attribute", "relation", "other")
ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_NUMBER = re.compile(r"(\d+)(?:\.0+)?")


Row = Mapping[str, str]
"""One question as its file has it, under our names of the columns; `where` is ``file:line``"""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question; it counts only where its `parents` hold. The wanted answer is `expected`.

    The category is the detailed one (L2): the row's tuple up to its parenthesis, as "entity - whole".
    """

    id: int
    text: str
    parents: tuple[int, ...] = ()
    category: str = "other"
    expected: str = "yes"

    @property
    def broad(self) -> str:
        """The broad category (L1): the detailed one up to its dash."""
        return self.category.split("-")[0].strip()


@dataclass(frozen=True, kw_only=True)
class DpgItem(Item):
    """One prompt and its questions, each after its parents."""

    questions: tuple[Question, ...] = ()
    task: str = "dpg"


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """A question file: its prompts in order, its rows as they stand (none in GenEval 2), and what was wrong in them."""

    path: Path
    sha256: str
    items: Mapping[str, DpgItem]
    records: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def content(self) -> str:
        """A hash of what is asked, however it is named, numbered and ordered."""
        asked = []
        for item in self.items.values():
            texts = {question.id: question.text for question in item.questions}
            lines = [[q.text, q.expected, q.category, sorted(texts[p] for p in q.parents)] for q in item.questions]
            asked.append([words(item.prompt) or item.id, sorted(lines)])
        return hashlib.sha256(json.dumps(sorted(asked)).encode()).hexdigest()

    @property
    def soft(self) -> bool:
        """Whether answers other than yes are wanted, so that only probabilities give a score (GenEval 2)."""
        return not self.records


def read_questions(path: Path) -> QuestionSet:
    """Read a question file; its ending tells its format. Raises `PromptError` with file and line."""
    try:
        rows = list(read_table(path))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except DataError as error:
        raise PromptError(str(error)) from None
    if not rows:
        raise PromptError(f"{path}: no questions in this file")
    if "vqa_list" in rows[0][1]:
        items = {str(number): _geneval2(where, str(number), row) for number, (where, row) in enumerate(rows)}
        return QuestionSet(path=path, sha256=digest, items=items)
    records, notes = tuple(_record(where, row) for where, row in rows), list[str]()
    items = _items(records, notes)
    return QuestionSet(path=path, sha256=digest, items=items, records=records, notes=tuple(notes))


def _record(where: str, row: Mapping[str, Any]) -> Row:
    found = {ours: next((name for name in names if name in row), None) for ours, names in COLUMNS.items()}
    lacking = [COLUMNS[name][0] for name in REQUIRED if found[name] is None]
    if lacking:
        raise PromptError(f"{where}: no column {', '.join(lacking)}; there are {', '.join(map(str, row))}")
    texts = {ours: _text(row[name]) if name else "" for ours, name in found.items()}
    number = _NUMBER.fullmatch(texts["proposition"])
    if not number or not int(number[1]):
        raise PromptError(f"{where}: the question's number must be 1 or more, got {texts['proposition']!r}")
    if not texts["item_id"] or not texts["question"]:
        raise PromptError(f"{where}: a row needs an item_id and a question")
    return {**texts, "proposition": str(int(number[1])), "where": where}


def _text(value: Any) -> str:
    """A field as text; lists (as in parquet) are joined with commas, nothing and NaN are empty."""
    if value is None or value != value:
        return ""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).strip()


def _items(records: Sequence[Row], notes: list[str]) -> dict[str, DpgItem]:
    grouped: dict[str, dict[int, Row]] = {}
    for record in records:
        there = grouped.setdefault(record["item_id"], {})
        if there.setdefault(int(record["proposition"]), record) is not record:
            notes.append(f"{_name(record)} stands twice; the first is used")
    items = {}
    for name, rows in grouped.items():
        parents = {number: _parents(record, rows.keys(), notes) for number, record in rows.items()}
        questions = []
        for number, above in _ordered(name, parents, notes):
            category = rows[number]["tuple"].split("(")[0].strip() or "other"
            questions.append(Question(id=number, text=rows[number]["question"], parents=above, category=category))
        prompt = next((record["prompt"] for record in rows.values() if record["prompt"]), "")
        items[name] = DpgItem(id=name, prompt=prompt, questions=tuple(questions))
    return items


def _parents(record: Row, known: Container[int], notes: list[str]) -> list[int]:
    """The parents that are questions of this item; what else stands there is noted and has no effect."""
    parents = []
    for part in filter(None, re.split(r"[,;\s]+", record["dependency"].strip("[]() "))):
        number = _NUMBER.fullmatch(part)
        if not number:
            notes.append(f"{_name(record)}: the dependency {part!r} is not a number; left out")
        elif int(number[1]) and int(number[1]) not in known:
            notes.append(f"{_name(record)}: its parent {number[1]} is not in the file; left out")
        elif int(number[1]):
            parents.append(int(number[1]))
    return list(dict.fromkeys(parents))


def _ordered(item_id: str, graph: Mapping[int, list[int]], notes: list[str]) -> list[tuple[int, tuple[int, ...]]]:
    """(question, its parents), parents first. Of a ring of questions one dependency is taken out and noted."""
    while True:
        try:
            return [(number, tuple(graph[number])) for number in TopologicalSorter(graph).static_order()]
        except CycleError as error:
            parent, child = error.args[1][:2]
            graph[child].remove(parent)
            notes.append(f"{item_id}, question {child}: its parent {parent} waits for it in turn; left out")


def _name(record: Row) -> str:
    return f"{record['where']}, {record['item_id']}, question {record['proposition']}"


def _geneval2(where: str, item_id: str, row: Mapping[str, Any]) -> DpgItem:
    """One of GenEval 2's lines (`prompt`, `vqa_list`, `skills`); a prompt's id is its place in the file."""
    try:
        pairs = [(str(question), str(answer).strip().lower()) for question, answer in row["vqa_list"]]
        skills = [str(skill) for skill in row.get("skills") or ()] or ["other"] * len(pairs)
        if not pairs or len(skills) != len(pairs):
            raise ValueError(f"{len(pairs)} questions and {len(skills)} skills")
        prompt = str(row["prompt"])
    except (KeyError, TypeError, ValueError) as error:
        raise PromptError(f"{where}: not a line of GenEval 2: {type(error).__name__} {error}") from None
    asked = enumerate(zip(pairs, skills, strict=True), start=1)
    questions = (Question(id=n, text=text, category=skill, expected=wanted) for n, ((text, wanted), skill) in asked)
    return DpgItem(id=item_id, prompt=prompt, questions=tuple(questions))
