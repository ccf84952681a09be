"""What a run scores: the last picture counts, a failed thought is wrong, a missing one makes the score partial."""

from PIL import Image

from twgi.evaluation.geneval import IconDetector, Item
from twgi.evaluation.score import NO_PICTURE, Scores, score, table
from twgi.icons import world
from twgi.trace import Anomaly, ImageSegment, ModelId, Trace

ITEMS = [
    Item.from_json(
        {"tag": "single_object", "prompt": "a photo of a cat", "include": [{"class": "cat", "count": 1}]}, 0
    ),
    Item.from_json(
        {"tag": "colors", "prompt": "red dog", "include": [{"class": "dog", "count": 1, "color": "red"}]}, 1
    ),
]


def drawn(name: str, color: str = "red") -> Image.Image:
    return world.render(world.Scene((world.Placed(name, color, 1, 1),)))


def thought(prompt: str, *pictures: Image.Image | None, sample: int = 0, anomalies: tuple[Anomaly, ...] = ()) -> Trace:
    segments = tuple(ImageSegment(tokens=(1,), picture=picture) for picture in pictures)
    return Trace(
        prompt=prompt,
        mode="critique",
        seed=0,
        sample=sample,
        model=ModelId(name="m", sha256="0"),
        finish_reason="stop",
        segments=segments,
        anomalies=anomalies,
    )


def scored(*traces: Trace, samples: int = 1, failed: tuple[tuple[int, int], ...] = ()) -> Scores:
    place = {item.prompt: item.index for item in ITEMS}
    thoughts: dict[tuple[int, int], Trace | None] = {(place[trace.prompt], trace.sample): trace for trace in traces}
    return score(ITEMS, samples, thoughts | dict.fromkeys(failed), IconDetector())


CAT, DOG = thought("a photo of a cat", drawn("cat")), thought("red dog", drawn("dog"))


def test_a_task_scores_the_share_of_its_right_pictures() -> None:
    other = thought("a photo of a cat", drawn("horse"), sample=1)
    blue = thought("red dog", drawn("dog", "blue"), sample=1)
    scores = scored(CAT, other, DOG, blue, samples=2)
    assert scores.tasks() == {"single_object": 0.5, "colors": 0.5}
    assert scores.to_json()["correct_prompts"] == 1.0
    assert not scores.partial


def test_the_last_picture_counts_and_the_first_is_scored_beside_it() -> None:
    scores = scored(thought("a photo of a cat", drawn("horse"), drawn("cat")), thought("red dog", drawn("dog"), None))
    assert scores.tasks() == {"single_object": 1.0, "colors": 0.0}
    assert scores.tasks("first") == {"single_object": 0.0, "colors": 1.0}
    assert scores.rows[0].to_json()["each"] == [False, True]


def test_a_thought_without_a_whole_last_picture_is_wrong() -> None:
    scores = scored(thought("a photo of a cat"), thought("red dog", None))
    assert [row.final for row in scores.rows] == [NO_PICTURE, NO_PICTURE]


def test_a_failed_thought_is_wrong_and_not_missing() -> None:
    scores = scored(CAT, failed=((1, 0),))
    assert scores.tasks() == {"single_object": 1.0, "colors": 0.0}
    assert not scores.partial
    assert scores.to_json()["finish_reasons"] == {"stop": 1, "failed": 1}


def test_a_missing_thought_makes_the_score_partial() -> None:
    scores = scored(CAT, DOG, samples=2)
    assert scores.to_json()["partial"] == "2/4"
    assert "PARTIAL 2/4" in table(scores.to_json())
    assert "PARTIAL" not in table(scored(CAT, DOG).to_json())


def test_a_well_formed_thought_has_whole_images_in_order() -> None:
    odd = Anomaly(position=3, kind="short image", detail="")
    assert scored(CAT, DOG).well_formed == 1.0
    assert scored(CAT, thought("red dog", drawn("dog"), anomalies=(odd,))).well_formed == 0.5
    assert scored(thought("a photo of a cat"), thought("red dog", None, drawn("dog"))).well_formed == 0.0


def test_nothing_scores_nothing() -> None:
    empty = scored().to_json()
    assert (empty["overall"], empty["partial"], empty["tasks"]) == (0.0, "0/2", {})
    assert table(empty)
