"""Windows of numbered pages: the next one, and a smaller one that starts at the same row."""

from hypothesis import given, strategies as st

from assay.sources.databases.numbered_pages import Window


def first_row(window: Window) -> int:
    return (window.page - 1) * window.size


def test_the_following_page_starts_where_this_one_ends() -> None:
    window = Window(3, 40)
    assert first_row(window.following()) == first_row(window) + window.size


@given(page=st.integers(1, 500), size=st.integers(1, 1000))
def test_a_smaller_page_starts_at_the_same_row_and_shrinks_to_one(page: int, size: int) -> None:
    window: Window | None = Window(page, size)
    start, steps = (page - 1) * size, 0
    while window is not None:
        assert first_row(window) == start
        smaller = window.smaller()
        assert smaller is None or 1 <= smaller.size <= window.size // 2
        assert smaller is not None or window.size == 1
        window, steps = smaller, steps + 1
    assert steps <= 11


@given(page=st.integers(1, 500), size=st.integers(1, 100), most=st.integers(1, 1000))
def test_a_larger_page_starts_at_the_same_row(page: int, size: int, most: int) -> None:
    window = Window(page, size)
    larger = window.larger(most)
    assert first_row(larger) == first_row(window)
    assert size <= larger.size <= max(size, most)
