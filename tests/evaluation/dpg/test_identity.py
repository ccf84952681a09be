"""Pictures, questions and recorded answers are found by what they are; what nobody knows is told, and never a no."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tests.evaluation.dpg.drawing import PROMPTS, benchmark, scores

from twgi.cli import execute
from twgi.evaluation.results import read_results

pytestmark = pytest.mark.usefixtures("tiny_world")


def questions_of(folder: Path, *prompts: str) -> Path:
    """Questions about these prompts under GenEval 2's ids, which are their places in the file."""
    lines = [{"prompt": text, "vqa_list": [["Is there a cat?", "yes"]], "skills": ["x"]} for text in prompts]
    folder.mkdir()
    (folder / "g2.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "g2.jsonl"


@pytest.mark.parametrize("shape", ["", "samples", "grids"])
def test_pictures_are_asked_about_by_the_words_of_their_prompts(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: str
) -> None:
    first, second = (prompt.request.prompt for prompt in PROMPTS[:2])
    command = ["score", "dpg", f"{run / shape}", "--judge", "icons", "--crops", "4", "--questions"]
    found = []
    for name, prompts in (("in order", (first, second)), ("turned round", (second, first))):
        questions = questions_of(tmp_path / name, *prompts)
        assert execute([*command, f"{questions}", "--out", f"{tmp_path / name}"]) == 0
        results = read_results(tmp_path / name)
        assert [row.prompt for row in results.rows] == [prompts[0]] * 4 + [prompts[1]] * 4
        hashes = {(row.prompt, row.sample): row.pictures[-1].sha256 for row in results.rows}
        found.append((hashes, results.judged["questions"]["content"]))
    assert found[0] == found[1]
    capsys.readouterr()
    partly = questions_of(tmp_path / "partly", "a photo of nothing", second)
    assert execute([*command, f"{partly}", "--out", f"{tmp_path}/partly-out"]) == 2
    some = scores(tmp_path, "partly-out")
    assert (some["partial"], some["unknown_files"][0]) == ("4/8", f"{PROMPTS[0].id}, sample 0 ({first})")
    assert "4 pictures of no prompt that is asked about" in capsys.readouterr().out
    others = questions_of(tmp_path / "others", "a photo of nothing", "a photo of a cat")
    assert execute([*command, f"{others}", "--out", f"{tmp_path}/others-out"]) == 2
    assert "is of other prompts than are asked about" in capsys.readouterr().err
    assert not (tmp_path / "others-out" / "scores.json").exists()


def test_a_thought_about_another_prompt_than_its_run_says_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    lines = (run / "traces.jsonl").read_text().splitlines()
    trace = json.loads(lines[0]) | {"prompt": "something else"}
    (tmp_path / "run" / "traces.jsonl").write_text("\n".join([json.dumps(trace), *lines[1:]]) + "\n")
    command = ["score", "dpg", f"{tmp_path}/run", "--questions", f"{run.parent}/dense.csv", "--judge", "icons"]
    assert execute(command) == 2
    assert "is about 'something else', not about" in capsys.readouterr().err


def renumbered(text: str) -> str:
    """The same questions about the same prompts, numbered from the other end, each prompt under another id."""
    lines = text.splitlines()
    rows = list(csv.DictReader(lines))
    by_item: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_item.setdefault(row["item_id"], []).append(row)
    written = io.StringIO()
    writer = csv.DictWriter(written, rows[0].keys())
    writer.writeheader()
    for number, own in enumerate(reversed(by_item.values())):
        for row in reversed(own):
            parents = [str(len(own) + 1 - int(part)) if int(part) else "0" for part in row["dependency"].split(",")]
            place = {"proposition_id": len(own) + 1 - int(row["proposition_id"]), "dependency": ",".join(parents)}
            writer.writerow(row | place | {"item_id": f"icons{number:05d}"})
    return written.getvalue()


@pytest.mark.parametrize("with_pictures", [True, False])
def test_recorded_answers_are_found_by_question_and_picture_whatever_their_numbers(
    tmp_path: Path, with_pictures: bool
) -> None:
    command = benchmark(tmp_path, wrong=frozenset({(0, 1), (2, 2), (3, 0)}))
    assert execute([*command, "--out", f"{tmp_path}/one"]) == 0
    other = tmp_path / "other.csv"
    other.write_text(renumbered((tmp_path / "dense.csv").read_text()))
    ids = {prompt.id: f"icons{len(PROMPTS) - 1 - number:05d}" for number, prompt in enumerate(PROMPTS)}
    (tmp_path / "moved").mkdir()
    for prompt in PROMPTS:
        shutil.copy(tmp_path / "pictures" / f"{prompt.id}.png", tmp_path / "moved" / f"{ids[prompt.id]}.png")
    command = ["score", "dpg", *([f"{tmp_path}/moved", "--crops", "4"] if with_pictures else []), "--questions"]
    command += [f"{other}", "--judge", f"replay:{tmp_path}/one/answers.jsonl", "--out", f"{tmp_path}/two"]
    assert execute(command) == 0
    one, two = scores(tmp_path, "one"), scores(tmp_path, "two")
    assert 0 < one["overall"] < 100
    assert (two["overall"], two["l1"], two["by_name"]) == (one["overall"], one["l1"], two["by_name"])
    assert one["judged"]["questions"]["sha256"] != two["judged"]["questions"]["sha256"]
    assert one["judged"]["questions"]["content"] == two["judged"]["questions"]["content"]


def test_answers_about_other_pictures_are_not_taken(tmp_path: Path) -> None:
    command = benchmark(tmp_path)
    assert execute([*command, "--out", f"{tmp_path}/one"]) == 0
    for prompt in PROMPTS:
        file = tmp_path / "pictures" / f"{prompt.id}.png"
        Image.open(file).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(file)
    command[command.index("icons")] = f"replay:{tmp_path}/one/answers.jsonl"
    assert execute([*command, "--out", f"{tmp_path}/two"]) == 2
    assert scores(tmp_path, "two")["partial"] == "0/16"


def test_a_picture_refused_for_its_size_says_so_and_is_not_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = benchmark(tmp_path)
    file = tmp_path / "pictures" / f"{PROMPTS[1].id}.png"
    Image.open(file).resize((256, 256)).save(file)
    monkeypatch.setattr("twgi.tokenizer.image.MAX_SIDE", 100)
    assert execute(command) == 2
    found = scores(tmp_path)
    assert (found["overall"], found["partial"], found["statuses"]) == (100, "12/16", {"scored": 12, "not looked at": 4})
    assert found["wrong"] == []
    assert "256 x 256 pixels; at most 200 pixels a side" in capsys.readouterr().out


def test_more_unknown_answers_than_a_score_may_leave_out_end_with_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"item_id": "0", "text": "x", "proposition_id": n, "dependency": "0", "question": f"{n}?"} for n in range(1, 41)
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for unknown, status in ((2, 0), (3, 2)):
        said = ["maybe"] * unknown + ["no"] * (40 - unknown)
        lines = [{"item_id": "0", "question_id": n, "answer": word} for n, word in enumerate(said, 1)]
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        command = ["score", "dpg", "--questions", f"{tmp_path}/q.jsonl", "--judge", f"replay:{tmp_path}/a.jsonl"]
        assert execute([*command, "--out", f"{tmp_path}/{unknown}"]) == status
        assert scores(tmp_path, f"{unknown}")["unknown"] == (None if status == 0 else "3/40")
        shown = capsys.readouterr().out
        assert ('UNKNOWN 3/40 answers, more than 5%: not comparable; as "maybe"' in shown) is (status == 2)
        assert "told by the number of their question alone" in shown


def test_scoring_survives_half_a_surrogate_and_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    command = benchmark(tmp_path)
    assert execute([*command, "--out", f"{tmp_path}/one"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "one" / "answers.jsonl").read_text().splitlines()]
    recorded = [{"item_id": x["item_id"], "sample": x["sample"], "question_id": x["proposition_id"]} for x in lines]
    answers = [row | {"answer": f"{x['raw']}, \ud83d"} for row, x in zip(recorded, lines, strict=True)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    folder = tmp_path / "pictures"
    shutil.copy(folder / f"{PROMPTS[0].id}.png", folder / os.fsdecode(b"ol\xe9.png"))
    command[command.index("icons")] = f"replay:{tmp_path}/a.jsonl"
    for shape in ([], ["--json"]):  # what is kept is read again
        assert execute([*command, *shape, "--out", f"{tmp_path}/two"]) == 0
    two = scores(tmp_path, "two")
    assert two["overall"] == scores(tmp_path, "one")["overall"]
    assert two["unknown_files"] == ["ol\udce9.png"]
