"""Laws of the optimizer."""

import torch

from twgi.model.config import TransformerConfig
from twgi.model.transformer import Transformer
from twgi.training.icons.muon import build_optimizer, orthogonalize


def tiny_model(size: int = 50) -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(
        vocab_size=size, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2, num_kv_heads=2
    )
    model = Transformer(config)
    model.init_weights()
    return model


def test_orthogonalized_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 40, 24), (2, 24, 40)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape), rounds=8).float())
        assert values.min() > 0.5
        assert values.max() < 1.4


def test_the_optimizer_steps_every_parameter_and_learns() -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, matrix_lr=0.02, other_lr=3e-3, weight_decay=0.01)
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in model.parameters()}
    ids = torch.arange(2, 34)[None]
    losses = []
    for _ in range(30):
        logits = model.head(model(ids))[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
