"""Laws of the functions with gradients of their own: the same numbers as the plain formulas, and true gradients."""

import torch
import torch.nn.functional as F
from torch import Tensor

from twgi.model.fused import GatedSilu, RootMeanSquare, Rotation


def plain_gate(x: Tensor) -> Tensor:
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


def plain_rotation(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 8, dtype=dtype, generator=generator, requires_grad=True)
    cos, sin = (torch.randn(3, 1, 8, dtype=dtype, generator=generator) for _ in range(2))
    return x, cos, sin


def test_gradients_are_those_of_finite_differences() -> None:
    x, cos, sin = inputs(torch.float64)
    assert torch.autograd.gradcheck(GatedSilu.apply, (x,))
    assert torch.autograd.gradcheck(Rotation.apply, (x, cos, sin))
    weight = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, weight: RootMeanSquare.apply(x, weight, 1e-5), (x, weight))


def test_values_and_gradients_are_those_of_the_plain_formulas() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x, cos, sin = inputs(dtype)
        for ours, plain in (
            (GatedSilu.apply(x), plain_gate(x)),
            (Rotation.apply(x, cos, sin), plain_rotation(x, cos, sin)),
        ):
            torch.testing.assert_close(ours, plain, rtol=0, atol=0)
            found, expected = (torch.autograd.grad(y.square().sum(), x, retain_graph=True)[0] for y in (ours, plain))
            torch.testing.assert_close(found, expected)


def test_the_norm_and_its_gradients_are_those_of_torch() -> None:
    x, _, _ = inputs(torch.float32)
    weight = torch.linspace(0.5, 2, 8, requires_grad=True)
    ours, plain = RootMeanSquare.apply(x, weight, 1e-5), F.rms_norm(x, (8,), weight, 1e-5)
    torch.testing.assert_close(ours, plain)
    found, expected = (torch.autograd.grad(y.square().sum(), (x, weight)) for y in (ours, plain))
    torch.testing.assert_close(found, expected)
