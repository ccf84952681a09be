"""A build with endpoints: the paper's steps, patient with a bad server, never paid for twice, all verdicts kept."""

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.data.factory.building import KEPT, SECRET, built, everything, lines, recipe_file, records
from tests.data.factory.studio import Asked, Reply, Studio, studio

from twgi.cli import execute
from twgi.data.factory.build import ITEMS, REPORT
from twgi.data.factory.build import PROMPTS as PROMPT_LINES
from twgi.data.records import Part
from twgi.errors import ConfigError, RunError
from twgi.thinking.modes import MODES


def test_chains_are_made_by_the_papers_steps(tmp_path: Path) -> None:
    with studio() as served:
        report = built(tmp_path, served, overrides=["workers=1"])
    assert (report.count("kept"), report.count("dropped"), report.count("failed")) == (6, 0, 0)
    paths = [asked.path.removeprefix("/v1/") for asked in served.asked]
    words, draw, edit = "chat/completions", "images/generations", "images/edits"
    assert paths[:2] == [words, words]  # prompts, parts
    assert paths[2:7] == [draw, edit, edit, words, words]  # part, part, whole, chain, judge
    assert paths[7:12] == [draw, words, edit, words, words]  # draft, critique, redrawn, judge; the next prompt's parts
    part, whole, chain, verdict = served.asked[3], served.asked[4], served.asked[5], served.asked[6]
    assert [len(asked.pictures) for asked in (part, whole, chain, verdict)] == [1, 2, 3, 1]
    assert (chain.pictures[:2], verdict.pictures) == (whole.pictures, chain.pictures[2:])


def test_records_hold_the_prompt_of_the_mode_the_words_and_the_pictures(tmp_path: Path) -> None:
    with studio() as served:
        built(tmp_path, served)
    made = list(records(tmp_path).values())
    turns = [turn for record in made for turn in record.turns]
    expected = [MODES[mode].prompt_text(prompt) for prompt in KEPT for mode in ("subgoal", "critique")]
    assert [turn.prompt for turn in turns] == expected
    kinds = ["".join("i" if part.kind == "image" else "t" for part in turn.response) for turn in turns]
    assert kinds == ["tititi", "iti"] * 3
    assert [part.loss for part in turns[1].response] == [False, True, True]  # the flawed draft is read, not learnt
    assert turns[1].response[1] == Part("text", "The cube is red. No ball. Add a ball.")
    assert all((record.folder / image).is_file() for record in made for turn in record.turns for image in turn.images)


def test_a_draft_that_fits_is_learnt_and_not_drawn_again(tmp_path: Path) -> None:
    with studio(matches=True) as served:
        built(tmp_path, served, overrides=["modes=[critique]"])
    assert not [asked for asked in served.asked if asked.path.endswith("edits")]
    draft, said = next(iter(records(tmp_path).values())).turns[0].response
    assert (draft.loss, said) == (True, Part("text", "The cube is red."))


def stormy(seed: int) -> Callable[[Asked, int], Reply | None]:
    """Two thirds of all requests go wrong, each in another way, but none three times in a row."""
    draw = random.Random(seed)
    bad = [
        Reply(status=429, headers={"Retry-After": "0"}),
        Reply(status=500, body=b"<html>"),
        Reply(status=503),
        Reply(body=b"garbage"),
        Reply(body=b'{"data": [{"b64_json": "AAAA"}], "choices": [{"message": {"content": "I would rather not."}}]}'),
        Reply(body=b'{"data": [{"url": "http://169.254.169.254/"}], "choices": []}'),
    ]
    failed: dict[str, int] = {}

    def trouble(asked: Asked, number: int) -> Reply | None:
        wrong = failed.get(asked.words, 0) < 3 and draw.random() < 0.66
        failed[asked.words] = failed.get(asked.words, 0) + 1 if wrong else 0
        return draw.choice(bad) if wrong else None

    return trouble


def test_a_stormy_server_gives_what_a_calm_one_gives(tmp_path: Path) -> None:
    folders = [tmp_path / "calm", tmp_path / "stormy"]
    with studio() as served:
        (tmp_path / "calm").mkdir()
        built(folders[0], served)
        served.trouble, calm = stormy(1), len(served.asked)
        (tmp_path / "stormy").mkdir()
        report = built(folders[1], served, overrides=["endpoints.all.attempts=9"])
    assert report.count("kept") == 6
    assert len(served.asked) - calm > 1.5 * calm
    assert sum(spent["attempts"] for spent in report.spent) == len(served.asked) - calm
    assert everything(folders[1]) == everything(folders[0])


def test_one_bad_chain_ends_nothing_and_is_tried_again_on_resume(tmp_path: Path) -> None:
    def trouble(asked: Asked, number: int) -> Reply | None:
        hopeless = asked.path.endswith("generations") and asked.words.startswith("a cat")
        return Reply(status=400, body=b'{"error": {"message": "not this one"}}') if hopeless else None

    with studio(trouble=trouble) as served:
        report = built(tmp_path, served)
        assert sorted(report.problems()) == [
            "1 critique failed at drafter: HTTP 400 (not this one)",
            "1 subgoal failed at painter: HTTP 400 (not this one)",
        ]
        assert len(records(tmp_path)) == 4
        served.trouble, asked = (lambda asked, number: None), len(served.asked)
        again = built(tmp_path, served, resume=True)
    assert (again.count("kept"), again.count("failed"), len(records(tmp_path))) == (6, 0, 6)
    assert len(served.asked) - asked == 5 + 4  # of the two chains alone, and the parts of the prompt were known


def test_the_filter_keeps_its_verdicts_and_what_it_dropped(tmp_path: Path) -> None:
    with studio(score=lambda words: 3 if "cat" in words else 7) as served:
        report = built(tmp_path, served)
    items = lines(tmp_path / "out" / ITEMS)
    assert sorted((item["status"], item["score"]) for item in items) == [("dropped", 3)] * 2 + [("kept", 7)] * 4
    assert {item["reason"] for item in items} == {"All of it is there."}
    assert all("segments" in item["record"] for item in items)
    assert len(records(tmp_path)) == 4
    assert report.yields() == {key: {"kept": 2, "dropped": 1, "failed": 0} for key in ("subgoal", "critique")}
    assert report.problems() == [f"1 {mode} dropped at judge: score 3" for mode in ("subgoal", "critique")]


def test_a_prompt_of_one_part_makes_no_subgoal_chain(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a cube"}\n{"prompt": "a cube and a ball"}\nbroken\n{"prompt": "A CUBE!"}\n')
    with studio() as served:
        report = built(tmp_path, served, overrides=[f"prompts.file={file}", "modes=[subgoal]"])
    ended = [(item["status"], item["step"], item["reason"]) for item in report.items]
    assert ended == [("dropped", "decomposer", "fewer than two parts"), ("kept", "judge", "All of it is there.")]
    seen = [(line["status"], line.get("reason")) for line in lines(tmp_path / "out" / PROMPT_LINES)]
    assert seen == [("kept", None)] * 2 + [("dropped", "broken JSON at column 1: Expecting value"), (
        "dropped", "there already",
    )]  # fmt: skip
    assert served.count('"prompts"') == 0


def test_calls_tokens_and_costs_are_those_of_the_server(tmp_path: Path) -> None:
    with studio() as served:
        report = built(tmp_path, served)
    spent = {one["role"]: one for one in report.spent}
    counts = {role: (one["answers"], one["pictures"]) for role, one in spent.items()}
    words = {"prompts": (1, 0), "decomposer": (3, 0), "writer": (3, 0), "critic": (3, 0), "judge": (6, 0)}
    assert counts == {**words, "painter": (3, 3), "editor": (9, 9), "drafter": (3, 3)}
    assert sum(one["answers"] for one in spent.values()) == len(served.asked)
    assert (spent["judge"]["input_tokens"], spent["judge"]["output_tokens"]) == (60, 30)
    assert report.cost == pytest.approx(15 * 0.5 + (16 * 10 + 15 * 7) * 1e-6 + (16 * 5 + 15 * 100) * 2e-6)
    stored = json.loads((tmp_path / "out" / REPORT).read_text())
    assert (stored["cost"], stored["kept"], stored["yield"]) == (report.cost, 6, report.yields())


def test_nothing_is_asked_twice_neither_on_resume_nor_in_another_build(tmp_path: Path) -> None:
    with studio() as served:
        first = built(tmp_path, served)
        asked, before = len(served.asked), everything(tmp_path)
        with pytest.raises(RunError, match="holds a run already"):
            built(tmp_path, served)
        assert built(tmp_path, served, resume=True).cost == first.cost
        (tmp_path / "out" / ITEMS).unlink()  # even where only the answers are left
        built(tmp_path, served, resume=True)
        assert (len(served.asked), everything(tmp_path)) == (asked, before)
        (tmp_path / "second").mkdir()
        second = built(tmp_path / "second", served, reuse=[tmp_path / "out"], overrides=["learn_draft=true"])
    assert (len(served.asked), second.cost) == (asked, 0)
    assert all(part.loss for r in records(tmp_path / "second").values() for part in r.turns[0].response)


def test_a_picture_that_was_lost_is_drawn_again(tmp_path: Path) -> None:
    with studio() as served:
        built(tmp_path, served)
        before, asked = everything(tmp_path), len(served.asked)
        next((tmp_path / "out" / "images").iterdir()).unlink()
        (tmp_path / "out" / ITEMS).unlink()
        built(tmp_path, served, resume=True)
    assert (everything(tmp_path), len(served.asked)) == (before, asked + 1)


def test_another_recipe_is_refused_but_not_another_pace(tmp_path: Path) -> None:
    with studio() as served:
        built(tmp_path, served)
        with pytest.raises(RunError, match=r"settings.keep_from was 7.0, is now 2.0"):
            built(tmp_path, served, resume=True, overrides=["keep_from=2"])
        calm = ["workers=1", "endpoints.all.concurrency=1", "endpoints.all.timeout=9", "endpoints.all.price.input=3"]
        assert built(tmp_path, served, resume=True, overrides=calm).count("kept") == 6


def test_endpoints_of_a_role_take_turns_and_pictures_may_come_by_chat(tmp_path: Path) -> None:
    with studio() as served:
        chat = {"url": served.url, "model": "chat", "pictures": "chat", "parameters": {"seed": 7}}
        overrides = [f"endpoints.{name}={json.dumps({**chat, 'model': name})}" for name in ("chat", "talk")]
        roles = [f"roles.{role}=[chat, talk]" for role in ("painter", "drafter", "editor")]
        report = built(tmp_path, served, overrides=[*overrides, *roles])
    assert report.count("kept") == 6
    drawn = [asked for asked in served.asked if "modalities" in asked.fields]
    assert {asked.fields["model"] for asked in drawn} == {"chat", "talk"}
    assert {asked.fields["seed"] for asked in drawn} == {7}
    assert len(drawn) == 15
    assert {asked.path for asked in served.asked} == {"/v1/chat/completions"}


def test_the_key_is_in_no_file_and_no_message(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def trouble(asked: Asked, number: int) -> Reply | None:
        if asked.words.startswith("a cat"):
            return Reply(status=400, body=json.dumps({"error": {"message": f"bad key {asked.key}"}}).encode())
        return Reply(echo=True)

    with studio(trouble=trouble) as served:
        command = ["data", "build", "--recipe", str(recipe_file(tmp_path, served)), "--out", str(tmp_path / "out")]
        assert execute(command) == 2
        assert execute([*command, "--resume", "--json"]) == 2
    assert {asked.key for asked in served.asked} == {SECRET}
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    told = b"".join(path.read_bytes() for path in files) + "".join(capfd.readouterr()).encode()
    assert SECRET.encode() not in told
    assert b"bad key [key]" in told
    assert base64.b64encode(SECRET.encode()) not in told


def test_a_key_with_quotes_that_a_server_repeats_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_KEY", 'sk-TEST"SECRET\\0123456789\r\n')
    with studio(trouble=lambda asked, number: Reply(body=repeated(asked))) as served:
        built(tmp_path, served, overrides=["modes=[critique]", "endpoints.all.attempts=1"])
    assert served.asked[0].key == 'sk-TEST"SECRET\\0123456789'
    assert b"SECRET" not in b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


def repeated(asked: Asked) -> bytes:
    """What a studio would say, with the key wherever it fits."""
    reply = Studio().answer(asked)
    for choice in reply.get("choices", ()):
        said = choice["message"]["content"].replace("All of it", asked.key.replace("\\", "\\\\").replace('"', '\\"'))
        choice["message"]["content"] = [{"type": "text", "text": said}, {"type": "text", "text": asked.key}]
    return json.dumps({**reply, "usage": {asked.key: 1}}).encode()


def test_a_refused_key_ends_the_build_at_once(tmp_path: Path) -> None:
    with studio(trouble=lambda asked, number: Reply(status=401)) as served:
        with pytest.raises(ConfigError, match="refuses the key"):
            built(tmp_path, served)
        assert len(served.asked) == 1


def test_an_endpoint_that_is_down_ends_the_build_after_a_while(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{n} cubes"}) + "\n" for n in range(30)))
    with studio(trouble=lambda asked, number: Reply(status=400)) as served:
        options = {"overrides": [f"prompts.file={file}", "modes=[critique]", "count=30"]}
        with pytest.raises(RunError, match=r"20 chains in a row failed \(drafter: HTTP 400\)"):
            built(tmp_path, served, **options)
        assert 20 <= len(served.asked) <= 30
        served.trouble = lambda asked, number: None
        assert built(tmp_path, served, resume=True, **options).count("kept") == 30


def test_without_a_prompt_nothing_is_built_and_resume_asks_again(tmp_path: Path) -> None:
    with studio(trouble=lambda asked, number: Reply(status=400)) as served:
        with pytest.raises(RunError, match="not one prompt"):
            built(tmp_path, served)
        served.trouble = lambda asked, number: None
        assert built(tmp_path, served, resume=True).count("kept") == 6


def test_a_key_that_is_not_there_is_missed_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STUDIO_KEY")
    with studio() as served, pytest.raises(ConfigError, match=r"endpoints.all.key_variable names .* not set"):
        built(tmp_path, served)
    assert served.asked == []
    assert not (tmp_path / "out").exists()
