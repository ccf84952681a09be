"""Admission and pieces, without a model."""

from dataclasses import replace

from tests.decoding.worlds import VOCAB, request

from twgi.decoding.events import Token
from twgi.decoding.guidance import Guidance
from twgi.decoding.pages import PAGE, Pages, Row
from twgi.decoding.request import Request
from twgi.decoding.scheduler import PIECE, Batch, Scheduler, best_window, longest_rows, most_pages, most_positions
from twgi.decoding.sequence import Drawn

FULL = (Guidance.full(2.0, 1.2, 3.0, 5.0),)
DRAWN = VOCAB.tokens_per_image


def read(batch: Batch) -> None:
    """What a runner does."""
    for row, count in batch.pieces:
        row.read += count


def scheduler(tokens: int, *many: Request, page: int = PAGE, window: int = 1) -> Scheduler:
    made = Scheduler(Pages(tokens, page), window)
    for one in many:
        made.add(one)
    list(made.admit())
    return made


def test_a_request_needs_its_full_row_and_the_longest_rows_of_one_kind_of_picture() -> None:
    one = request(prompt=(0, 30, 31, 32, 22), budget=50, guidances=FULL, max_images=3)
    image = 1 + 3 * VOCAB.image_length
    assert sorted(longest_rows(one)[1:]) == sorted([image, 1 + DRAWN, 4 + 1 + DRAWN, 3 + 1 + DRAWN])
    assert longest_rows(one)[0] == 55
    assert most_pages(one, 16) == 4 + 3 + 1 + 1 + 1
    assert most_positions(one) == (2 + 2 + 3) * PAGE
    assert longest_rows(request(budget=50, guidances=(Guidance.normal(2.0), *FULL))) == longest_rows(one)
    assert longest_rows(replace(one, grammar=replace(one.grammar, max_images=0))) == [55]
    assert longest_rows(replace(one, grammar=replace(one.grammar, any_text=True)))[1:].count(55) == 1
    assert longest_rows(replace(one, guidance={"a": Guidance.normal(1.0)}, unread=frozenset({1}))) == [55, 55]


def test_requests_enter_in_their_order_when_all_they_may_need_is_free() -> None:
    small, large = request(0, budget=40), request(1, budget=60, guidances=FULL)
    made = scheduler(most_positions(small) + most_positions(large) - PAGE, small, large, replace(small, id=2))
    assert [one.request.id for one in made.live] == [0]
    made.remove(made.live[0])
    list(made.admit())
    assert [one.request.id for one in made.live] == [1]
    assert [one.request.id for one in made.waiting] == [2]


def test_rows_hold_back_their_last_id_until_all_can_finish() -> None:
    long = request(prompt=(0, *[30] * 600, 22), budget=30, starts_with_image=True)
    made = scheduler(2000, long)
    first = made.schedule()
    assert [(len(row.ids), count) for row, count in first.pieces] == [(603, PIECE)]
    assert first.ready == []
    read(first)
    second = made.schedule()
    assert [count for _, count in second.pieces] == [603 - PIECE, 1]
    assert second.ready == [made.live[0]]


def test_a_row_waits_for_the_page_that_another_is_just_reading() -> None:
    prompt = (0, *range(26, 60), 22)
    other = (*prompt[:20], 40, 22)
    many = (request(0, prompt=prompt), request(1, prompt=prompt), request(2, prompt=other))
    made = scheduler(2000, *many, page=16)
    assert [made.live.index(one) for one in made.schedule().ready] == [0]
    made = scheduler(2000, request(0, prompt=prompt), request(1, prompt=(50, *prompt[1:])))
    assert [made.live.index(one) for one in made.schedule().ready] == [0, 1]


def test_what_is_being_read_is_told_by_the_ids_before_it_too() -> None:
    row = Row([1, 2, 3, 4, 5], most=5, read=2)
    batch = Batch(early=[(row, 2)])
    assert batch.reads([1, 2, 3, 4, 9], 2, 4)
    assert batch.reads([1, 2, 3, 4, 9], 3, 4)
    assert not batch.reads([1, 2, 3, 4, 9], 1, 3)
    assert not batch.reads([1, 2, 3, 4, 5], 2, 5)
    assert not batch.reads([7, 2, 3, 4, 9], 2, 4)


def test_a_sequence_that_asks_rests() -> None:
    made = scheduler(2000, request(guidances=(Guidance.normal(2.0), *FULL), starts_with_image=True))
    assert (made.busy, made.schedule()) == (False, Batch())
    made.live[0].answer("kind 1")
    assert made.busy
    assert len(made.schedule().pieces) == 5


def test_guesses_stand_at_the_ends_of_the_rows_until_it_is_known_which_are_right() -> None:
    made = scheduler(2000, request(guidances=FULL, starts_with_image=True), window=4)
    batch = made.schedule()
    (sequence,) = batch.ready
    assert batch.drawn_after == [4] * 5
    assert [(count - len(row.ids), row.drafts) for row, count in batch.pieces] == [(0, 3)] * 5
    read(batch)
    guesses = sequence.full.ids[-3:]
    made.pages.note(sequence.full)
    assert sequence.full.noted == 6
    drawn: list[Drawn] = [(guesses[0], None), (19, None), (18, None), (17, None)]
    assert sequence.agreed(drawn) == drawn[:2]
    assert [event.token for event in sequence.accept(drawn) if isinstance(event, Token)] == [guesses[0], 19]
    assert sequence.full.ids[6:] == [guesses[0], 19]
    assert {len(row.ids) - row.read for row, _ in sequence.mix} == {1}
    assert sequence.guess(8)[:2] == [18, 17]
    assert len(sequence.guess(64)) == DRAWN - 3


def test_the_window_is_small_where_many_rows_run() -> None:
    sizes = [best_window(rows) for rows in range(1, 300)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1] > 1
