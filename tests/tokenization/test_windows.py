from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokenization.windows import Window, windows


@given(num_frames=st.integers(0, 5000), size=st.integers(1, 800), data=st.data())
def test_every_frame_is_kept_once_by_a_window_that_saw_beyond_it(num_frames: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    cut = windows(num_frames, size, overlap)
    assert [frame for window in cut for frame in range(window.first, window.end)] == list(range(num_frames))
    for window in cut:
        assert window.stop - window.start == min(size, num_frames)
        assert window.kept == slice(window.first - window.start, window.end - window.start)
        assert window.first == 0 or window.first - window.start >= overlap // 2
        assert window.end == num_frames or window.stop - window.end >= overlap // 2


def test_what_fits_has_one_window_and_nothing_has_none() -> None:
    assert windows(0, 750, 100) == []
    assert windows(750, 750, 100) == [Window(0, 750, 0, 750)]
    assert windows(751, 750, 100) == [Window(0, 750, 0, 375), Window(1, 751, 375, 751)]
    assert windows(1400, 750, 100) == [Window(0, 750, 0, 700), Window(650, 1400, 700, 1400)]
