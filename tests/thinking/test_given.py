"""A thought can go on from what is given, as if it had thought that itself."""

from collections.abc import Sequence

import pytest
from tests.thinking.tiny import thinker

from twgi.errors import PromptError
from twgi.thinking.thinker import Thinker
from twgi.trace import Trace

MODES = ["critique", "subgoal", "general"]


def thought(model: Thinker, mode: str, *, seed: int = 5, given: Sequence[int] = ()) -> Trace:
    return model.think("a red cat", mode=mode, seed=seed, given=given)


@pytest.mark.parametrize("mode", MODES)
def test_going_on_from_any_part_of_a_thought_is_that_thought(mode: str) -> None:
    model = thinker()
    whole = next(trace for seed in range(40) if (trace := thought(model, mode, seed=seed)).images)
    eoi = model.tokenizer.vocab.eoi
    ends = [i + 1 for i, token in enumerate(whole.tokens) if token == eoi]
    for length in {0, 1, ends[0] - 3, ends[0]}:
        again = thought(model, mode, seed=whole.seed, given=whole.tokens[:length])
        assert again.segments == whole.segments
        assert again.settings == whole.settings
        assert [i.picture.tobytes() for i in again.images if i.picture] == [
            i.picture.tobytes() for i in whole.images if i.picture
        ]


def test_another_beginning_is_kept_and_gone_on_from() -> None:
    model = thinker()
    first, other = thought(model, "critique"), model.think("two dogs", mode="critique", seed=6)
    given = other.tokens[: model.tokenizer.vocab.image_length]
    changed = thought(model, "critique", given=given)
    assert changed.tokens[: len(given)] == given
    assert changed.tokens != first.tokens


@pytest.mark.parametrize("wrong", ["an image token in text", "no boi", "over"])
def test_what_the_grammar_does_not_allow_is_refused(wrong: str) -> None:
    model = thinker()
    vocab = model.tokenizer.vocab
    image = min(vocab.image_ids)
    whole = (vocab.boi, *[image] * vocab.tokens_per_image, vocab.eoi)
    given = {"an image token in text": (*whole, image), "no boi": (image,), "over": (*whole, vocab.eos)}[wrong]
    with pytest.raises(PromptError, match="go on"):
        thought(model, "critique", given=given)
