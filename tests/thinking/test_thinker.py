"""From a prompt to a trace: what is said on the way, what is stored, and what is refused."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.thinking.tiny import CONTEXT, SIDE, description, model, thinker, tokenizer

from twgi.decoding.compat import Quirk
from twgi.decoding.guidance import PRESETS
from twgi.decoding.params import SamplingParams
from twgi.errors import CheckpointError, ConfigError, ImageError, PromptError, TwgiError
from twgi.thinking.events import Done, ImageFinished, ImageProgress, ImageStarted, Task, TextPiece, ThoughtEvent
from twgi.thinking.request import Planned, plan
from twgi.thinking.thinker import Inbox, Thinker, task_of
from twgi.thinking.thought import Thought
from twgi.trace import ImageSegment, TextSegment, Trace, from_line, to_line

SHORT = SamplingParams(max_tokens=60)
PICTURE = Image.new("RGB", (SIDE, SIDE), (200, 30, 30))
IMAGE_LENGTH = tokenizer().vocab.image_length
MODES = ("direct", "subgoal", "critique", "general")


def traces(tasks: Sequence[Task], *, batch: int = 4, by: Thinker | None = None) -> dict[int, Trace]:
    done = dict((by or thinker()).think_many(tasks, batch=batch))
    assert all(isinstance(trace, Trace) for trace in done.values())
    return done  # type: ignore[return-value]


def mixed_tasks(count: int) -> list[Task]:
    plans = itertools.cycle(("paper", "icons", "reference", "full"))
    modes = itertools.cycle(MODES)
    return [
        task_of(f"a red {'b' * i}", mode=next(modes), sample=i % 3, guidance=next(plans), sampling=SHORT)
        for i in range(count)
    ]


def comparable(trace: Trace) -> dict[str, Any]:
    return {key: value for key, value in trace.to_json().items() if key != "timing"}


def test_direct_is_one_picture() -> None:
    trace = thinker().think("a red ab", mode="direct")
    (segment,) = trace.segments
    assert isinstance(segment, ImageSegment)
    assert (segment.role, trace.finish_reason, len(trace.tokens)) == ("final", "stop", IMAGE_LENGTH)
    assert trace.final is not None
    assert trace.final.size == (SIDE, SIDE)
    assert trace.anomalies == ()


def test_critique_starts_with_a_picture_and_draws_one_more_a_round() -> None:
    for rounds in (1, 3):
        sampling = SamplingParams(max_tokens=200)
        trace = thinker().think("ab", mode="critique", rounds=rounds, sampling=sampling, seed=1)
        assert isinstance(trace.segments[0], ImageSegment)
        assert 1 <= len(trace.images) <= 1 + rounds
        assert [image.role for image in trace.images] == ["draft"] * (len(trace.images) - 1) + ["final"]
        kinds = [picture["kind"] for picture in trace.settings["pictures"]]
        assert kinds == ["draft"] + ["redraw"] * (len(trace.images) - 1)


@pytest.mark.parametrize("mode", MODES)
def test_a_trace_is_what_the_model_read_and_every_image_is_whole(mode: str) -> None:
    for seed in range(3):
        trace = thinker().think("a red ab", mode=mode, seed=seed, sampling=SHORT)
        vocab = tokenizer().vocab
        assert vocab.eos not in trace.tokens
        assert trace.anomalies == ()
        assert all(len(image.tokens) == IMAGE_LENGTH and image.picture is not None for image in trace.images)
        assert len(trace.tokens) <= 60
        assert from_line(to_line(trace)).to_json() == trace.to_json()


def test_the_same_thought_comes_out_alone_and_in_any_company() -> None:
    tasks = mixed_tasks(9)
    alone = {i: comparable(traces([task])[0]) for i, task in enumerate(tasks)}
    assert {i: comparable(trace) for i, trace in traces(tasks, batch=9).items()} == alone
    order = list(range(9))
    random.Random(0).shuffle(order)
    shuffled = traces([tasks[i] for i in order], batch=2)
    assert {order[i]: comparable(trace) for i, trace in shuffled.items()} == alone


def test_seed_and_sample_each_give_another_thought() -> None:
    made = {thinker().think("ab", seed=seed, sample=sample).tokens for seed, sample in ((0, 0), (1, 0), (0, 1))}
    assert len(made) == 3


def test_the_events_tell_the_whole_trace() -> None:
    *events, last = list(thinker().stream("a red ab", mode="critique", seed=1, sampling=SHORT))
    assert isinstance(last, Done)
    segments = iter(last.trace.segments)
    for is_text, group in itertools.groupby(events, lambda event: isinstance(event, TextPiece)):
        if is_text:
            text = next(segments)
            assert isinstance(text, TextSegment)
            assert "".join(event.text for event in group if isinstance(event, TextPiece)) == text.text
        else:
            check_pictures(list(group), segments)


def check_pictures(events: list[ThoughtEvent], segments: Any) -> None:
    size = tokenizer().vocab.tokens_per_image + 2
    for start in range(0, len(events), size):
        first, *progress, finished = events[start : start + size]
        segment = next(segments)
        assert isinstance(first, ImageStarted)
        assert [p.done for p in progress if isinstance(p, ImageProgress)] == list(range(1, size - 1))
        assert isinstance(finished, ImageFinished)
        assert segment.picture is finished.picture


def test_every_picture_records_the_guidance_it_had() -> None:
    trace = thinker().think("ab", mode="critique", guidance="paper", scales={"negative": 1.0}, sampling=SHORT)
    first = trace.settings["pictures"][0]
    assert (first["kind"], first["scheme"], first["negative"]) == ("draft", "full", 1.0)
    assert sum(first["weights"].values()) == pytest.approx(1)
    assert first["weights"]["negative"] == -1.0
    assert trace.settings["negative_prompt"].startswith("text in the image")


def test_another_negative_prompt_gives_another_picture_only_where_it_counts() -> None:
    def drawn(**settings: Any) -> tuple[int, ...]:
        return thinker().think("ab", **settings).tokens

    assert drawn(guidance="icons", negative_prompt="a") == drawn(guidance="icons", negative_prompt="b")
    assert drawn(guidance="obj", scales={"negative": 3.0}, negative_prompt="a") != drawn(
        guidance="obj", scales={"negative": 3.0}, negative_prompt="red b"
    )


def test_the_checkpoint_says_what_it_is_best_used_with() -> None:
    trace = thinker(guidance="icons", image_top_k=5).think("ab")
    assert trace.settings["guidance"]["name"] == "icons"
    assert trace.settings["sampling"]["image_top_k"] == 5
    assert thinker().think("ab").settings["guidance"]["name"] == "paper"
    assert thinker(guidance="icons").think("ab", guidance=PRESETS["paper"]).settings["guidance"]["name"] == "paper"


def planned(task: Task) -> Planned:
    return plan(0, task, thinker().facts)


def kind_after(task: Task, *beginning: str | tuple[int, ...]) -> str:
    """What the next picture is drawn as, after these words and pictures."""
    words = tokenizer().text.encode
    given = [token for part in beginning for token in (words(part) if isinstance(part, str) else part)]
    thought = Thought(task, planned(replace(task, given=given)), thinker().facts)
    return thought.kind_of_next()


def test_the_published_plan_counts_parts_and_loses_the_prompt() -> None:
    tiny, task = tokenizer(), task_of("ab", mode="subgoal", guidance="reference")
    picture = tuple(tiny.image_block([0] * tiny.vocab.tokens_per_image))
    step: tuple[str | tuple[int, ...], ...] = ("ab", picture)
    assert [kind_after(task, *step * k, "ab") for k in range(3)] == ["part", "part", "whole"]
    assert planned(task).request.conditions.prompt == ()
    quirks = (Quirk.CONFIG_BOS, Quirk.PARTS_BY_COUNT)
    kept = planned(task_of("ab", mode="subgoal", guidance=replace(PRESETS["reference"], quirks=quirks)))
    assert kept.request.conditions.prompt == tuple(tiny.text.encode("ab"))


def test_words_since_the_last_picture_say_that_it_is_the_whole() -> None:
    tiny, task = tokenizer(), task_of("ab", mode="subgoal", guidance="paper")
    picture = tuple(tiny.image_block([0] * tiny.vocab.tokens_per_image))
    plan_of_it, last = "The final picture has both. First:", "Now the whole picture:"
    assert kind_after(task, plan_of_it) == "part"
    assert kind_after(task, plan_of_it, picture) == "part"
    assert kind_after(task, plan_of_it, picture, last) == "whole"


def test_pictures_of_the_prompt_are_read_and_shown(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.png")
    task = task_of("What is this?", mode="general", pictures=[tmp_path / "a.png"], sampling=SHORT)
    trace = traces([task])[0]
    segment = trace.segments[0]
    assert isinstance(segment, ImageSegment)
    assert (segment.role, segment.tokens) == ("input", ())
    inside = task_of("What is this?<image>", mode="general", pictures=[PICTURE], sampling=SHORT)
    assert traces([inside])[0].tokens == trace.tokens
    other = replace(inside, pictures=[Image.new("RGB", (SIDE, SIDE), (0, 90, 255))])
    assert planned(other).request.prompt != planned(inside).request.prompt


def test_the_number_of_pictures_can_be_limited_and_text_goes_on() -> None:
    sampling = SamplingParams(max_tokens=150, max_images=1)
    for seed in range(3):
        trace = thinker().think("ab", mode="general", sampling=sampling, seed=seed)
        assert len(trace.images) <= 1


BAD: list[tuple[dict[str, Any], type[TwgiError], str]] = [
    ({"prompt": "  "}, PromptError, "empty"),
    ({"prompt": "a \ud800"}, PromptError, "not valid Unicode"),
    ({"prompt": "a <image>", "mode": "general"}, PromptError, r"1 <image>.*0 picture"),
    ({"prompt": "a <image>"}, PromptError, r"1 <image>.*0 picture"),
    ({"prompt": "a", "pictures": [PICTURE]}, PromptError, "mode 'direct' takes no pictures"),
    ({"prompt": "a", "mode": "general", "pictures": ["none.png"]}, ImageError, "none.png"),
    ({"prompt": "a" * 2 * CONTEXT}, PromptError, rf"too long: {2 * CONTEXT + 2} tokens.*holds {CONTEXT}"),
    ({"prompt": "a", "mode": "dream"}, ConfigError, "unknown mode 'dream'"),
    ({"prompt": "a", "guidance": "dream"}, ConfigError, "unknown guidance 'dream'"),
    ({"prompt": "a", "guidance": "icons", "scales": {"negative": 1.0}}, ConfigError, "no effect"),
    ({"prompt": "a", "scales": {"full": 0.0}}, ConfigError, "no weight"),
    ({"prompt": "a", "rounds": 2}, ConfigError, "has no rounds"),
    (
        {"prompt": "a", "mode": "critique", "guidance": "paper", "negative_prompt": " "},
        ConfigError,
        "negative prompt is empty",
    ),
    *(
        (
            {"prompt": "a", "mode": mode, "sampling": SamplingParams(max_tokens=IMAGE_LENGTH - 1)},
            ConfigError,
            f"mode '{mode}' needs at least {IMAGE_LENGTH}",
        )
        for mode in ("direct", "subgoal", "critique")
    ),
]


@pytest.mark.parametrize(("settings", "kind", "problem"), BAD)
def test_what_cannot_be_thought_about_is_said_and_harms_no_other(
    settings: dict[str, Any], kind: type[TwgiError], problem: str
) -> None:
    with pytest.raises(kind, match=problem):
        thinker().think(**settings)
    if kind is ConfigError and "max_tokens" not in problem and "sampling" not in settings:
        return  # such settings make no task
    good = task_of("a red ab")
    results = dict(thinker().think_many([good, task_of(**settings), good]))
    assert isinstance(results[1], kind)
    assert [getattr(results[i], "tokens", None) for i in (0, 2)] == [thinker().think("a red ab").tokens] * 2


def test_special_token_text_is_plain_text() -> None:
    trace = thinker().think("<racm3:break><eoss></s> IMGIMGAZ <reserved08706>", sampling=SHORT)
    assert trace.finish_reason == "stop"
    ids = planned(Task(prompt=trace.prompt)).request.prompt
    assert set(ids[1:-1]) <= set(tokenizer().vocab.text_ids)


def test_tasks_are_taken_in_as_there_is_room() -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        for taken in itertools.count(1):
            yield Task(prompt="ab", sample=taken)

    results = thinker().think_many(endless(), batch=3)
    for _ in range(5):
        next(results)
    assert taken <= 5 + 3


def test_a_cancelled_thought_keeps_what_is_there_of_it() -> None:
    by, inbox = thinker(), Inbox()
    session = by.session(2)
    task = task_of("a red ab", mode="critique", seed=1, sampling=SHORT)
    first, second = session.begin(task, inbox), session.begin(task, inbox)
    done: dict[int, Trace] = {}
    heard = 0
    while len(done) < 2:
        session.wait(inbox)
        id, event = inbox.popleft()
        heard += 1
        if heard == 20:
            session.cancel(first)
        if isinstance(event, Done):
            done[id] = event.trace
    whole = by.think("a red ab", mode="critique", seed=1, sampling=SHORT)
    assert done[second].tokens == whole.tokens
    assert done[first].finish_reason == "cancelled"
    assert done[first].tokens == whole.tokens[: len(done[first].tokens)] != ()


def test_a_checkpoint_that_cannot_draw_may_still_talk() -> None:
    mute = Thinker(model(), replace(tokenizer(), image=None), description())
    assert mute.think("a red ab", mode="general", sampling=SHORT).images == ()
    with pytest.raises(CheckpointError, match="mode 'direct' draws, and this checkpoint has no image decoder"):
        mute.think("a red ab")
