"""What a thought costs, by arithmetic: equal to what the engine really runs."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import save_tiny
from torch import Tensor

import twgi
from twgi.checkpoint.layout import Checkpoint, open_checkpoint
from twgi.checkpoint.memory import kv_bytes_per_token, sizes, weight_bytes
from twgi.decoding.scheduler import Batch
from twgi.errors import ConfigError
from twgi.thinking.budget import SHAPES, Shape, gpu_named, plan_of, request_of, steps


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(save_tiny(tmp_path_factory.mktemp("checkpoint") / "tiny"))


def test_the_steps_of_a_thought_are_those_that_run(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and their lengths, step by step, as the model itself reads them."""
    monkeypatch.setitem(SHAPES, "direct", Shape(prompt=3, words=0, pictures=1))
    thinker = twgi.load(checkpoint.folder)
    thinker.session(1).engine.scheduler.window = 1
    ran: list[list[int]] = []
    runner = thinker.session(1).engine.runner
    run = runner.run

    def counted(batch: Batch) -> Tensor:
        ran.append([len(row.ids) for row, _ in batch.pieces])
        return run(batch)

    monkeypatch.setattr(runner, "run", counted)
    thinker.think("ab", mode="direct", guidance="paper")
    assert list(steps(request_of(checkpoint, "direct", "paper", 400), "direct")) == ran


def test_one_picture_costs_its_tokens(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "direct", Shape(prompt=10, words=0, pictures=1))
    plan = plan_of(checkpoint, gpu=gpu_named("1@1"), dtype=torch.float32, int8=False, guidance="paper", context=400)
    told = plan["modes"][0]
    per_token, counts = kv_bytes_per_token(checkpoint.config, torch.float32), sizes(checkpoint)
    tokens = checkpoint.vocab.tokens_per_image
    cached = [(10 + n) + n for n in range(1, tokens + 1)]  # the full and the unconditional row
    assert (told["steps"], told["rows"], told["peak"]) == (tokens, 2, cached[-1] * per_token)
    assert told["reserved"] == (416 + 32) * per_token  # the full row, and a page for the unconditional one
    read = tokens * 4 * (counts.body + counts.head) + sum(cached) * per_token
    assert told["chain_s"][0] == pytest.approx(read / 1e12)
    assert told["step_ms"] == pytest.approx(1000 * read / 1e12 / tokens)


def test_chains_that_do_not_fit_are_none(checkpoint: Checkpoint) -> None:
    def chains(gpu: str, context: int) -> list[int]:
        plan = plan_of(
            checkpoint, gpu=gpu_named(gpu), dtype=torch.float32, int8=False, guidance="paper", context=context
        )
        assert plan["weights"] == weight_bytes(sizes(checkpoint), torch.float32, int8=False)
        return [mode["chains"] for mode in plan["modes"]]

    assert min(chains("80@3", 9000)) > 0
    assert chains("1.5@3", 9000) == [0, 0, 0, 0]
    assert chains("80@3", 400)[1:] == [0, 0, 0]  # their example rows are longer than that


@pytest.mark.parametrize("name", ["h1000", "80", "80@x", "0@1", "80@-1"])
def test_an_unknown_gpu_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match="GPU"):
        gpu_named(name)
