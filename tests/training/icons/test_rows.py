"""Laws of the icon world's fresh rows."""

import numpy as np
import pytest
import torch
from tests.training.icons.tiny import VQ, PlainCodes, few_sentences

from twgi.icons import chains, tasks
from twgi.icons.chains import Chain, Drawn
from twgi.model.vqvae import VQModel
from twgi.thinking.modes import MODES
from twgi.training.icons import lm
from twgi.training.icons.lm import Mixture, RowMaker


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> RowMaker:
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        few_sentences(patch)
        text = lm.text_tokenizer(tmp_path_factory.mktemp("text"), codes=32, merges=100, seed=0)
    tokenizer = lm.make_tokenizer(VQModel(VQ), text)
    return RowMaker(tokenizer, PlainCodes(tokenizer), Mixture(direct_rows=2, chain_tokens=300), seed=1)


def chain_of(mode: str) -> Chain:
    rng = np.random.default_rng(3)
    request = tasks.TASKS["color_attr"](rng)
    scene = tasks.make_scene(request, rng)
    match mode:
        case "direct":
            return chains.direct(request, scene)
        case "subgoal":
            return chains.subgoal(request, scene)
        case "critique":
            return chains.critique(request, scene, rng, flawed_share=0.99)
    return chains.caption(scene, rng)


@pytest.mark.parametrize("mode", list(MODES))
def test_a_training_row_begins_with_the_ids_that_inference_begins_with(maker: RowMaker, mode: str) -> None:
    chain = chain_of(mode)
    row = maker.row(chain)
    ids = row.ids.tolist()
    codes = [maker.codes(scene).tolist() for scene in chain.pictures]
    start = maker.tokenizer.encode_prompt(MODES[mode].prompt_text(chain.prompt), codes)
    assert ids[: len(start)] == start
    assert not row.learn[: len(start)].any()
    assert row.learn[-1]
    assert ids[-1] == maker.tokenizer.vocab.eos


def test_a_flawed_draft_carries_no_loss_and_everything_else_of_the_response_does(maker: RowMaker) -> None:
    chain = chain_of("critique")
    row = maker.row(chain)
    silent = sum(64 + 1 for part in chain.response if isinstance(part, Drawn) and not part.learn)
    start = len(maker.prompt_ids(chain))
    assert silent > 0
    assert int((~row.learn[start:]).sum()) == silent


def test_a_response_decodes_into_its_words_and_whole_pictures(maker: RowMaker) -> None:
    chain = chain_of("subgoal")
    ids = maker.row(chain).ids.tolist()
    segments, anomalies = maker.tokenizer.decode(ids[len(maker.prompt_ids(chain)) :])
    assert not anomalies
    pictures = [codes for s in segments if (codes := maker.tokenizer.codes_of(s)) is not None]
    drawn = [part.scene for part in chain.response if isinstance(part, Drawn)]
    assert [list(p) for p in pictures] == [maker.codes(scene).tolist() for scene in drawn]


def test_the_rows_of_a_step_depend_on_seed_and_step_alone(maker: RowMaker) -> None:
    first, again, other = (RowMaker(maker.tokenizer, maker.codes, maker.mixture, seed=s).batches for s in (1, 1, 2))
    for step in (17, 3, 25):
        again(step)
    for a, b in zip(first(9), again(9), strict=True):
        assert torch.equal(a["ids"], b["ids"])
        assert torch.equal(a["labels"], b["labels"])
    assert not torch.equal(first(9)[0]["ids"][:, :10], first(10)[0]["ids"][:, :10])
    assert not torch.equal(first(9)[0]["ids"][:, :10], other(9)[0]["ids"][:, :10])


def test_codes_laid_together_are_those_of_the_encoder_where_the_encoder_is_local(maker: RowMaker) -> None:
    rng = np.random.default_rng(0)
    scenes = [tasks.make_scene(tasks.TASKS["many"](rng), rng) for _ in range(10)]
    laid = [maker.codes(scene).tolist() for scene in scenes]
    assert laid == maker.codes.encode(scenes).tolist()
