"""One way to open an ONNX network: on the CPU, with one thread, so that equal input gives equal bits."""

from __future__ import annotations

from typing import Any

from annotators.weights import packaged_path


def open_session(path: str) -> Any:
    """An onnxruntime session with one thread. Raises ModelUnavailable when onnxruntime is not installed.

    Engines scale by processes; threads of one session would fight them.
    """
    packaged_path("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # the graphs carry unused initialisers; errors still show
    return onnxruntime.InferenceSession(path, sess_options=options, providers=["CPUExecutionProvider"])
