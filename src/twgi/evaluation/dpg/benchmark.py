"""DPG-Bench, DSG-1k and GenEval 2 as one benchmark: a judge is asked questions about each picture.

Beside a run lie ``samples/ID/K.png``, the last picture of thought K about prompt ID, and with 4 samples
``grids/ID.png``, the four of them as a 2 x 2 grid: what the published program reads.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from PIL import Image

from twgi.answers import AnswerBook
from twgi.errors import ConfigError, DataError, PromptError, RunError
from twgi.evaluation.dpg.official import PictureFile, official_scores
from twgi.evaluation.dpg.questions import ID, DpgItem, QuestionSet, read_questions
from twgi.evaluation.dpg.scores import AnsweredPicture, Rule, Share, score, soft_scores
from twgi.evaluation.evaluate import Evaluation, JudgedThought, costs
from twgi.evaluation.frame import Judged, Part, PictureToJudge, PromptSet, Verdict
from twgi.evaluation.judges.answer import Answer, Judge, Picture, Query, keep, kept
from twgi.evaluation.judges.named import self_test
from twgi.evaluation.judges.replay import ReplayJudge
from twgi.evaluation.pictures import GRID, PROMPTS, PictureSet, read_named, read_pictures, recorded_pictures
from twgi.files import inside, read_objects, read_text, short, to_line, write_whole
from twgi.runs.parts import link, parts_in
from twgi.tokenizer.image import open_picture
from twgi.trace import RUN, png

SAMPLES, GRIDS = "samples", "grids"
RULES: tuple[Rule, ...] = get_args(Rule)
MOST_UNKNOWN = 0.05  # of the answers; without more than these there is no score to compare


class Dpg:
    """The benchmark, judged by a judge who is asked the questions; without them its prompts can be drawn only.

    `gating` is the rule of the main score, beside which the others stand; compat `official` adds what the published
    program would have printed; with `self_test` a judge that needs one must first tell red from blue. Raises
    `ConfigError` for an unknown rule or compat.
    """

    name = "dpg"

    def __init__(
        self, questions: QuestionSet | None = None, judge: Judge | None = None, *, gating: str = "cascade",
        compat: str | None = None, self_test: bool = True,
    ) -> None:  # fmt: skip
        if gating not in RULES:
            raise ConfigError(f"gating must be one of {', '.join(RULES)}, got {gating!r}")
        if compat not in (None, "official"):
            raise ConfigError(f"compat must be official, got {compat!r}")
        self.questions = questions or QuestionSet(path=Path(), sha256="", items={})
        self._judge = judge
        self.rule, self.official, self.self_test = gating, compat == "official", self_test

    @property
    def judging(self) -> Judge:
        assert self._judge is not None
        return self._judge

    def prompts(self, path: Path) -> PromptSet:
        """Prompts by id: a folder of ID.txt, lines of `{"id", "prompt"}`, or a question file. Raises `PromptError`."""
        texts = _texts(path)
        for name, text in texts.items():
            if not ID.fullmatch(name) or name.startswith("."):
                use = "use letters, digits, '.', '_', '-'"
                raise PromptError(f"{path}: the id {name!r} cannot be a file's name; {use}")
            if not text.strip():
                raise PromptError(f"{path}: the prompt {name!r} is empty")
        if not texts:
            raise PromptError(f"{path}: no prompts to think about")
        items = (DpgItem(id=id, prompt=text, record={"id": id, "prompt": text}) for id, text in texts.items())
        return PromptSet(items=tuple(items), whole=len(texts))

    @property
    def asked(self) -> PromptSet:
        return PromptSet(items=tuple(self.questions.items.values()), whole=len(self.questions.items))

    def pictures(self, root: Path | None, *, crops: int | None = None, samples: int | None = None) -> PictureSet:
        """The pictures of a run of ours, or files by name; without a folder those that a recorded judge speaks of."""
        asked = {item.id: item.prompt for item in self.questions.items.values()}
        if isinstance(self.judging, ReplayJudge):
            self.judging.about(asked)
        if root is None:
            if not isinstance(self.judging, ReplayJudge):
                raise ConfigError("give a folder of pictures; only a recording (--judge replay:FILE) needs none")
            spoken = recorded_pictures(self.judging.images, self.judging.prompts).about(asked)
            return replace(spoken, samples=samples or 1 + max(sample for _, sample in spoken.generations))
        if (root / RUN).is_file() or parts_in(root):
            return read_pictures(root, self.name, samples=samples).about(asked)
        return read_named(root, asked, crops=crops, samples=samples).about(asked)

    def judge(self, pictures: Iterable[PictureToJudge], out: Path, part: Part) -> Iterable[Judged]:
        """Ask what no book in `out` answers; a judge that needs one has its self-test before its first question."""
        book = out / ("answers.jsonl" if part[1] == 1 else f"answers-{part[0]}-of-{part[1]}.jsonl")
        others = sorted(path for path in out.glob("answers*.jsonl") if path != book)
        said: dict[tuple[str, int, int], tuple[PictureToJudge, dict[int, Answer]]] = {}
        with AnswerBook(book, others=others) as answers:
            for query, answer in self.judging.answer(self._unanswered(pictures, answers, said)):
                said[query.item, query.sample, query.image][1][query.proposition] = answer
                keep(answers, query, self.judging, answer)
        return [(one, AnsweredPicture(item=one.item, said=heard).verdict(self.rule)) for one, heard in said.values()]

    def _unanswered(
        self, pictures: Iterable[PictureToJudge], book: AnswerBook, said: dict[tuple[str, int, int], Any]
    ) -> Iterator[Query]:
        """The questions that the book cannot answer; the others are `said` at once."""
        tested = not (self.judging.needs_test and self.self_test)
        for asked in pictures:
            picture = None if asked.image is None else Picture(image=asked.image)
            heard: dict[int, Answer] = {}
            said[asked.item.id, asked.sample, asked.number] = replace(asked, image=None), heard
            for question in asked.item.questions:
                query = Query(
                    picture=picture, question=question.text, expected=question.expected, item=asked.item.id,
                    sample=asked.sample, image=asked.number, proposition=question.id, prompt=asked.item.prompt,
                )  # fmt: skip
                if answer := kept(book, query, self.judging):
                    heard[question.id] = answer
                    continue
                if not tested:
                    self_test(self.judging)
                tested = True
                yield query

    def wrong(self, item: DpgItem, problem: str) -> Verdict:
        return AnsweredPicture(item=item, problem=problem).verdict(self.rule)

    def describe(self) -> dict[str, Any]:
        tested = "asked for" if self.self_test else "skipped"
        return {
            "judge": {"name": self.judging.name, "version": self.judging.version},
            "questions": {
                "name": self.questions.path.name, "sha256": self.questions.sha256, "content": self.questions.content,
            },
            "self_test": tested if self.judging.needs_test else "not needed",
            "gating": self.rule,
            "answers_by": "number" if isinstance(self.judging, ReplayJudge) and self.judging.numbered else "words",
        }  # fmt: skip

    def scores(self, evaluation: Evaluation) -> dict[str, Any]:
        """By the gating rule and by the others, in categories, by probabilities, and as published."""
        thoughts, which, rule = evaluation.thoughts, evaluation.which, self.rule
        judged = [_answered(thought, thought.verdict) for thought in thoughts]
        firsts = [_answered(thought, thought.verdicts.get(0, thought.verdict)) for thought in thoughts]
        drawn = (thought.generation for thought in thoughts)
        costly = [one for one in drawn if any(ref.image_tokens for ref in one.pictures)]
        most = max((len(generation.pictures) for generation in costly), default=0)
        upto = {"each": range(1, most + 1), "first": [1], "final": [most]}[which]
        return {
            "schema": "geneval2" if self.questions.soft else "dpg",
            **score(judged, rule),
            "by_gating": {rule: score(judged, rule)["overall"] for rule in RULES},
            "answers": Share.of(truth for picture in judged for truth in picture.truths().values()).to_json(),
            "soft": soft_scores(judged),
            "official": self._official(thoughts, evaluation.pictures.unknown) if self.official else None,
            "first_picture": {"overall": score(firsts, rule)["overall"]} if which == "each" else None,
            "by_picture": costs(costly, upto),
            "unknown": self._unknown(judged),
            "unknown_answers": _unknown_answers(judged),
            "wrong": [f"{thought.label}: {thought.status}" for thought in thoughts if thought.wrong],
            "nothing_known": [thought.label for thought in thoughts if thought.verdict.score is None],
            "question_faults": list(self.questions.notes),
            "made": dict(evaluation.pictures.made),
        }

    def _unknown(self, judged: Sequence[AnsweredPicture]) -> str | None:
        """How many answers nobody knows, as "3/24", where these are more than a score may leave out."""
        known = [
            truth is not None or (self.questions.soft and picture.chance(number) is not None)
            for picture in judged
            for number, truth in picture.truths().items()
        ]
        unknown = known.count(False)
        return f"{unknown}/{len(known)}" if unknown > MOST_UNKNOWN * len(known) else None

    def _official(self, thoughts: Sequence[JudgedThought], unknown: Iterable[str]) -> dict[str, Any]:
        """What the published program would print."""
        if self.questions.soft:
            return {"problem": "the published program knows DPG-Bench's questions alone"}
        files = [*_files(thoughts), *(PictureFile(name=name, crops=()) for name in unknown)]
        try:
            return official_scores(self.questions.records, files)
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
        lines = b"".join(to_line({"id": item.id, "prompt": item.prompt}) for item in asked.items)
        for folder in (SAMPLES, GRIDS):
            if (pictures.root / folder).is_dir():
                write_whole(inside(pictures.root, f"{folder}/{PROMPTS}", RunError), lines)
        return pictures.root / SAMPLES

    def table(self, scores: Mapping[str, Any]) -> str:
        """Categories and overall, as we count and, where asked for, as published; then all that the score must not be
        read without."""
        judge, official = scores["judged"]["judge"], scores["official"] or {}
        theirs = {**official.get("l1", {}), "overall": official.get("overall")}
        ours = {**{name: share["score"] for name, share in scores["l1"].items()}, "overall": scores["overall"]}
        by = f"judge {judge['name']} {judge['version']}"
        lines = [
            f"DPG: {scores['thoughts']} pictures of {scores['prompts']} prompts, {by}",
            f"{'':12} {'corrected':>10}" + (f" {'official':>10}" if official else ""),
        ]
        for name, value in ours.items():
            lines.append(f"{name:12} {_number(value):>10}" + (f" {_number(theirs.get(name)):>10}" if official else ""))
        return "\n".join([*lines, *_remarks(scores, official)])


REMARKED = {
    "question_faults": "faults in the question file",
    "unknown_files": "pictures of no prompt that is asked about",
    "by_name": "prompts whose pictures are told by name alone, not by words",
}


def _remarks(scores: Mapping[str, Any], official: Mapping[str, Any]) -> Iterator[str]:
    rules = ", ".join(f"{rule} {_number(value)}" for rule, value in scores["by_gating"].items())
    yield f"gating {scores['gating']}; overall by each rule: {rules}"
    if scores["first_picture"] and scores["first_is_draft"]:
        yield f"first pictures: overall {_number(scores['first_picture']['overall'])}"
    answers, (low, high) = scores["answers"], map(_number, scores["bounds"])
    if answers["invalid"]:
        total = answers["yes"] + answers["no"] + answers["invalid"]
        yield f"INVALID answers: {answers['invalid']} of {total}; the score lies between {low} and {high}"
    soft = scores["soft"]
    if soft["am"] is not None:
        yield f"Soft-TIFA AM {_number(soft['am'])}, GM {_number(soft['gm'])}; {soft['unknown']} answers without"
    elif scores["schema"] == "geneval2":
        yield "Soft-TIFA: none: this judge gives no probabilities"
    if "problem" in official:
        yield f"official: none: {official['problem']}"
    elif official:
        yield f"official: of {official['files']} files; {len(official['vanished'])} more vanished"
    if wrong := scores["wrong"]:
        yield f"{len(wrong)} thoughts without a readable picture count as wrong, as {wrong[0]}"
    if scores["nothing_known"]:
        yield f"{len(scores['nothing_known'])} pictures without one known answer are in no row and no mean"
    for key, words in REMARKED.items():
        if scores[key]:
            yield f"{len(scores[key])} {words}, as {scores[key][0]}"
    if scores["judged"]["answers_by"] == "number":
        yield "recorded answers are told by the number of their question alone, not by its words"
    if scores["unknown"]:
        said = ", ".join(map(short, scores["unknown_answers"]))
        yield (
            f"UNKNOWN {scores['unknown']} answers, more than {MOST_UNKNOWN:.0%}: not comparable"
            + f"; as {said}" * bool(said)
        )
    if scores["partial"]:
        yield f"PARTIAL {scores['partial']}: not comparable; missing are {', '.join(scores['missing'][:3])}"


def _unknown_answers(judged: Iterable[AnsweredPicture]) -> list[str]:
    """Some of what was said that is neither yes nor no."""
    said = (answer for picture in judged for answer in picture.said.values())
    return list(dict.fromkeys(one.raw for one in said if one.parsed == "invalid" and one.problem is None))[:3]


def _answered(thought: JudgedThought, verdict: Verdict) -> AnsweredPicture:
    """What was said about a picture: nothing where nobody looked at it."""
    answered: AnsweredPicture = verdict.source or AnsweredPicture(item=thought.item)
    return answered


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


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
