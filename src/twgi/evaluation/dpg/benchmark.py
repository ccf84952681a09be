"""DPG-Bench, DSG-1k and GenEval 2 as one benchmark: a judge is asked questions about each picture.

Beside a run lie ``samples/ID/K.png``, the last picture of thought K about prompt ID, and with 4 samples
``grids/ID.png``, the four of them as a 2 x 2 grid: what the published program reads.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image

from twgi.answers import AnswerBook
from twgi.errors import ConfigError, DataError, PromptError, RunError
from twgi.evaluation.dpg.gating import Rule
from twgi.evaluation.dpg.official import PictureFile, official_scores
from twgi.evaluation.dpg.questions import ID, DpgItem, QuestionSet, read_questions
from twgi.evaluation.dpg.scores import AnsweredPicture, Share, score, soft_scores
from twgi.evaluation.dpg.table import table
from twgi.evaluation.evaluate import Evaluation, JudgedThought, costs
from twgi.evaluation.frame import Judged, Part, PictureToJudge, PromptSet, Verdict
from twgi.evaluation.judges.answer import Answer, Judge, Picture, Query, keep, kept
from twgi.evaluation.judges.named import self_test
from twgi.evaluation.judges.replay import ReplayJudge
from twgi.evaluation.pictures import GRID, PictureSet, read_named, read_pictures, recorded_pictures
from twgi.files import inside, read_objects, read_text, write_whole
from twgi.runs.parts import link, parts_in
from twgi.tokenizer.image import open_picture
from twgi.trace import RUN, png

SAMPLES, GRIDS = "samples", "grids"
RULES: tuple[Rule, ...] = ("cascade", "one-level", "none")


class Dpg:
    """The benchmark, judged by a judge who is asked the questions; without them its prompts can be drawn only.

    Args:
        gating: the rule of the main score; the others stand beside it.
        compat: `official` adds what the published program would have printed.
        self_test: a judge that needs one must first tell red from blue.

    Raises:
        ConfigError: an unknown rule or compat.
    """

    name = "dpg"

    def __init__(
        self,
        questions: QuestionSet | None = None,
        judge: Judge | None = None,
        *,
        gating: str = "cascade",
        compat: str | None = None,
        self_test: bool = True,
    ) -> None:
        rule = next((rule for rule in RULES if rule == gating), None)
        if rule is None:
            raise ConfigError(f"gating must be one of {', '.join(RULES)}, got {gating!r}")
        if compat not in (None, "official"):
            raise ConfigError(f"compat must be official, got {compat!r}")
        self._questions, self._judge = questions, judge
        self.rule, self.official, self.self_test = rule, compat == "official", self_test

    @property
    def questions(self) -> QuestionSet:
        assert self._questions is not None
        return self._questions

    @property
    def judging(self) -> Judge:
        assert self._judge is not None
        return self._judge

    def prompts(self, path: Path) -> PromptSet:
        """Prompts by id, from a folder of ID.txt, lines of `{"id", "prompt"}`, or a question file.

        Raises:
            PromptError: there are none, an id cannot be a file's name, or a prompt is empty.
        """
        texts = _texts(path)
        for name, text in texts.items():
            if not ID.fullmatch(name) or name.startswith("."):
                raise PromptError(
                    f"{path}: the id {name!r} cannot be a file's name; use letters, digits, '.', '_', '-'"
                )
            if not text.strip():
                raise PromptError(f"{path}: the prompt {name!r} is empty")
        if not texts:
            raise PromptError(f"{path}: no prompts to think about")
        return PromptSet(items=tuple(DpgItem(id=name, prompt=text) for name, text in texts.items()), whole=len(texts))

    @property
    def asked(self) -> PromptSet:
        """Every prompt of the question file."""
        return PromptSet(items=tuple(self.questions.items.values()), whole=len(self.questions.items))

    def pictures(self, root: Path | None, *, crops: int | None = None, samples: int | None = None) -> PictureSet:
        """The pictures of a folder: a run of ours, or files by name (see `read_named`).

        Without a folder the answers of a recording are scored alone.

        Raises:
            ConfigError: no folder, and the judge is no recording.
            RunError: nothing of a known prompt is there.
        """
        ids = self.questions.items
        if root is None:
            if not isinstance(self.judging, ReplayJudge):
                raise ConfigError("give a folder of pictures; only a recording (--judge replay:FILE) needs none")
            return recorded_pictures(self.judging.images, ids, samples=samples)
        if (root / RUN).is_file() or parts_in(root):
            return read_pictures(root, self.name, samples=samples).only(ids)
        return read_named(root, ids, crops=crops, samples=samples)

    def judge(self, pictures: Iterable[PictureToJudge], out: Path, part: Part) -> Iterable[Judged]:
        """Ask every question about the pictures that no book in `out` has an answer to.

        A judge that needs one has its self-test before its first question.

        Raises:
            CheckpointError: the judge fails its self-test.
            ConfigError: the judge refuses.
            RunError: the answers cannot be kept, or the judge is not there.
        """
        book = out / ("answers.jsonl" if part[1] == 1 else f"answers-{part[0]}-of-{part[1]}.jsonl")
        others = sorted(path for path in out.glob("answers*.jsonl") if path != book)
        said: dict[tuple[str, int, int], tuple[PictureToJudge, dict[int, Answer]]] = {}
        with AnswerBook(book, others=others) as answers:
            for query, answer in self.judging.answer(self._after_test(self._unanswered(pictures, answers, said))):
                said[query.item, query.sample, query.image][1][query.proposition] = answer
                keep(answers, query, self.judging, answer)
        return [(asked, AnsweredPicture.of(asked.item, heard).verdict(self.rule)) for asked, heard in said.values()]

    def _unanswered(
        self, pictures: Iterable[PictureToJudge], book: AnswerBook, said: dict[tuple[str, int, int], Any]
    ) -> Iterator[Query]:
        """The questions that the book cannot answer; the others are `said` at once."""
        for asked in pictures:
            picture = None if asked.image is None else Picture(image=asked.image)
            heard: dict[int, Answer] = {}
            said[asked.item.id, asked.sample, asked.number] = replace(asked, image=None), heard
            for query in _queries(asked, picture):
                answer = kept(book, query, self.judging)
                if answer is None:
                    yield query
                else:
                    heard[query.proposition] = answer

    def _after_test(self, queries: Iterator[Query]) -> Iterator[Query]:
        for number, query in enumerate(queries):
            if number == 0 and self.judging.needs_test and self.self_test:
                self_test(self.judging)
            yield query

    def wrong(self, item: DpgItem, problem: str) -> Verdict:
        return AnsweredPicture(item=item, problem=problem).verdict(self.rule)

    def describe(self) -> dict[str, Any]:
        tested = "asked for" if self.self_test else "skipped"
        return {
            "judge": {"name": self.judging.name, "version": self.judging.version},
            "questions": {"name": self.questions.path.name, "sha256": self.questions.sha256},
            "self_test": tested if self.judging.needs_test else "not needed",
            "gating": self.rule,
        }

    def scores(self, evaluation: Evaluation) -> dict[str, Any]:
        """By the gating rule and by the others, in categories, by probabilities, and as published."""
        thoughts, which, rule = evaluation.thoughts, evaluation.which, self.rule
        judged = [thought.verdict.source for thought in thoughts]
        firsts = [thought.verdicts.get(0, thought.verdict).source for thought in thoughts]
        drawn = (thought.generation for thought in thoughts)
        costly = [one for one in drawn if any(ref.image_tokens for ref in one.pictures)]
        most = max((len(generation.pictures) for generation in costly), default=0)
        upto = {"each": range(1, most + 1), "first": [1], "final": [most]}[which]
        return {
            "schema": "geneval2" if self.questions.soft else "dpg",
            **score(judged, rule).to_json(),
            "by_gating": {rule: score(judged, rule).overall for rule in RULES},
            "answers": Share.of(truth for picture in judged for truth in picture.truths().values()).to_json(),
            "soft": asdict(soft_scores(judged)),
            "official": self._official(thoughts, evaluation.pictures.unknown) if self.official else None,
            "first_picture": {"overall": score(firsts, rule).overall} if which == "each" else None,
            "by_picture": costs(costly, upto),
            "wrong": [f"{thought.label}: {thought.status}" for thought in thoughts if thought.status != "scored"],
            "nothing_known": [thought.label for thought in thoughts if thought.verdict.score is None],
            "question_faults": list(self.questions.notes),
            "made": dict(evaluation.pictures.made),
        }

    def _official(self, thoughts: Sequence[JudgedThought], unknown: Iterable[str]) -> dict[str, Any]:
        """What the published program would print."""
        if self.questions.soft:
            return {"problem": "the published program knows DPG-Bench's questions alone"}
        files = [*_files(thoughts), *(PictureFile(name=name, crops=()) for name in unknown)]
        try:
            return asdict(official_scores(self.questions.records, files))
        except PromptError as error:
            return {"problem": str(error)}

    def lay_out(self, asked: PromptSet, pictures: PictureSet) -> Path:
        """The last pictures as files, and as grids of those prompts that have all four; returns the folder of files."""
        for item in asked.items:
            there = [pictures.generations.get((item.id, sample)) for sample in range(pictures.samples)]
            finals = [one.pictures[-1].file if one is not None and one.pictures else None for one in there]
            for sample, file in enumerate(finals):
                if file is not None:
                    link(file, pictures.root, f"{SAMPLES}/{item.id}/{sample}.png")
            if pictures.samples == GRID and all(finals):
                whole = grid([open_picture(file) for file in finals if file])
                write_whole(inside(pictures.root, f"{GRIDS}/{item.id}.png", RunError), png(whole))
        return pictures.root / SAMPLES

    def table(self, scores: Mapping[str, Any]) -> str:
        """`scores.json` as lines for people."""
        return table(scores)


def _queries(asked: PictureToJudge, picture: Picture | None) -> Iterator[Query]:
    for question in asked.item.questions:
        yield Query(
            picture=picture, question=question.text, expected=question.expected, item=asked.item.id,
            sample=asked.sample, image=asked.number, proposition=question.id,
        )  # fmt: skip


def _files(thoughts: Iterable[JudgedThought]) -> Iterator[PictureFile]:
    """One file for each prompt, as the published program wants it: single samples count as the parts of a grid."""
    crops: dict[str, list[dict[int, str]] | None] = {}
    for thought in thoughts:
        grids = [ref.file.name for ref in thought.generation.pictures if ref.file and ref.crop is not None]
        name = grids[0] if grids else f"{thought.item.id}.png"
        there = crops.setdefault(name, [])
        if thought.status == "unreadable" and grids:
            crops[name] = None
        elif thought.status == "scored" and there is not None:
            there.append({number: answer.text for number, answer in thought.verdict.source.said.items()})
    return (PictureFile(name=name, crops=said) for name, said in crops.items())


def _texts(path: Path) -> dict[str, str]:
    """Prompt by id."""
    try:
        if path.is_dir():
            return {file.stem: read_text(file).strip() for file in sorted(path.glob("*.txt"))}
        rows = list(read_objects(path)) if path.suffix.lower() == ".jsonl" else []
    except DataError as error:
        raise PromptError(f"cannot read the prompts: {error}") from None
    first = rows[0].value.keys() if rows else set()
    if not {"id", "prompt"} <= first or {"vqa_list", "proposition_id"} & first:
        return {item.id: item.prompt for item in read_questions(path).items.values()}
    texts: dict[str, str] = {}
    for row in rows:
        name, text = row.value.get("id"), row.value.get("prompt")
        if name is None or not isinstance(text, str):
            raise PromptError(f'{row.where}: expected {{"id": ..., "prompt": "..."}}')
        if str(name) in texts:
            raise PromptError(f"{row.where}: the id {name!r} stands twice")
        texts[str(name)] = text.strip()
    return texts


def grid(pictures: Sequence[Image.Image]) -> Image.Image:
    """Four pictures of one size as one: top left, top right, bottom left, bottom right."""
    width, height = pictures[0].size
    whole = Image.new("RGB", (2 * width, 2 * height))
    for number, picture in enumerate(pictures):
        whole.paste(picture, (number % 2 * width, number // 2 * height))
    return whole
