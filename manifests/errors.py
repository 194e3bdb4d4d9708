"""Everything Stepwell raises on purpose.

StepwellError                 the root; ``str()`` is one line: what, which value, the rule, the remedy
├── RequestError              the request was wrong (exit code 2): recipe, source, URI, option
│   └── ModelUnavailable      a part's weights or package are not here; the message says how to get them
├── WorkError                 the work failed (exit code 1)
│   ├── ContractError         a part broke its contract: columns, row count, order, code count
│   ├── MismatchError         two artefacts do not belong together: vocabulary, codec, recipe digest
│   ├── StoreError            a store does not do what a commit rests on
│   └── Rung                  training's watch rang at a step (training.spikes)
└── AudioRefused              one input cannot become a recording; becomes a quarantine row, never ends a job
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class StepwellError(Exception):
    """Root of the tree; ``exit_code`` is what the command returns when it reaches the top."""

    exit_code = 1


class RequestError(StepwellError):
    """The request was wrong: nothing was done, and nothing was left behind."""

    exit_code = 2


class ModelUnavailable(RequestError):
    """A model cannot load here. Never a reason to mark a row: the job stops with the remedy."""


class WorkError(StepwellError):
    """The work failed after it had begun; what was committed stays."""


class ContractError(WorkError):
    """A part returned other columns, rows or lengths than it declared."""


class MismatchError(WorkError):
    """Two artefacts do not belong together."""


class StoreError(WorkError):
    """The store ignores a condition that commits rest on."""


class AudioRefused(StepwellError):
    """One input is not usable audio.

    ``reason`` is a stable code (``quarantine.reason``), the message is for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[AudioRefused], tuple[str, str]]:
        # Exceptions with extra arguments do not survive pickling between Ray workers by themselves.
        return (AudioRefused, (self.reason, str(self)))


@contextmanager
def parsing(uri: str, path: str) -> Iterator[None]:
    """Raises WorkError where an object of a corpus, read in the block, is not one that was written as a whole."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WorkError(
            f"{path!r} of corpus {uri!r} cannot be read ({type(error).__name__}: {error}); run `stepwell corpus fsck {uri}`"
        ) from error
