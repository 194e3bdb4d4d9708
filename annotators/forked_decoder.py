"""pocketsphinx, every clip in a copy of the process that loaded the model.

A decoder remembers: noise floor, cepstral mean and the senones that were active last go from one utterance to the next, and
no call clears all of them. Loading one anew for each clip costs 0.2 s; a fork of a process that has loaded it and
heard nothing costs 0.02 s and gives the same bits. Threads do not survive a fork, so the process that is forked is a helper
that has none: this module as a program, which imports little (docs/lab-notes.md, "Speech recognition").
"""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import weakref
from multiprocessing.connection import Connection, Pipe
from typing import Any

from manifests.cpu_clock import charge, spent_s
from manifests.errors import ModelUnavailable, WorkError

CLIP_MEMORY_BYTES = 4 << 30  # private memory of the process that decodes a clip

Segment = tuple[str, int, int, float]  # entry of the dictionary, first and last frame of 10 ms, posterior


class ForkedDecoder:
    """A helper process that holds a loaded decoder for as long as this object lives."""

    def __init__(self, options: dict[str, Any]) -> None:
        """``options``: of ``pocketsphinx.Decoder``. Raises ModelUnavailable where it cannot be loaded."""
        self._options = options
        self._start()

    def decode(self, pcm: bytes) -> list[Segment]:
        """Words and fillers of a clip of 16 kHz int16 samples, in order.

        Raises RuntimeError where decoding died of it. Where the helper itself is gone, a new one is asked; raises WorkError where
        that one goes too, which says nothing of the clip.
        """
        try:
            return self._ask(pcm)
        except (EOFError, OSError):
            self._end()
            self._start()
        try:
            return self._ask(pcm)
        except (EOFError, OSError) as error:
            raise WorkError(
                f"pocketsphinx's helper process was lost twice ({type(error).__name__}); see whether the machine is out of "
                "memory, and go on"
            ) from error

    def _start(self) -> None:
        self._pipe, theirs = Pipe()
        command = [sys.executable, "-c", "from annotators.forked_decoder import serve; serve()", str(theirs.fileno())]
        # The same modules as here, wherever they were found.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        helper = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL)
        theirs.close()
        # It ends by itself when its pipe is closed, also where this process is killed.
        self._end = weakref.finalize(self, _end, self._pipe, helper)
        self._spent_s = 0.0
        self._pipe.send(self._options)
        try:
            failure, self._spent_s = self._pipe.recv()
        except EOFError:
            failure = f"its process ended with exit code {helper.wait()}"
        charge(self._spent_s)
        if failure:
            raise ModelUnavailable(f"pocketsphinx cannot load its model ({failure}); install its wheel again")

    def _ask(self, pcm: bytes) -> list[Segment]:
        self._pipe.send_bytes(pcm)
        segments, how, helper_s = self._pipe.recv()
        charge(helper_s - self._spent_s)
        self._spent_s = helper_s
        if segments is None:
            raise RuntimeError(f"pocketsphinx's process ended without an answer ({how})")
        return list(segments)


def serve() -> None:
    """The helper: loads the decoder, then forks for each clip until its pipe is closed."""
    # Ctrl-C reaches the whole group of the terminal; who asked decides what becomes of this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe: Connection = Connection(int(sys.argv[1]))
    options = pipe.recv()
    try:
        import pocketsphinx

        decoder = pocketsphinx.Decoder(**options)
    except Exception as error:
        pipe.send((f"{type(error).__name__}: {error}", spent_s()))
        return
    pipe.send((None, spent_s()))
    while True:
        try:
            pcm = pipe.recv_bytes()
        except EOFError:
            return
        answer = _in_a_copy(decoder, pcm, pipe)
        if answer is None:
            return
        pipe.send((*answer, spent_s()))


def _in_a_copy(decoder: Any, pcm: bytes, pipe: Connection) -> tuple[list[Segment] | None, str] | None:
    """The clip's segments, or None and how the copy ended; None where nobody waits for them any more."""
    ours, theirs = Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        try:  # whatever happens, a copy ends here
            resource.setrlimit(resource.RLIMIT_DATA, (CLIP_MEMORY_BYTES, CLIP_MEMORY_BYTES))
            theirs.send(_segments(decoder, pcm))
            os._exit(0)
        finally:
            os._exit(1)
    theirs.close()
    with ours:
        ready, _, _ = select.select([ours, pipe], [], [])
        if ours not in ready:  # requests come one at a time: what there is to read is the end
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        try:
            segments: list[Segment] | None = ours.recv()
        except EOFError:
            segments = None
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return segments, signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _segments(decoder: Any, pcm: bytes) -> list[Segment]:
    decoder.start_utt()
    decoder.process_raw(pcm, no_search=False, full_utt=True)
    decoder.end_utt()
    return [(found.word, found.start_frame, found.end_frame, float(found.prob)) for found in decoder.seg() or ()]


def _end(pipe: Connection, helper: subprocess.Popen[bytes]) -> None:
    pipe.close()
    helper.wait()
