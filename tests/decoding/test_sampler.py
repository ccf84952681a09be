"""The draw: its noise is uniform, independent and pure; its filters are those of the reference."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from twgi.decoding.params import Filter
from twgi.decoding.sampler import combined, draw, filtered, gumbel
from twgi.decoding.sequence import Noise

IDS = torch.arange(4096)


def starts(positions: range, **key: Any) -> Tensor:
    noise = Noise(**{"seed": 0, "prompt": (1, 2, 3), **key})
    return torch.tensor([noise.start(position) for position in positions])


def drawn(logits: Tensor, ids: Tensor, by: Filter, begin: Tensor) -> list[int]:
    tokens: list[int] = draw(logits, ids, by, begin).tokens_R.tolist()
    return tokens


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
    tokens = drawn(probabilities.log().expand(count, 4), ids, Filter(), starts(range(count)))
    shares = torch.tensor([tokens.count(token) / count for token in ids.tolist()])
    torch.testing.assert_close(shares, probabilities, rtol=0, atol=0.015)


def test_a_draw_does_not_depend_on_its_neighbours() -> None:
    logits = torch.randn(9, 4096, generator=torch.Generator().manual_seed(0))
    begin = starts(range(9))
    for by in (Filter(), Filter(temperature=0.7, top_p=0.9, top_k=50), Filter(temperature=0)):
        together = draw(logits, IDS, by, begin, logprobs=True)
        alone = [draw(logits[r : r + 1], IDS, by, begin[r : r + 1], logprobs=True) for r in range(9)]
        assert together.tokens_R.equal(torch.cat([one.tokens_R for one in alone]))
        assert together.logprobs_R is not None
        assert together.logprobs_R.equal(torch.cat([one.logprobs_R for one in alone if one.logprobs_R is not None]))


def test_a_draw_does_not_depend_on_what_else_is_allowed() -> None:
    """A token that cannot win may be masked or left out: the others keep their noise."""
    logits = torch.zeros(50, 4096)
    logits[:, ::2] = -1e30
    begin = starts(range(50))
    assert drawn(logits, IDS, Filter(), begin) == drawn(logits[:, 1::2], IDS[1::2], Filter(), begin)


def test_greedy_takes_the_likeliest_and_the_lower_id_wins_a_tie() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 1.0, 5.0]])
    assert drawn(logits, torch.tensor([4, 6, 9]), Filter(temperature=0), torch.zeros(2, dtype=torch.int64)) == [6, 4]


@pytest.mark.parametrize("by", [Filter(temperature=0), Filter(), Filter(top_p=0.5, top_k=2)])
def test_logits_that_are_not_numbers_are_marked_in_their_own_row(by: Filter) -> None:
    nan, inf = float("nan"), float("inf")
    logits = torch.tensor([[0.0, nan], [0.0, 1.0], [nan, nan], [-inf, 1.0], [-inf, -inf], [inf, 0.0]])
    draws = draw(logits, torch.tensor([0, 1]), by, starts(range(6)))
    assert draws.finite_R.tolist() == [False, True, False, True, False, False]


def test_the_log_probability_is_that_of_the_filtered_distribution() -> None:
    logits, by = torch.tensor([[0.3, 0.1, 0.35, 0.2, 0.05]]).log(), Filter(top_k=3, top_p=0.75)
    kept = filtered(logits, by).softmax(-1)[0]
    assert (kept > 0).tolist() == [True, False, True, False, False]
    for start in starts(range(8)):
        draws = draw(logits, torch.arange(5), by, start[None], logprobs=True)
        assert draws.logprobs_R is not None
        torch.testing.assert_close(draws.logprobs_R.exp(), kept[draws.tokens_R])
    greedy = draw(logits, torch.arange(5), Filter(temperature=0), logprobs=True)
    assert greedy.logprobs_R is not None
    assert greedy.logprobs_R.tolist() == [0.0]
    assert draw(logits, torch.arange(5), Filter(temperature=0)).logprobs_R is None


def test_rows_are_combined_by_their_weights_at_the_allowed_ids() -> None:
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([2, 3, 7])
    rows = [[(0, 3.0), (2, -2.0)], [(1, 1.0)], [(3, 0.5), (1, 0.25), (0, 0.25)]]
    total = combined(logits[:, ids], rows)
    for made, own in zip(total, rows, strict=True):
        torch.testing.assert_close(made, sum(weight * logits[place, ids] for place, weight in own))


def test_a_combination_does_not_depend_on_its_neighbours() -> None:
    logits = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    logits[2] = float("nan")
    rows = [[(0, 3.0), (1, -2.0)], [(2, 1.0)], [(1, 1.0)]]
    ids = torch.arange(0, 1000, 3)
    together = combined(logits[:, ids], rows)
    assert torch.equal(together[0], combined(logits[:, ids], rows[:1])[0])
    assert torch.equal(together[2], logits[1, ids])
