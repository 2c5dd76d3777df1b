from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_models.data.errors import PairError
from sr_models.data.tiles import SPLITS, Layout, Place, assign_blocks, gap


@settings(max_examples=20, deadline=None)
@given(
    tile=st.integers(4, 20),
    block=st.integers(1, 4),
    margin=st.integers(0, 16),
    height=st.integers(60, 200),
    width=st.integers(120, 200),
    seed=st.integers(0, 99),
)
def test_no_test_pixel_lies_within_the_margin_of_a_training_pixel(
    tile, block, margin, height, width, seed
):
    layout = Layout(tile=tile, block=block, margin=margin, seed=seed)
    places = layout.places(height, width)
    counts: dict[str, int] = {}
    for place in places:
        counts[place.block] = counts.get(place.block, 0) + 1
    if len(counts) < 3:
        return
    split_of = assign_blocks(counts, layout)
    assert set(split_of.values()) == set(SPLITS)
    # an independent oracle: paint the training pixels, grow them by the margin, look under tests
    painted = np.zeros((height, width), bool)
    for place in places:
        if split_of[place.block] == "train":
            top, left = max(0, place.row - margin), max(0, place.col - margin)
            painted[top : place.row + tile + margin, left : place.col + tile + margin] = True
    for place in places:
        if split_of[place.block] != "train":
            assert not painted[place.row : place.row + tile, place.col : place.col + tile].any()


def test_the_gap_is_counted_in_pixels_between_two_tiles():
    assert gap(Place(0, 0, ""), Place(3, 16, ""), 16) == 0
    assert gap(Place(40, 0, ""), Place(0, 10, ""), 16) == 24


def test_tiles_do_not_overlap_and_stay_inside():
    layout = Layout(tile=16, block=2, margin=8)
    count = np.zeros((101, 90), int)
    for place in layout.places(*count.shape):
        piece = count[place.row : place.row + 16, place.col : place.col + 16]
        assert piece.shape == (16, 16)
        piece += 1
    assert count.max() == 1


def test_shares_are_met_as_far_as_blocks_allow_and_the_seed_decides():
    counts = {f"{i}-{j}": 4 for i in range(6) for j in range(6)}
    layout = Layout(shares=(0.5, 0.25, 0.25))
    split_of = assign_blocks(counts, layout)
    got = [list(split_of.values()).count(s) for s in SPLITS]
    assert got == [18, 9, 9]
    assert split_of == assign_blocks(counts, layout)
    assert split_of != assign_blocks(counts, Layout(shares=layout.shares, seed=1))


def test_blocks_without_texture_are_for_the_test():
    split_of = assign_blocks({"a": 3, "b": 3, "c": 3, "water": 0}, Layout())
    assert split_of["water"] == "test"
    assert {split_of[k] for k in "abc"} == set(SPLITS)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Layout(shares=(0.5, 0.5, 0.5)), "add up to 1"),
        (lambda: Layout(tile=0), "tile and block > 0"),
        (lambda: Layout(tile=128).check(3, least=16), "multiples of the factor 3"),
        (lambda: Layout(tile=24).check(2, least=16), "a tile 32 px or more"),
        (lambda: assign_blocks({"a": 9, "b": 9, "c": 0}, Layout()), "at least 3 are needed"),
    ],
)
def test_what_cannot_be_split_is_refused(act, message):
    with pytest.raises(PairError, match=message):
        act()
