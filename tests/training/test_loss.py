"""Laws of the losses: what carries loss, which state is compared with which code, and what a token weighs."""

from dataclasses import replace

import pytest
import torch
from tests.tokenizer.tiny import CODES, multimodal_tokenizer
from torch import Tensor

from twgi.errors import ConfigError
from twgi.model.config import TransformerConfig
from twgi.model.transformer import Transformer
from twgi.training.loss import (
    IGNORED,
    NO_CODE,
    LossWeights,
    codes_of_ids,
    discrepancies,
    label_codes,
    reconstruction_errors,
)
from twgi.training.objective import PIECE_LOGITS, Counts, Objective
from twgi.training.rows import Row, pad

TOKENIZER = multimodal_tokenizer()
VOCAB = TOKENIZER.vocab
IMAGE = TOKENIZER.image_block([code % CODES for code in range(VOCAB.tokens_per_image)])
WIDTH, HIDDEN = 4, 16
CODEBOOK = torch.randn(CODES, WIDTH, generator=torch.Generator().manual_seed(0))
ALL_TERMS = LossWeights(reconstruction=0.7, discrepancy=0.3)


def text(count: int, first: int = 0) -> list[int]:
    return list(VOCAB.text_ids[first : first + count])


def row(prompt: list[int], response: list[int]) -> Row:
    ids = [VOCAB.bos, *prompt, VOCAB.separator]
    return [*ids, *response, VOCAB.eos], [IGNORED] * len(ids) + [*response, VOCAB.eos]


def objective(weights: LossWeights = ALL_TERMS, seed: int = 0) -> Objective:
    torch.manual_seed(seed)
    config = TransformerConfig(
        vocab_size=VOCAB.size, hidden_size=HIDDEN, intermediate_size=24, num_layers=2, num_heads=2, num_kv_heads=1,
        max_positions=128,
    )  # fmt: skip
    model = Transformer(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return Objective(model, CODEBOOK, VOCAB, weights)


def step(trained: Objective, batches: list[dict[str, Tensor]]) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one optimizer step of several batches."""
    trained.zero_grad(set_to_none=True)
    text_count, image_count = torch.stack([trained.count(batch["labels"]) for batch in batches]).sum(0).tolist()
    counts, total = Counts(text=text_count, image=image_count), 0.0
    for batch in batches:
        loss = trained.total(trained(batch["ids"], batch["labels"], batch.get("documents")), counts)
        loss.backward()
        total += loss.item()
    return total, {n: p.grad.clone() for n, p in trained.named_parameters() if p.grad is not None}


def assert_same(one: tuple[float, dict[str, Tensor]], other: tuple[float, dict[str, Tensor]]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert one[1].keys() == other[1].keys()
    for name, grad in one[1].items():
        torch.testing.assert_close(grad, other[1][name], rtol=1e-4, atol=1e-6)


ROWS = [
    row(text(3), [*text(2), *IMAGE, *text(4)]),
    row([*text(2), *IMAGE], text(9)),
    row(text(7), [*IMAGE, *IMAGE]),
    row(text(1), text(1)),
]


def test_a_batch_of_unequal_lengths_weighs_every_real_target_alike() -> None:
    trained = objective()
    means = []
    for one in ROWS:
        batch = pad([one], VOCAB.pad)
        counts = trained.count(batch["labels"])
        means.append((trained(batch["ids"], batch["labels"]), counts))
    terms = {name: torch.stack([t[name] for t, _ in means]).sum() for name in means[0][0]}
    text_count, image_count = torch.stack([counts for _, counts in means]).sum(0).tolist()
    alone = trained.total(terms, Counts(text=text_count, image=image_count))
    together, _ = step(trained, [pad(ROWS, VOCAB.pad)])
    assert together == pytest.approx(alone.item(), rel=1e-5)


def test_one_batch_of_four_is_four_batches_of_one() -> None:
    trained = objective()
    assert_same(step(trained, [pad(ROWS, VOCAB.pad)]), step(trained, [pad([one], VOCAB.pad) for one in ROWS]))


def test_padding_and_recomputation_change_nothing() -> None:
    trained = objective()
    plain = step(trained, [pad(ROWS, VOCAB.pad, multiple=1)])
    assert_same(plain, step(trained, [pad(ROWS, VOCAB.pad, multiple=64)]))
    trained.decoder.recompute = True
    assert_same(plain, step(trained, [pad(ROWS, VOCAB.pad, multiple=1)]))


def test_logits_made_piece_by_piece_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, batch = objective(), pad(ROWS, VOCAB.pad)
    whole = step(trained, [batch])
    monkeypatch.setitem(PIECE_LOGITS, "cpu", 7 * VOCAB.size)
    assert_same(whole, step(trained, [batch]))
    monkeypatch.setattr("twgi.training.objective.KEPT_LOGITS", 0)
    assert_same(whole, step(trained, [batch]))


def test_pictures_of_the_prompt_carry_no_loss() -> None:
    trained = objective()
    batch = pad([ROWS[1]], VOCAB.pad)
    terms = trained(batch["ids"], batch["labels"])
    assert trained.count(batch["labels"])[1] == 0
    assert terms["image_ce"] == terms["reconstruction"] == terms["discrepancy"] == 0
    _, gradients = step(trained, [batch])
    assert gradients["projection.weight"].abs().max() == 0
    assert all(torch.isfinite(grad).all() for grad in gradients.values())


def test_each_term_reaches_the_model_and_the_projection() -> None:
    for weights in (LossWeights(), LossWeights(target="same")):
        _, gradients = step(objective(weights), [pad(ROWS, VOCAB.pad)])
        assert all(grad.abs().max() > 0 for grad in gradients.values())
    plain = step(objective(LossWeights(reconstruction=0)), [pad(ROWS, VOCAB.pad)])
    assert "projection.weight" not in plain[1]
    for weights in (LossWeights(), LossWeights(reconstruction=0, discrepancy=1)):
        changed = step(objective(weights), [pad(ROWS, VOCAB.pad)])
        assert not torch.allclose(changed[1]["decoder.embed.weight"], plain[1]["decoder.embed.weight"])


def test_the_state_before_a_token_or_the_one_at_it_is_compared_with_its_code() -> None:
    labels = torch.tensor([[IGNORED, IGNORED, *IMAGE]])
    codes = label_codes(labels, codes_of_ids(VOCAB))
    hidden = torch.arange(labels.shape[1], dtype=torch.float32)[None, :, None].expand(-1, -1, WIDTH)
    vectors = CODEBOOK[[VOCAB.code(token) for token in IMAGE[1:-1]]]
    places = torch.arange(3, 3 + VOCAB.tokens_per_image)[:, None]
    for target, shift in (("same", 0), ("next", 1)):
        errors = reconstruction_errors(hidden, codes, torch.nn.Identity(), CODEBOOK, target)
        torch.testing.assert_close(errors, (places - shift - vectors).square().mean(-1))


def test_codes_go_by_name_and_by_place_only_if_asked() -> None:
    by_name, by_place = codes_of_ids(VOCAB), codes_of_ids(VOCAB, "id")
    assert [int(by_name[token]) for token in VOCAB.image_tokens] == list(range(CODES))
    assert [int(by_place[token]) for token in sorted(VOCAB.image_tokens)] == list(range(CODES))
    assert not by_name.equal(by_place)
    assert (by_name == NO_CODE).equal(by_place == NO_CODE)


def test_discrepancy_is_the_expected_distance_of_what_would_be_drawn() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, VOCAB.size, generator=generator)
    ids, true = torch.tensor(VOCAB.image_tokens), [5, 0, CODES - 1]
    got = discrepancies(logits, torch.tensor(true), ids, CODEBOOK)
    for number, code in enumerate(true):
        chances = logits[number, ids].softmax(0).tolist()
        distances = [(CODEBOOK[k] - CODEBOOK[code]).square().mean().item() for k in range(CODES)]
        assert got[number].item() == pytest.approx(
            sum(p * d for p, d in zip(chances, distances, strict=True)), rel=1e-4
        )
    sure = torch.full((1, VOCAB.size), -50.0)
    sure[0, VOCAB.token(3)] = 50.0
    assert discrepancies(sure, torch.tensor([3]), ids, CODEBOOK).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("wrong", [{"reconstruction": -1.0}, {"target": "before"}, {"table": "x"}])
def test_weights_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        replace(LossWeights(), **wrong)  # type: ignore[arg-type]
