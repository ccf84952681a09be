"""Pages: what is held, found, shared and given up. No model."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twgi.decoding.pages import Pages, Row


def opened(pages: Pages, ids: list[int], most: int | None = None) -> Row:
    """A row that has read all but its last id."""
    row = Row(list(ids), most or len(ids))
    pages.open(row)
    row.read = len(ids) - 1
    pages.note(row)
    return row


def test_rows_lie_in_one_piece_while_there_is_such_a_run() -> None:
    pages = Pages(160, 16)
    rows = [Row([i], most=most) for i, most in enumerate((40, 16, 17))]
    assert [pages.open(row) for row in rows] == [None] * 3
    assert [row.start for row in rows] == [0, 48, 64]
    assert pages.in_use == 6
    pages.close(rows[1])
    assert pages.in_use == 5
    last = Row([9], most=70)
    pages.open(last)
    assert (last.start, len(last.pages)) == (None, 5)


def test_the_longest_beginning_is_found_to_the_token_but_never_the_last_id() -> None:
    pages = Pages(1000, 4)
    opened(pages, list(range(20)))
    for count in range(1, 19):
        assert pages.match([*range(count), 99, 99])[1] == count
        assert pages.match(list(range(count + 1)))[1] == count
    assert pages.match([99, 1, 2])[1] == 0
    assert pages.match([0])[1] == 0


def test_what_is_found_is_copied_and_the_source_stays() -> None:
    pages = Pages(1000, 4)
    first = opened(pages, list(range(20)), most=24)
    second = Row([*range(10), 50, 51], most=40)
    copy = pages.open(second)
    assert copy is not None
    assert (copy.sources, copy.target, second.read) == (list(range(10)), second.start, 10)
    assert second.start == 24
    assert pages.match([*range(10), 50, 51])[1] == 10
    pages.close(first)
    pages.close(second)
    assert pages.match(list(range(20)))[1] == 19


def test_a_closed_row_goes_on_in_its_place_where_nothing_newer_is_lost() -> None:
    pages = Pages(1000, 4)
    ids = list(range(12))
    first = opened(pages, ids, most=60)
    place = first.start
    pages.close(first)
    again = Row([*ids[:11], 70, 71], most=60)
    assert pages.open(again) is None
    assert (again.start, again.read) == (place, 11)
    pages.close(again)
    shorter = Row([*ids[:6], 80], most=60)  # there, the end of the first would be lost
    assert pages.open(shorter) is not None
    assert shorter.start != place
    assert pages.match([*ids[:11], 0])[1] == 11


def test_room_is_made_by_what_was_of_no_use_for_longest() -> None:
    pages = Pages(48, 4)
    for first in (100, 200, 300):
        pages.close(opened(pages, list(range(first, first + 16))))
    pages.close(opened(pages, [*range(100, 115), 7]))  # the first is used again
    opened(pages, list(range(400, 416)))
    found = {first: pages.match(list(range(first, first + 16)))[1] for first in (100, 200, 300, 400)}
    assert found == {100: 15, 200: 0, 300: 15, 400: 15}


def test_what_is_not_to_be_kept_is_forgotten_at_once() -> None:
    pages = Pages(48, 4)
    row = opened(pages, list(range(16)))
    pages.close(row, keep=False)
    assert pages.match(list(range(16)))[1] == 0
    assert (row.read, row.pages, pages.in_use) == (0, [], 0)


def test_more_rows_than_room_is_a_bug() -> None:
    pages = Pages(16, 4)
    pages.open(Row([1], most=12))
    with pytest.raises(AssertionError, match="no room"):
        pages.open(Row([2], most=8))


@settings(max_examples=40)
@given(st.randoms(use_true_random=False), st.sampled_from((1, 4, 16)), st.integers(120, 300))
def test_every_position_that_is_found_holds_what_it_should(chance: random.Random, size: int, tokens: int) -> None:
    """Against a memory of our own, into which rows write their beginnings, with copies done as they are told."""
    pages = Pages(tokens, size)
    memory: dict[int, tuple[int, ...]] = {}
    live: list[Row] = []
    for _ in range(60):
        if live and (chance.random() < 0.5 or pages.count - pages.in_use < pages.pages_for(40)):
            pages.close(live.pop(chance.randrange(len(live))), keep=chance.random() < 0.9)
            continue
        row = Row([chance.randrange(2) for _ in range(chance.randrange(1, 40))], most=40)
        copy = pages.open(row)
        if copy is not None:
            held = [memory[place] for place in copy.sources]
            memory.update(zip(range(copy.target, copy.target + len(held)), held, strict=True))
        assert row.read < len(row.ids)
        places = pages.places(row.pages, len(row.ids))
        for i in range(len(row.ids)):
            beginning = tuple(row.ids[: i + 1])
            if i < row.read:
                assert memory[places[i]] == beginning
            memory[places[i]] = beginning
        row.read = chance.randrange(row.read, len(row.ids) + 1)
        pages.note(row)
        live.append(row)
        for one in live:
            assert [memory[p] for p in pages.places(one.pages, one.read)] == [
                tuple(one.ids[: i + 1]) for i in range(one.read)
            ]
        assert pages.in_use == len({page for one in live for page in one.pages})
