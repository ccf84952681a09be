"""What the engine refuses, and what fails alone."""

from dataclasses import replace

import pytest
from tests.decoding.test_engine import GUIDANCES, PROMPTS
from tests.decoding.worlds import VOCAB, decode, events_of, request, room, tiny_model, tokens_of

from twgi.decoding.engine import Engine
from twgi.decoding.events import Failed
from twgi.errors import ConfigError, PromptError
from twgi.model.transformer import Transformer


def test_what_can_never_run_is_refused_before_anything_runs() -> None:
    engine = Engine(tiny_model(), VOCAB, tokens=160)
    with pytest.raises(PromptError, match="36 prompt tokens and 130 more exceed the context of 160"):
        engine.submit(request(prompt=PROMPTS[4], budget=130))
    with pytest.raises(PromptError, match="at least one token"):
        engine.submit(request(prompt=()))
    long = replace(request(guidances=GUIDANCES[3]).conditions, negative=tuple(range(26, 46)) * 9)
    with pytest.raises(PromptError, match="a row of guidance of 190 tokens exceeds the context of 160"):
        engine.submit(replace(request(guidances=GUIDANCES[3]), conditions=long))
    with pytest.raises(ConfigError, match="needs 256 positions of the cache, and there are 160"):
        engine.submit(request(guidances=GUIDANCES[3]))
    with pytest.raises(ConfigError, match="needs guidance"):
        engine.submit(request(guidances=()))
    with pytest.raises(PromptError, match="cannot go on from token 9"):
        engine.submit(replace(request(), given=(9,)))
    assert not engine.busy


def test_a_sequence_whose_logits_are_no_numbers_fails_alone_and_leaves_nothing() -> None:
    model = Transformer(tiny_model().config).eval().requires_grad_(False)
    model.load_state_dict(tiny_model().state_dict())
    model.embed.weight[33] = float("nan")
    model.pack()
    good, bad = request(0, prompt=PROMPTS[0], starts_with_image=True), request(1, prompt=PROMPTS[1])
    engine = Engine(model, VOCAB, tokens=room([good, bad]) * 2)
    events = events_of(engine, [good, bad])
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert (failed.id, "not finite" in failed.problem) == (1, True)
    assert tokens_of(events)[0] == decode([good])[0]
    model.embed.weight[33] = tiny_model().embed.weight[33]
    again = replace(bad, id=2)
    assert tokens_of(events_of(engine, [again])) == decode([again])
