"""Laws of the losses: what carries loss, which state is compared with which code, and what a token weighs."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.tokenizer.tiny import CODES, multimodal_tokenizer
from torch import Tensor

from twgi.data.rows import TokenRow
from twgi.errors import ConfigError
from twgi.model.config import TransformerConfig
from twgi.model.transformer import Transformer
from twgi.training.batches import collate
from twgi.training.objective import (
    IGNORED,
    NO_CODE,
    PIECE_LOGITS,
    LossWeights,
    Objective,
    codes_of_ids,
    discrepancies,
    label_codes,
    reconstruction_errors,
)

TOKENIZER = multimodal_tokenizer()
VOCAB = TOKENIZER.vocab
IMAGE = TOKENIZER.image_block([code % CODES for code in range(VOCAB.tokens_per_image)])
WIDTH, HIDDEN = 4, 16
CODEBOOK = torch.randn(CODES, WIDTH, generator=torch.Generator().manual_seed(0))
ALL_TERMS = LossWeights(reconstruction=0.7, discrepancy=0.3)


def text(count: int, first: int = 0) -> list[int]:
    return list(VOCAB.text_ids[first : first + count])


def row(prompt: list[int], response: list[int]) -> TokenRow:
    ids = np.array([VOCAB.bos, *prompt, VOCAB.separator, *response, VOCAB.eos])
    return TokenRow(ids=ids, learn=np.arange(len(ids)) >= 2 + len(prompt), source="")


def batch_of(rows: list[TokenRow], longer: int = 0) -> dict[str, Any]:
    """Each row by itself, padded to the longest and `longer` beyond."""
    batch = collate([[row] for row in rows], VOCAB.pad)
    more = {"ids": VOCAB.pad, "labels": IGNORED}
    return batch | {name: torch.nn.functional.pad(batch[name], (0, longer), value=more[name]) for name in more}


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


def step(trained: Objective, batches: list[dict[str, Any]]) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one optimizer step of several batches."""
    trained.zero_grad(set_to_none=True)
    counts, total = torch.stack([trained.count(batch) for batch in batches]).sum(0), 0.0
    for batch in batches:
        loss = trained.total(trained(batch), counts)
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
        means.append((trained(batch_of([one])), trained.count(batch_of([one]))))
    terms = {name: torch.stack([t[name] for t, _ in means]).sum() for name in means[0][0]}
    alone = trained.total(terms, torch.stack([counts for _, counts in means]).sum(0))
    together, _ = step(trained, [batch_of(ROWS)])
    assert together == pytest.approx(alone.item(), rel=1e-5)


def test_one_batch_of_four_is_four_batches_of_one() -> None:
    trained = objective()
    assert_same(step(trained, [batch_of(ROWS)]), step(trained, [batch_of([one]) for one in ROWS]))


def test_padding_and_recomputation_change_nothing() -> None:
    trained = objective()
    plain = step(trained, [batch_of(ROWS)])
    assert_same(plain, step(trained, [batch_of(ROWS, longer=40)]))
    trained.decoder.recompute = True
    assert_same(plain, step(trained, [batch_of(ROWS)]))


def test_logits_made_piece_by_piece_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, batch = objective(), weighted(batch_of(ROWS))
    whole = step(trained, [batch])
    monkeypatch.setitem(PIECE_LOGITS, "cpu", 7 * VOCAB.size)
    assert_same(whole, step(trained, [batch]))
    monkeypatch.setattr("twgi.training.objective.KEPT_LOGITS", 0)
    assert_same(whole, step(trained, [batch]))


def weighted(batch: dict[str, Any]) -> dict[str, Any]:
    """With a weight for each label, some of them negative."""
    weights = torch.randn(batch["labels"].shape, generator=torch.Generator().manual_seed(2))
    return batch | {"weights": weights}


def test_a_label_weighs_one_or_what_it_is_given() -> None:
    trained, plain = objective(), batch_of(ROWS)
    ones = plain | {"weights": torch.ones(plain["labels"].shape)}
    assert_equal(step(trained, [plain]), step(trained, [ones]))
    batch, terms = weighted(plain), trained(plain)
    alone = []
    for place in (plain["labels"][:, 1:] != IGNORED).nonzero().tolist():
        labels = torch.full_like(plain["labels"], IGNORED)
        at = (place[0], place[1] + 1)
        labels[at] = plain["labels"][at]
        lost = trained(plain | {"labels": labels})
        alone.append(batch["weights"][at] * (lost["text_ce"] + lost["image_ce"]))
    found = trained(batch)
    torch.testing.assert_close(found["text_ce"] + found["image_ce"], torch.stack(alone).sum(), rtol=1e-4, atol=1e-4)
    for name in ("reconstruction", "discrepancy"):
        assert found[name].equal(terms[name]), "what is not cross entropy has no such weights"


def assert_equal(one: tuple[float, dict[str, Tensor]], other: tuple[float, dict[str, Tensor]]) -> None:
    """To the bit."""
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    assert all(grad.equal(other[1][name]) for name, grad in one[1].items())


def test_pictures_of_the_prompt_carry_no_loss() -> None:
    trained = objective()
    batch = batch_of([ROWS[1]])
    terms = trained(batch)
    assert trained.count(batch)[1] == 0
    assert terms["image_ce"] == terms["reconstruction"] == terms["discrepancy"] == 0
    _, gradients = step(trained, [batch])
    assert gradients["projection.weight"].abs().max() == 0
    assert all(torch.isfinite(grad).all() for grad in gradients.values())


def test_each_term_reaches_the_model_and_the_projection() -> None:
    for weights in (LossWeights(), LossWeights(target="same")):
        _, gradients = step(objective(weights), [batch_of(ROWS)])
        assert all(grad.abs().max() > 0 for grad in gradients.values())
    plain = step(objective(LossWeights(reconstruction=0)), [batch_of(ROWS)])
    assert "projection.weight" not in plain[1]
    for weights in (LossWeights(), LossWeights(reconstruction=0, discrepancy=1)):
        changed = step(objective(weights), [batch_of(ROWS)])
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
