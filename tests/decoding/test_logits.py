"""The draw: its noise is uniform, independent and pure; its filters are those of the reference."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from twgi.decoding.logits import Noise, draw, gumbel, mixed
from twgi.decoding.params import Filter
from twgi.errors import RunError

IDS = torch.arange(4096)


def starts(positions: range, **key: Any) -> Tensor:
    noise = Noise(**{"seed": 0, "prompt": (1, 2, 3), **key})
    return torch.tensor([noise.start(position) for position in positions])


def uniform(noise: Tensor) -> Tensor:
    return noise.neg().exp().neg().exp()


def test_the_noise_never_changes() -> None:
    """The numbers of today: every stored seed means these draws, on every machine."""
    noise = Noise(seed=7, prompt=(5, 6), sample=1)
    assert [noise.start(0), noise.start(1)] == [-2296125722126618079, -5426750825658385974]
    values = gumbel(torch.tensor([noise.start(0)]), torch.tensor([0, 1, 8195]))
    expected = torch.tensor([[0.5627350235054126, -0.46377955921169745, -0.09043084321684818]], dtype=torch.float64)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-12)


def test_the_mixer_is_splitmix64() -> None:
    """Known answers of SplitMix64 seeded with 1234567."""
    answers = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    values = uniform(gumbel(torch.tensor([1234567]), torch.arange(3)))
    torch.testing.assert_close(
        values, torch.tensor([[answer / 2**64 for answer in answers]], dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_the_noise_is_uniform() -> None:
    values = uniform(gumbel(starts(range(64)), IDS)).flatten().numpy()
    counts, _ = np.histogram(values, bins=256, range=(0, 1))
    expected = values.size / 256
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert 150 < chi_square < 370  # 255 degrees of freedom: mean 255, deviation 22.6


@pytest.mark.parametrize("other", [{"seed": 1}, {"sample": 1}, {"prompt": (1, 2)}, {"prompt": (1, 23)}])
def test_seed_sample_and_prompt_each_give_other_noise(other: dict[str, Any]) -> None:
    one, two = (uniform(gumbel(starts(range(8), **key), IDS)).flatten().numpy() for key in ({}, other))
    assert abs(np.corrcoef(one, two)[0, 1]) < 5 / one.size**0.5


def test_the_noise_of_neighbouring_positions_and_tokens_is_independent() -> None:
    values = uniform(gumbel(starts(range(64)), IDS)).numpy()
    bound = 5 / values.size**0.5
    for lag in (1, 2, 7):
        assert abs(np.corrcoef(values[lag:].ravel(), values[:-lag].ravel())[0, 1]) < bound
        assert abs(np.corrcoef(values[:, lag:].ravel(), values[:, :-lag].ravel())[0, 1]) < bound


def test_the_noise_is_never_infinite() -> None:
    assert bool(gumbel(starts(range(64)), IDS).isfinite().all())


def test_draws_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    count, ids = 20_000, torch.tensor([3, 10, 11, 700])
    tokens = draw(probabilities.log().expand(count, 4), ids, Filter(), starts(range(count)).tolist())
    shares = torch.tensor([tokens.count(token) / count for token in ids.tolist()])
    torch.testing.assert_close(shares, probabilities, rtol=0, atol=0.015)


def test_a_draw_does_not_depend_on_its_neighbours() -> None:
    logits = torch.randn(9, 4096, generator=torch.Generator().manual_seed(0))
    begin = starts(range(9)).tolist()
    for by in (Filter(), Filter(temperature=0.7, top_p=0.9, top_k=50), Filter(temperature=0)):
        together = draw(logits, IDS, by, begin)
        assert together == [draw(logits[r : r + 1], IDS, by, begin[r : r + 1])[0] for r in range(9)]


def test_a_draw_does_not_depend_on_what_else_is_allowed() -> None:
    """A token that cannot win may be masked or left out: the others keep their noise."""
    logits = torch.zeros(50, 4096)
    logits[:, ::2] = -1e30
    begin = starts(range(50)).tolist()
    assert draw(logits, IDS, Filter(), begin) == draw(logits[:, 1::2], IDS[1::2], Filter(), begin)


def test_greedy_takes_the_likeliest_and_the_lower_id_wins_a_tie() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 1.0, 5.0]])
    assert draw(logits, torch.tensor([4, 6, 9]), Filter(temperature=0), [0, 0]) == [6, 4]


@pytest.mark.parametrize("by", [Filter(temperature=0), Filter()])
def test_logits_that_are_not_numbers_are_an_error(by: Filter) -> None:
    with pytest.raises(RunError, match="not finite"):
        draw(torch.tensor([[0.0, float("nan")]]), torch.tensor([0, 1]), by, [0])


def test_rows_are_mixed_by_their_weights_at_the_allowed_ids() -> None:
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([2, 3, 7])
    rows = [[(0, 3.0), (2, -2.0)], [(1, 1.0)], [(3, 0.5), (1, 0.25), (0, 0.25)]]
    total = mixed(logits, rows, ids)
    for made, own in zip(total, rows, strict=True):
        torch.testing.assert_close(made, sum(weight * logits[place, ids] for place, weight in own))


def test_a_mix_does_not_depend_on_its_neighbours() -> None:
    logits = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    logits[2] = float("nan")
    rows = [[(0, 3.0), (1, -2.0)], [(2, 1.0)], [(1, 1.0)]]
    ids = torch.arange(0, 1000, 3)
    together = mixed(logits, rows, ids)
    assert torch.equal(together[0], mixed(logits, rows[:1], ids)[0])
    assert torch.equal(together[2], logits[1, ids])
