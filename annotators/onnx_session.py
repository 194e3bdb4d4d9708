"""One way to open an ONNX network: on the CPU, with one thread, so that equal input gives equal bits; and to change graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from annotators.weights import packaged_path

Dims = Sequence[int | str]


def open_session(graph: str | bytes) -> Any:
    """An onnxruntime session with one thread, of a file or of a serialised graph.

    Raises ModelUnavailable when onnxruntime is not installed. Engines scale by processes; threads would fight them.
    """
    packaged_path("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # the graphs carry unused initialisers; errors still show
    return onnxruntime.InferenceSession(graph, sess_options=options, providers=["CPUExecutionProvider"])


def cut_graph(path: str, sources: Mapping[str, Dims], targets: Mapping[str, Dims]) -> bytes:
    """The part of a graph from the tensors ``sources`` to ``targets``, serialised for ``open_session``.

    Dims may be names, which make an axis free that the whole graph fixes. Raises ModelUnavailable when onnx is not installed.
    """
    packaged_path("onnx")
    import onnx
    from onnx.tools.update_model_dims import update_inputs_outputs_dims
    from onnx.utils import Extractor

    part = Extractor(onnx.shape_inference.infer_shapes(onnx.load(path))).extract_model(list(sources), list(targets))
    del part.graph.value_info[:]  # inferred with the axes fixed
    dims = [{name: list(axes) for name, axes in side.items()} for side in (sources, targets)]
    return bytes(update_inputs_outputs_dims(part, *dims).SerializeToString())


def stacked_graph(path: str) -> bytes:
    """A graph whose one LSTM hears a single stream, for many streams in one call, serialised for ``open_session``.

    A new input ``layout``, int64 ``[3]``, is the shape (frames, streams, width) that the LSTM's input gets, so frames come
    time first; the axis of streams of its states is freed. Raises ModelUnavailable when onnx is not installed.
    """
    packaged_path("onnx")
    import onnx

    model = onnx.load(path)
    graph = model.graph
    ((at, lstm),) = [(i, node) for i, node in enumerate(graph.node) if node.op_type == "LSTM"]
    source, lstm.input[0] = lstm.input[0], "stacked"
    states = {*lstm.input[5:7], *lstm.output[1:3]}
    graph.node.insert(at, onnx.helper.make_node("Reshape", [source, "layout"], ["stacked"]))
    for value in [*graph.input, *graph.output]:
        if value.name in states:
            value.type.tensor_type.shape.dim[1].dim_param = "streams"
    graph.input.append(onnx.helper.make_tensor_value_info("layout", onnx.TensorProto.INT64, [3]))
    del graph.value_info[:]  # inferred with the axis fixed
    return bytes(model.SerializeToString())
