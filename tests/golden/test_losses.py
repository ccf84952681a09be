"""Case (g): losses and gradients of the published trainer, and of what was evidently meant (the folder's README)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from twgi.checkpoint import hf
from twgi.checkpoint.load import Loaded, load
from twgi.data.rows import TokenRow
from twgi.training.batches import collate
from twgi.training.objective import LossWeights, Objective, as_published

LOSS, NORM = 1e-4, 1e-3  # relative
MEANT = LossWeights()
REFERENCE = as_published(MEANT)  # what the published trainer computes
NO_PADDING = replace(REFERENCE, padding_carries_loss=False)
VARIANTS = {
    "padding_ignored": NO_PADDING,
    "padding_ignored_and_states_shifted": replace(NO_PADDING, target="next"),
    "padding_ignored_and_table_by_codebook_index": replace(NO_PADDING, table="name"),
    "padding_ignored_states_shifted_and_table_by_codebook_index": MEANT,
}
PROJECTION = "loss_net.states_to_hidden."
TOGETHER = "all language-model parameters together"


@pytest.fixture(scope="module")
def loaded(golden: Path) -> Loaded:
    return load(golden / "checkpoint_fork")


@pytest.fixture(scope="module")
def case(cases: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = cases["g"]
    return value


def batch_of(chains: list[list[int]], loaded: Loaded, weights: LossWeights) -> dict[str, Any]:
    """Loss on what follows the separator."""
    starts = [chain.index(loaded.tokenizer.vocab.separator) + 1 for chain in chains]
    rows = [
        TokenRow(ids=np.array(ids), learn=np.arange(len(ids)) >= n, source="")
        for ids, n in zip(chains, starts, strict=True)
    ]
    return collate([[row] for row in rows], loaded.tokenizer.vocab.pad, weights.padding_carries_loss)


def objective_of(loaded: Loaded, arrays: dict[str, Tensor], weights: LossWeights) -> Objective:
    """The golden model with the golden projection and table, ready for gradients."""
    model = loaded.model.requires_grad_(True)
    model.zero_grad(set_to_none=True)
    objective = Objective(model, arrays["g.embed_table"], loaded.tokenizer.vocab, weights)
    objective.projection.load_state_dict({"weight": arrays["g.projection_weight"], "bias": arrays["g.projection_bias"]})
    return objective


def losses(objective: Objective, batch: dict[str, Any], tokens_per_image: int) -> tuple[Tensor, dict[str, float]]:
    """The total, and the two terms as means."""
    counts, terms = objective.count(batch), objective(batch)
    text, image = counts.tolist()
    tokens = terms["text_ce"] + terms["image_ce"]
    means = {
        "local_loss": float(tokens.detach()) / (text + image),
        "global_loss": float(terms["reconstruction"].detach()) / max(image, 1),
        "supervised_positions": text + image,
        "images_counted": image // tokens_per_image,
    }
    total = objective.total(terms, counts)
    return total, {**means, "total_loss": float(total.detach())}


def gradients(objective: Objective) -> dict[str, Tensor]:
    """By the names of the published code."""
    theirs: dict[str, Tensor] = {}
    for name, weight in objective.decoder.named_parameters():
        assert weight.grad is not None
        theirs |= hf.split(objective.decoder.config, name, weight.grad)
    assert objective.projection.weight.grad is not None
    assert objective.projection.bias.grad is not None
    theirs[PROJECTION + "weight"] = objective.projection.weight.grad
    theirs[PROJECTION + "bias"] = objective.projection.bias.grad
    return theirs


def assert_losses(got: dict[str, float], expected: dict[str, Any]) -> None:
    compared = {key: value for key, value in got.items() if key in expected}
    assert {"local_loss", "global_loss", "total_loss"} <= compared.keys()
    assert compared == pytest.approx({key: expected[key] for key in compared}, rel=LOSS)


def assert_norms(found: dict[str, Tensor], expected: dict[str, float]) -> None:
    decoder = [grad for name, grad in found.items() if not name.startswith(PROJECTION)]
    norms = {name: float(grad.norm()) for name, grad in found.items()}
    norms[TOGETHER] = float(torch.stack([grad.norm() for grad in decoder]).norm())
    assert expected
    assert {name: norms[name] for name in expected} == pytest.approx(expected, rel=NORM)


def test_rows_labels_and_padding_are_those_of_the_published_collation(
    case: dict[str, Any], arrays: dict[str, Tensor], loaded: Loaded
) -> None:
    batch = batch_of(case["chains"], loaded, REFERENCE)
    lengths = torch.tensor([[len(chain)] for chain in case["chains"]])
    assert batch["ids"].equal(arrays["g.input_ids"])
    assert batch["labels"].equal(arrays["g.labels"])
    assert (torch.arange(batch["ids"].shape[1]) < lengths).long().equal(arrays["g.attention_mask"])


def test_the_table_beside_the_cases_is_the_one_of_the_cases(golden: Path, arrays: dict[str, Tensor]) -> None:
    assert torch.load(golden / "embed.ckpt", weights_only=True).equal(arrays["g.embed_table"])


def test_the_published_losses_and_gradients(case: dict[str, Any], arrays: dict[str, Tensor], loaded: Loaded) -> None:
    objective = objective_of(loaded, arrays, replace(REFERENCE, reconstruction=case["weight_of_global_loss"]))
    total, means = losses(
        objective, batch_of(case["chains"], loaded, REFERENCE), loaded.tokenizer.vocab.tokens_per_image
    )
    assert_losses(means, case["reference_float32"])
    total.backward()
    found = gradients(objective)
    assert_norms(found, case["reference_float32"]["gradient_norms"])
    whole = {name: value for name, value in arrays.items() if name.startswith("g.reference.grad.")}
    assert whole
    for name, value in whole.items():
        torch.testing.assert_close(found[name.removeprefix("g.reference.grad.")], value, rtol=NORM, atol=1e-5)


def test_the_published_losses_in_bfloat16(case: dict[str, Any], arrays: dict[str, Tensor], golden: Path) -> None:
    loaded = load(golden / "checkpoint_fork", dtype=torch.bfloat16)
    objective = objective_of(loaded, arrays, REFERENCE).to(torch.bfloat16)
    _, means = losses(objective, batch_of(case["chains"], loaded, REFERENCE), loaded.tokenizer.vocab.tokens_per_image)
    expected = case["reference_bfloat16"]
    assert {key: means[key] for key in expected} == pytest.approx(expected, rel=0.02)


def test_one_chain_alone_gives_the_published_losses_whatever_padding_does(
    case: dict[str, Any], arrays: dict[str, Tensor], loaded: Loaded
) -> None:
    alone = {f"{number}_alone": chain for number, chain in enumerate(case["chains"])}
    for key, chain in {**alone, "without_image": case["chain_without_image"]}.items():
        for weights in (REFERENCE, NO_PADDING):
            objective = objective_of(loaded, arrays, weights)
            _, means = losses(objective, batch_of([chain], loaded, weights), loaded.tokenizer.vocab.tokens_per_image)
            assert_losses(means, case[f"reference_float32_chain_{key}"])


@pytest.mark.parametrize("name", list(VARIANTS))
def test_every_other_definition_by_its_switches(
    case: dict[str, Any], arrays: dict[str, Tensor], loaded: Loaded, name: str
) -> None:
    objective = objective_of(loaded, arrays, VARIANTS[name])
    total, means = losses(
        objective, batch_of(case["chains"], loaded, VARIANTS[name]), loaded.tokenizer.vocab.tokens_per_image
    )
    assert_losses(means, case["variants"][name])
    total.backward()
    assert_norms(gradients(objective), case["variants"][name]["gradient_norms"])


def test_every_listed_definition_has_its_switches(case: dict[str, Any]) -> None:
    assert set(case["variants"]) == set(VARIANTS)
