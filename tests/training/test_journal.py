from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from training.journal import Journal
from training.recipe import TrainingRecipe


class FullFile:
    """A file with rows that its disk does not take."""

    def close(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def within(journal: Journal, raised: type[BaseException] | None) -> None:
    with journal:
        if raised is not None:
            raise raised


@pytest.mark.parametrize("raised", [KeyboardInterrupt, None])
def test_a_journal_on_a_full_disk_closes_its_board_too(
    raised: type[BaseException] | None, demo_recipe: TrainingRecipe, tmp_path: Path
) -> None:
    """Its thread would say later, and at length, what the file has said."""
    journal: Any = Journal(str(tmp_path), 0, demo_recipe)
    journal._file.close()
    journal._file = FullFile()
    # What the block fails with goes before what closing adds to it.
    with pytest.raises(raised or OSError):
        within(journal, raised)
    assert journal._board.all_writers is None  # closed: its thread has ended
