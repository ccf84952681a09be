"""`twgi score dpg` with judges of every kind: recordings alone, endpoints, probabilities, and one that stops."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.evaluation.judges.stub import Reply, endpoint

from twgi.cli import execute
from twgi.icons.dense import dense_prompts, write_dense

FIXTURES = Path(__file__).parents[2] / "fixtures" / "dsg_like"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def scores(folder: Path) -> Any:
    return json.loads((folder / "scores.json").read_text())


def recorded(answers: Path, out: Path, *options: str) -> list[str]:
    command = ["score", "dpg", "--questions", f"{FIXTURES}/questions.csv", "--judge", f"replay:{answers}"]
    return [*command, "--out", f"{out}", *options]


def test_a_recording_is_scored_without_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(recorded(FIXTURES / "answers.jsonl", tmp_path, "--compat", "official")) == 2
    found = scores(tmp_path)
    assert found["by_gating"] == pytest.approx({"cascade": 725 / 12, "one-level": 775 / 12, "none": 78.125})
    assert found["official"]["problem"].endswith("no official score")
    assert found["answers"]["invalid"] == 3
    shown = capsys.readouterr().out
    assert "INVALID answers: 3 of 24; the score lies between 47.92 and 60.42" in shown
    assert "UNKNOWN 3/24 answers, more than 5%: not comparable" in shown
    assert "2 faults in the question file" in shown


def test_a_recording_with_a_hole_is_partial_and_one_of_strangers_says_so(tmp_path: Path) -> None:
    lines = (FIXTURES / "answers.jsonl").read_text().splitlines()
    strange = json.dumps({"item_id": "who", "proposition_id": 1, "answer": "yes"})
    (tmp_path / "answers.jsonl").write_text("\n".join([*lines[1:], strange]) + "\n")
    assert execute(recorded(tmp_path / "answers.jsonl", tmp_path / "out")) == 2
    found = scores(tmp_path / "out")
    assert found["partial"] == "7/8"
    assert found["missing"] == ["tifa160_7, sample 0: 1 questions without an answer"]
    assert found["unknown_files"] == ["who, sample 0"]
    (tmp_path / "answers.jsonl").write_text(strange + "\n")
    assert execute(recorded(tmp_path / "answers.jsonl", tmp_path / "out")) == 2


def test_only_a_recording_needs_no_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["score", "dpg", "--questions", f"{FIXTURES}/questions.csv", "--judge", "icons"]
    assert execute(command) == 2
    assert "give a folder of pictures" in capsys.readouterr().err


def geneval2(folder: Path) -> Path:
    line = {
        "prompt": "four white bicycles", "atom_count": 2, "skills": ["count", "attribute"],
        "vqa_list": [["How many bicycles are in the image?", "four"], ["Are the bicycles white?", "Yes"]],
    }  # fmt: skip
    (folder / "geneval2_data.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "pictures" / "0.png")
    return folder / "geneval2_data.jsonl"


def test_geneval_2_is_scored_by_the_probabilities_of_the_wanted_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = geneval2(tmp_path)
    said = [
        Reply(text="four", logprobs=[("four", -0.1053605), ("4", -3.0)]),
        Reply(text="No", logprobs=[("No", -0.2231436), ("Yes", -1.6094379)]),
    ]
    with endpoint(*said) as stub:
        command = ["score", "dpg", f"{tmp_path}/pictures", "--questions", f"{questions}", "--crops", "1"]
        assert execute([*command, "--judge", f"openai:{stub.url}#eyes", "--concurrency", "1", "--no-self-test"]) == 0
    assert all(request["logprobs"] for request in stub.requests)
    soft = scores(tmp_path / "pictures")["soft"]
    count = 0.9 + 0.0497871
    assert soft["am"] == pytest.approx(100 * (count + 0.2) / 2)
    assert soft["gm"] == pytest.approx(100 * (count * 0.2) ** 0.5)
    assert soft["skills"] == pytest.approx({"attribute": 20, "count": 100 * count})
    assert f"Soft-TIFA AM {soft['am']:.2f}" in capsys.readouterr().out


def test_a_judge_without_probabilities_gives_no_soft_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = geneval2(tmp_path)
    with endpoint(Reply(text="four"), Reply(text="yes")) as stub:
        command = ["score", "dpg", f"{tmp_path}/pictures", "--questions", f"{questions}", "--crops", "1"]
        assert execute([*command, "--judge", f"openai:{stub.url}#eyes", "--concurrency", "1", "--no-self-test"]) == 0
    assert "Soft-TIFA: none: this judge gives no probabilities" in capsys.readouterr().out
    assert scores(tmp_path / "pictures")["overall"] == 100


def test_a_stopped_scoring_goes_on_without_asking_twice(tmp_path: Path) -> None:
    prompts = dense_prompts(3)
    (tmp_path / "dense.csv").write_text(write_dense(prompts, lines=False))
    (tmp_path / "pictures").mkdir()
    for number, prompt in enumerate(prompts):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / "pictures" / f"{prompt.id}.png")
    wanted = sum(len(prompt.claims) for prompt in prompts)
    with endpoint(*[Reply()] * 6, Reply(status=401), Reply()) as stub:
        command = ["score", "dpg", f"{tmp_path}/pictures", "--questions", f"{tmp_path}/dense.csv", "--crops", "1"]
        command += ["--judge", f"openai:{stub.url}#eyes", "--concurrency", "2", "--no-self-test"]
        assert execute(command) == 2
        assert not (tmp_path / "pictures" / "scores.json").exists()
        assert execute(command) == 0
        assert wanted < len(stub.requests) <= wanted + 3, "at most what was on its way is asked again"
    assert scores(tmp_path / "pictures")["answers"]["yes"] == wanted


def one_picture(folder: Path) -> list[str]:
    (folder / "pictures").mkdir()
    Image.new("RGB", (8, 8), (200, 0, 0)).save(folder / "pictures" / "0.png")
    row = {
        "item_id": "0",
        "proposition_id": 1,
        "dependency": "0",
        "question": "Is it red?",
        "tuple": "entity - whole (x)",
    }
    (folder / "q.jsonl").write_text(json.dumps(row) + "\n")
    return ["score", "dpg", f"{folder}/pictures", "--questions", f"{folder}/q.jsonl", "--crops", "1", "--judge"]


def test_a_judge_that_does_not_see_is_stopped_before_its_first_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = one_picture(tmp_path)
    with endpoint(Reply(text="yes")) as stub:
        assert execute([*command, f"openai:{stub.url}#blind", "--concurrency", "1"]) == 2
    complaint = capsys.readouterr().err
    assert "fails the self-test: of a plain red picture it says 'yes' to 'Is this picture blue?'" in complaint
    assert not any("Is it red?" in json.dumps(request) for request in stub.requests)
    assert not (tmp_path / "pictures" / "scores.json").exists()


def test_a_judge_that_sees_is_tested_once_and_only_when_there_is_something_to_ask(tmp_path: Path) -> None:
    command = one_picture(tmp_path)
    with endpoint(Reply(sees=True)) as stub:
        judge = f"openai:{stub.url}#eyes"
        assert execute([*command, judge, "--concurrency", "1"]) == 0
        assert len(stub.requests) == 5
        assert execute([*command, judge, "--concurrency", "1"]) == 0
        assert len(stub.requests) == 5
    found = scores(tmp_path / "pictures")
    assert (found["overall"], found["judged"]["self_test"]) == (100, "asked for")


def test_a_judge_without_a_word_at_its_self_test_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = one_picture(tmp_path)
    with endpoint(Reply(status=400)) as stub:
        assert execute([*command, f"openai:{stub.url}#mute", "--concurrency", "1"]) == 2
    assert "gives no answer: HTTP 400" in capsys.readouterr().err


def test_a_picture_about_which_nothing_is_known_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = one_picture(tmp_path)
    with endpoint(Reply(text="1000000")) as stub:
        assert execute([*command, f"openai:{stub.url}#odd", "--no-self-test"]) == 2
    found = scores(tmp_path / "pictures")
    assert (found["overall"], found["bounds"], found["nothing_known"]) == (None, [0, 100], ["0, sample 0"])
    shown = capsys.readouterr().out
    assert "1 pictures without one known answer are in no row and no mean" in shown
    assert "INVALID answers: 1 of 1; the score lies between 0.00 and 100.00" in shown
