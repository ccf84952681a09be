"""`twgi eval dpg` and `twgi score dpg` as people call them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.evaluation.dpg.drawing import PROMPTS, benchmark, drawn, scores
from tests.evaluation.judges.stub import Reply, endpoint

from twgi.cli import execute
from twgi.evaluation.dpg.benchmark import Dpg, grid
from twgi.evaluation.judges.openai import KEY
from twgi.evaluation.report.statistics import scores as estimates
from twgi.evaluation.results import read_results
from twgi.icons.dense import write_dense

pytestmark = pytest.mark.usefixtures("tiny_world")


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that scores right pictures; where to, a test must say."""
    return benchmark(tmp_path_factory.mktemp("right"))


def test_right_pictures_score_100_in_both_ways(
    right: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute([*right, "--compat", "official", "--out", f"{tmp_path}"]) == 0
    found = scores(tmp_path, ".")
    assert (found["overall"], found["official"]["overall"], found["partial"]) == (100, 100, None)
    table = capsys.readouterr().out
    assert "corrected   official" in table
    assert "PARTIAL" not in table
    # the first row of the file is a parent, so the published program loses that prompt
    assert list(found["official"]["vanished"]) == [f"{PROMPTS[0].id}.png"]


def test_grids_and_single_files_score_the_same(tmp_path: Path) -> None:
    wrong = frozenset({(1, 2), (2, 0), (2, 3), (3, 3)})
    for name, grids in (("grids", True), ("singles", False)):
        (tmp_path / name).mkdir()
        assert execute([*benchmark(tmp_path / name, grids=grids, wrong=wrong), "--compat", "official"]) == 0
    one, other = (scores(tmp_path / name) for name in ("grids", "singles"))
    assert one == other
    assert one["overall"] < 100
    assert one["official"]["overall"] != one["overall"]


def test_a_flaw_in_the_last_picture_alone_fills_the_official_categories(tmp_path: Path) -> None:
    wrong = frozenset((number, 3) for number in range(4))
    execute([*benchmark(tmp_path, wrong=wrong), "--compat", "official"])
    found = scores(tmp_path)
    for name, share in found["l1"].items():
        if name in found["official"]["l1"] and share["no"]:
            assert found["official"]["l1"][name] < share["score"]


def test_results_say_who_judged_what_with_which_settings(tmp_path: Path) -> None:
    execute(benchmark(tmp_path, wrong=frozenset({(0, 0)})))
    results = read_results(tmp_path / "pictures")
    rows = results.rows
    assert results.judged["judge"] == {"name": "icons", "version": "1"}
    assert results.judged["gating"] == "cascade"
    assert len(results.judged["questions"]["sha256"]) == 64
    assert [(row.id, row.sample) for row in rows] == [(p.id, n) for p in PROMPTS for n in range(4)]
    for row in rows:
        assert row.pictures[0].sha256 is not None
        assert all(answer["answer"]["raw"] in ("yes", "no") for answer in row.detail["answers"])
    assert rows[0].score < 1
    assert rows[0].pictures[0].reasons
    assert (rows[0].pictures[0].image, rows[1].detail["crop"]) == (f"{PROMPTS[0].id}.png", 1)
    by_prompt = [np.mean([row.score for row in rows if row.id == prompt.id]) for prompt in PROMPTS]
    assert scores(tmp_path)["overall"] == pytest.approx(100 * np.mean(by_prompt))


def test_a_deleted_picture_makes_the_score_partial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = benchmark(tmp_path, grids=False)
    (tmp_path / "pictures" / f"{PROMPTS[2].id}_1.png").unlink()
    assert execute(command) == 2
    assert f"PARTIAL 15/16: not comparable; missing are {PROMPTS[2].id}, sample 1" in capsys.readouterr().out
    assert scores(tmp_path)["missing"] == [f"{PROMPTS[2].id}, sample 1"]


def test_a_program_may_read_the_scores(right: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute([*right, "--json", "--out", f"{tmp_path}"]) == 0
    assert json.loads(capsys.readouterr().out) == scores(tmp_path, ".")


def test_a_corrupt_picture_counts_as_wrong_and_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = benchmark(tmp_path)
    file = tmp_path / "pictures" / f"{PROMPTS[1].id}.png"
    file.write_bytes(file.read_bytes()[:200])
    assert execute([*command, "--compat", "official"]) == 0
    found = scores(tmp_path)
    assert found["overall"] == 75
    assert found["statuses"] == {"scored": 12, "unreadable": 4}
    assert found["wrong"][0] == f"{PROMPTS[1].id}, sample 0: unreadable"
    assert found["official"]["overall"] == 100
    assert found["official"]["vanished"][file.name] == "cannot be opened"
    assert "4 thoughts without a readable picture count as wrong" in capsys.readouterr().out


def test_parts_judged_apart_give_what_one_judging_gives(tmp_path: Path) -> None:
    command = benchmark(tmp_path, wrong=frozenset({(0, 1), (2, 2), (3, 0)}))
    assert execute([*command, "--out", f"{tmp_path}/one"]) == 0
    for which in ("2/2", "1/2"):
        assert execute([*command, "--out", f"{tmp_path}/two", "--shard", which]) == 0
    assert not (tmp_path / "two" / "scores.json").exists()
    for part in (0, 1):
        lines = (tmp_path / "two" / f"answers-{part + 1}-of-2.jsonl").read_text().splitlines()
        assert {json.loads(line)["item_id"] for line in lines} == {prompt.id for prompt in PROMPTS[part::2]}
    assert execute([*command, "--out", f"{tmp_path}/two"]) == 0
    assert not (tmp_path / "two" / "answers.jsonl").exists(), "all was answered before"
    for name in ("scores.json", "results.jsonl"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_an_endpoint_that_fails_leaves_invalid_answers_and_a_run_to_go_on_with(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "sk-very-secret")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    command = benchmark(tmp_path)
    place = command.index("icons")
    trouble = [Reply(text="yes", echo=True), Reply(text="1000000000"), Reply(status=400, echo=True)]
    with endpoint(*trouble, Reply(text="yes")) as stub:
        command[place] = f"openai:{stub.url}#eyes"
        command += ["--concurrency", "1", "--no-self-test"]
        assert execute(command) == 2
        asked = len(stub.requests)
        first = scores(tmp_path)
        assert first["partial"] == "15/16"
        assert first["missing"] == [f"{PROMPTS[0].id}, sample 0: 1 questions without an answer"]
        # "yes [key]" is a yes by its first word; two answers are unknown, and none of them is a no
        assert (first["answers"]["invalid"], first["answers"]["no"]) == (2, 0)
        assert first["overall"] == 100 > first["bounds"][0]
        assert execute(command) == 0
        assert len(stub.requests) == asked + 1, "only what had no answer is asked again"
    assert scores(tmp_path)["answers"]["invalid"] == 1
    told = "".join(capfd.readouterr())
    assert "INVALID answers: 2 of" in told
    everything = told + "".join(p.read_text() for p in (tmp_path / "pictures").glob("*.json*"))
    assert "sk-very-secret" not in everything


def test_kept_answers_can_be_replayed_without_the_judge(tmp_path: Path) -> None:
    command = benchmark(tmp_path, wrong=frozenset({(0, 1), (2, 2)}))
    execute([*command, "--out", f"{tmp_path}/one"])
    command[command.index("icons")] = f"replay:{tmp_path}/one/answers.jsonl"
    assert execute([*command, "--out", f"{tmp_path}/two", "--gating", "one-level"]) == 0
    one, two = scores(tmp_path, "one"), scores(tmp_path, "two")
    assert one["by_gating"] == two["by_gating"]
    assert (two["gating"], two["judged"]["judge"]["name"]) == ("one-level", "replay:answers.jsonl")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--judge", "gpt"], "unknown judge 'gpt'"),
        (["--questions", "nowhere.csv"], "nowhere.csv"),
        (["--which", "best"], "which must be final, first or each"),
        (["--gating", "all"], "gating must be one of"),
        (["--compat", "mine"], "compat must be official"),
        (["--shard", "3/2"], "--shard must be like 1/4"),
        (["--shard", "x"], "--shard must be like 1/4"),
    ],
)
def test_a_wrong_option_is_one_line(
    right: list[str], capsys: pytest.CaptureFixture[str], options: list[str], problem: str
) -> None:
    assert execute([*right, *options]) == 2
    complaint = capsys.readouterr().err
    assert problem in complaint
    assert len(complaint.splitlines()) == 1


def test_a_run_lays_its_pictures_out_in_the_published_shape(run: Path) -> None:
    for prompt in PROMPTS[:2]:
        samples = [Image.open(run / "samples" / prompt.id / f"{n}.png") for n in range(4)]
        whole = Image.open(run / "grids" / f"{prompt.id}.png")
        assert whole.tobytes() == grid(samples).tobytes()
        assert whole.size == (2 * samples[0].width, 2 * samples[0].height)


def test_every_shape_of_a_run_scores_the_same(run: Path, tmp_path: Path) -> None:
    found = {}
    for name, options in (("", []), ("grids", ["--crops", "4"]), ("samples", [])):
        command = ["score", "dpg", f"{run / name}", "--questions", f"{run.parent}/dense.csv", "--judge", "icons"]
        assert execute([*command, *options, "--out", f"{tmp_path}/scores{name}"]) == 0
        found[name] = scores(tmp_path, f"scores{name}")
    assert found[""]["made"]["model"]["name"] == "model"
    assert found[""]["made"]["samples"] == 4
    assert {key: found[""][key] for key in ("overall", "l1")} == {key: found["grids"][key] for key in ("overall", "l1")}
    assert found["grids"]["l2"] == found["samples"]["l2"]


def test_a_run_in_parts_scores_as_one(run: Path, tmp_path: Path) -> None:
    model, prompts = run.parent / "model", run.parent / "dense.csv"
    for part in ("1/2", "2/2"):
        command = ["eval", "dpg", "--prompts", f"{run.parent}/prompts.jsonl", "--model", f"{model}", "--shard", part]
        assert execute([*command, "--out", f"{tmp_path}/parts"]) == 0
        whole = part == "2/2"
        score = ["score", "dpg", f"{tmp_path}/parts", "--questions", f"{prompts}", "--judge", "icons"]
        assert execute(score) == (0 if whole else 2)
    assert execute(["score", "dpg", f"{run}", "--questions", f"{prompts}", "--judge", "icons"]) == 0
    one, parts = scores(run, "."), scores(tmp_path / "parts", ".")
    assert [point.pop("seconds") > 0 for each in (one, parts) for point in each["by_picture"]] == [True, True]
    assert one == parts
    hashes = [
        [picture.sha256 for row in read_results(folder).rows for picture in row.pictures]
        for folder in (run, tmp_path / "parts")
    ]
    assert hashes[0] == hashes[1]


def edited(run: Path, folder: Path, *images: tuple[str | None, int], seconds: list[float]) -> Path:
    """A copy of the run whose first thought, one of four or the only one, has these pictures: (file, tokens)."""
    shutil.copytree(run, folder)
    first, *others = [json.loads(line) for line in (run / "traces.jsonl").read_text().splitlines()]
    shown = {"type": "image", "role": "final", "kind": None}
    first["segments"] = [{**shown, "image": image, "tokens": [9] * count} for image, count in images]
    first |= {"id": "00000-0", "timing": {"busy_at_pictures": seconds[:-1], "busy": seconds[-1]}}
    rest = [trace for trace in others if trace["id"] != "00000-0"]
    (folder / "traces.jsonl").write_text("".join(json.dumps(trace) + "\n" for trace in (first, *rest)))
    return folder


def alone(folder: Path) -> Path:
    """Only the first thought of the first prompt was asked for; its questions lie in the folder."""
    trace = (folder / "traces.jsonl").read_text().splitlines()[0]
    (folder / "traces.jsonl").write_text(trace + "\n")
    described = json.loads((folder / "run.json").read_text())
    described["samples"], told = 1, described["benchmark"]
    told["ids"], told["lines"] = told["ids"][:1], told["lines"][:1]
    (folder / "run.json").write_text(json.dumps(described))
    (folder / "dense.csv").write_text(write_dense(PROMPTS[:1], lines=False))
    return folder


def test_a_thought_without_a_picture_is_wrong_and_listed(run: Path, tmp_path: Path) -> None:
    copy = edited(run, tmp_path / "run", (None, 3), seconds=[1.0])
    lines = [json.loads(line) for line in (copy / "traces.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["id"] != "00000-1"]
    (copy / "traces.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    failure = {"where": f"prompt {PROMPTS[0].id}", "sample": 1, "error": "too long"}
    (copy / "errors.jsonl").write_text(json.dumps(failure) + "\n")
    assert execute(["score", "dpg", f"{copy}", "--questions", f"{run.parent}/dense.csv", "--judge", "icons"]) == 0
    found = scores(tmp_path, "run")
    assert found["wrong"] == [f"{PROMPTS[0].id}, sample 0: no picture", f"{PROMPTS[0].id}, sample 1: failed"]
    assert found["partial"] is None
    assert [row.score for row in read_results(copy).rows[:2]] == [0, 0]


def test_a_prompt_that_cannot_be_used_fails_alone(run: Path, tmp_path: Path) -> None:
    lines = [{"id": "icons00000", "prompt": "a dog <image>"}, {"id": "icons00001", "prompt": "a dog"}]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["eval", "dpg", "--prompts", f"{tmp_path}/prompts.jsonl", "--model", f"{run.parent}/model"]
    assert execute([*command, "--samples", "2", "--out", f"{tmp_path}/run"]) == 2
    questions = write_dense(PROMPTS[:2], lines=False)
    for prompt, line in zip(PROMPTS, lines, strict=False):
        questions = questions.replace(prompt.request.prompt, line["prompt"])
    (tmp_path / "dense.csv").write_text(questions)
    assert execute(["score", "dpg", f"{tmp_path}/run", "--questions", f"{tmp_path}/dense.csv", "--judge", "icons"]) == 0
    found = scores(tmp_path / "run", ".")
    assert found["wrong"] == ["icons00000, sample 0: failed", "icons00000, sample 1: failed"]
    assert found["thoughts"] == 4


def test_first_and_final_pictures_are_judged_apart(run: Path, tmp_path: Path) -> None:
    pictures = (("images/0.png", 5), ("images/1.png", 6))
    copy = alone(edited(run, tmp_path / "run", *pictures, seconds=[1.0, 2.0, 2.5]))
    for number, wrong in enumerate((True, False)):
        drawn(PROMPTS[0], 0, wrong=wrong).save(copy / "images" / f"{number}.png")
    found = {}
    for which in ("first", "final", "each"):
        command = ["score", "dpg", f"{copy}", "--questions", f"{copy}/dense.csv", "--judge", "icons", "--which", which]
        assert execute([*command, "--out", f"{tmp_path}/{which}"]) == 0
        found[which] = scores(tmp_path, which)
    assert found["final"]["overall"] == found["each"]["overall"] == 100
    assert found["first"]["overall"] == found["each"]["first_picture"]["overall"] < 100
    (row_each,) = read_results(tmp_path / "each").rows
    assert [picture.image_tokens for picture in row_each.pictures] == [5, 6]
    assert all((tmp_path / "each" / str(picture.image)).is_file() for picture in row_each.pictures)
    assert found["each"]["by_picture"] == [{"image_tokens": 5, "seconds": 1.0}, {"image_tokens": 11, "seconds": 2.0}]
    assert found["final"]["by_picture"] == found["each"]["by_picture"][1:]
    assert estimates([row_each], 0, over="prompts")["overall"].value == pytest.approx(found["first"]["overall"] / 100)
    assert estimates([row_each], over="prompts")["overall"].value == 1
    assert [picture.score for picture in row_each.pictures] == pytest.approx([found["first"]["overall"] / 100, 1.0])


def test_a_last_picture_that_was_not_drawn_leaves_the_first_one(run: Path, tmp_path: Path) -> None:
    copy = alone(edited(run, tmp_path / "run", ("images/0.png", 5), (None, 6), seconds=[1.0, 2.0]))
    drawn(PROMPTS[0], 0).save(copy / "images" / "0.png")
    for which, overall, wrong in (("first", 100, []), ("final", 0, [f"{PROMPTS[0].id}, sample 0: no picture"])):
        command = ["score", "dpg", f"{copy}", "--questions", f"{copy}/dense.csv", "--judge", "icons", "--which", which]
        assert execute([*command, "--out", f"{tmp_path}/{which}"]) == 0
        found = scores(tmp_path, which)
        assert (found["overall"], found["wrong"]) == (overall, wrong)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"id": "../../x", "prompt": "a dog"}\n', "cannot be a file's name"),
        ('{"id": ".hidden", "prompt": "a dog"}\n', "cannot be a file's name"),
        ('{"id": "a", "prompt": " "}\n', "the prompt 'a' is empty"),
        ('{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}\n', "stands twice"),
        ('{"id": "a", "prompt": "x"}\n{"id": "b"}\n', "prompts.jsonl:2"),
        ("{", "prompts.jsonl:1"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, problem: str
) -> None:
    (tmp_path / "prompts.jsonl").write_text(content)
    assert execute(["eval", "dpg", "--prompts", f"{tmp_path}/prompts.jsonl", "--out", f"{tmp_path}/out"]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def texts(path: Path, limit: int | None = None) -> dict[str, str]:
    return {item.id: item.prompt for item in Dpg().prompts(path).limited(limit).items}


def test_prompts_may_be_a_folder_of_text_files_or_the_question_file(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    for prompt in PROMPTS:
        (tmp_path / "prompts" / f"{prompt.id}.txt").write_text(prompt.request.prompt + "\n")
    (tmp_path / "dense.csv").write_text(write_dense(PROMPTS, lines=False))
    wanted = {prompt.id: prompt.request.prompt for prompt in PROMPTS}
    assert texts(tmp_path / "prompts") == texts(tmp_path / "dense.csv") == wanted
    assert list(texts(tmp_path / "dense.csv", limit=2)) == [PROMPTS[0].id, PROMPTS[1].id]


def test_the_published_prompts_are_read(shared: Any) -> None:
    assert len(texts(shared("dpg_bench/prompts.jsonl"))) == 1065
