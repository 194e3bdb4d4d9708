from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from training.attention import DocumentSpans
from training.config import AdaptorConfig, DecoderConfig, EncoderConfig, ModelConfig, model_config
from training.cost import Work
from training.head import weighted_loss
from training.memory import Placement, ctc_activations, narrow_weights, step_memory, token_activations
from training.model import StepAudio2
from training.recipe import Group, Precision

SIZE = ModelConfig(
    encoder=EncoderConfig(num_mels=40, width=48, num_heads=2, num_layers=2),
    adaptor=AdaptorConfig(inner_width=64),
    decoder=DecoderConfig(width=64, inner_width=256, num_heads=4, num_kv_heads=2, num_layers=3, max_positions=512),
)
ALL = {Group.ADAPTOR, Group.DECODER, Group.EMBEDDING, Group.HEAD}
SIZES = {
    Group.ENCODER: 637e6,
    Group.CTC_HEAD: 0,
    Group.ADAPTOR: 15e6,
    Group.EMBEDDING: 569e6,
    Group.DECODER: 6.53e9,
    Group.HEAD: 569e6,
}
# Weights, two moments and gradients of a thousand million trained weights.
BYTES_A_TRAINED_WEIGHT = 16


def kept_bytes(model: StepAudio2, forward: object) -> int:
    """Bytes that autograd keeps of a forward pass, each storage once, the model's own weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outcome = forward()  # type: ignore[operator]
    assert outcome.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def narrow(precision: Precision) -> torch.autocast:
    """As the trainer multiplies."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision is Precision.BF16, cache_enabled=False)


def sizes_of(model: StepAudio2) -> dict[Group, int]:
    return {Group(group): sum(p.numel() for _, p in parameters) for group, parameters in model.groups().items()}


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("trained", [{Group.ADAPTOR}, ALL], ids=["adaptor", "all"])
def test_what_is_kept_is_what_autograd_keeps(trained: set[Group], precision: Precision, recomputes: bool) -> None:
    model = StepAudio2(SIZE, 500, 300)
    model.model.recomputes = recomputes
    for group, parameters in model.groups().items():
        for _, parameter in parameters:
            parameter.requires_grad_(Group(group) in trained)
    spans = DocumentSpans(((120,),) * 2)
    mels, patches = torch.randn(2, 40, 402), torch.full((2,), 50)
    heard = torch.zeros(2, 120, dtype=torch.bool)
    heard[:, :50] = True

    def forward() -> torch.Tensor:
        with narrow(precision):
            features = model.hear(mels, torch.full((2,), 400), patches)
            ids, places = torch.zeros(2, 120).long(), torch.arange(90)
            return model.hidden(ids, spans.positions(120), spans, heard, features, places_N=places)

    measured = kept_bytes(model, forward) + 90 * SIZE.decoder.width * precision.activation_bytes  # what the head keeps
    placement = Placement(activation_bytes=precision.activation_bytes, recomputes=recomputes)
    stated = token_activations(SIZE, Work(positions=240, targets=90, patches=100), trained, placement)
    assert stated + narrow_weights(sizes_of(model), trained, placement) == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize("precision", list(Precision))
def test_what_a_ctc_stage_keeps_is_what_autograd_keeps(precision: Precision) -> None:
    model, mels = StepAudio2(SIZE, 500, 300), torch.randn(2, 40, 800)

    def forward() -> torch.Tensor:
        with narrow(precision):
            return model.encode(mels, torch.full((2,), 798))

    placement = Placement(activation_bytes=precision.activation_bytes)
    stated = ctc_activations(SIZE, Work(mel_frames=1600, encoder_positions=800), placement)
    copies = narrow_weights(sizes_of(model), {Group.ENCODER}, placement)
    assert stated + copies == pytest.approx(kept_bytes(model, forward), rel=0.05)


def allocated_peak(model: StepAudio2, precision: Precision, parts: int, trace: Path) -> float:
    """The most that torch's allocator held at once in two steps of two sequences each, the model's own weights left out."""
    spans, patches = DocumentSpans(((100, 150),) * 2), torch.full((2,), 50)
    ids, heard = torch.zeros(2, 256).long(), torch.zeros(2, 256, dtype=torch.bool)
    heard[:, :50] = True
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
        for _ in range(2):
            for _ in range(parts):
                with narrow(precision):
                    features = model.hear(torch.randn(2, 40, 402), torch.full((2,), 400), patches)
                    places = torch.cat([torch.arange(200), 256 + torch.arange(200)])
                    hidden = model.hidden(ids, spans.positions(256), spans, heard, features, places_N=places)
                    targets = ids[:, :200].flatten()
                    loss, _ = weighted_loss(hidden, model.lm_head.weight, targets, torch.ones(len(targets)))
                loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    profiled.export_chrome_trace(str(trace))
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event.get("name") == "[memory]"]
    first = min(events, key=lambda event: event["ts"])["args"]
    # The allocator counts on from what earlier profiles left.
    return max(event["args"]["Total Allocated"] for event in events) - (first["Total Allocated"] - first["Bytes"])


# Stated tolerance of the planner: a quarter of the measured peak, on either side.
@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("trained", [{Group.ADAPTOR}, ALL], ids=["adaptor", "all"])
def test_the_peak_is_the_allocators(
    trained: set[Group], precision: Precision, recomputes: bool, parts: int, tmp_path: Path
) -> None:
    model = StepAudio2(SIZE, 1500, 300)
    model.model.recomputes = recomputes
    for group, parameters in model.groups().items():
        for _, parameter in parameters:
            parameter.requires_grad_(Group(group) in trained)
    sizes, placement = sizes_of(model), Placement(activation_bytes=precision.activation_bytes, recomputes=recomputes)
    work = Work.of_example(256, 200, [64_000]) * 2
    stated = step_memory(SIZE, sizes, 1500, work, trained, placement, is_accumulating=parts > 1)
    measured = allocated_peak(model, precision, parts, tmp_path / "trace.json")
    assert stated.peak - stated.weights == pytest.approx(measured, rel=0.25)


def test_shards_divide_and_gathered_layers_do_not() -> None:
    config, work = model_config("mini"), Work(positions=16_384, targets=16_384)
    one = step_memory(config, SIZES, 158_720, work, ALL, Placement(activation_bytes=2, is_cuda=True, recomputes=True))
    eight = step_memory(config, SIZES, 158_720, work, ALL, Placement(8, 2, is_cuda=True, recomputes=True))
    for name in ("weights", "moments", "gradients"):
        assert getattr(eight, name) == getattr(one, name) / 8
    assert eight.activations == one.activations
    # Float32 copies of embedding, head and two blocks of 28; one device has them at hand.
    assert (one.gathered, eight.gathered) == (0, pytest.approx(4 * (2 * 569e6 + 2 / 28 * 6.53e9)))
    trained = sum(SIZES[group] for group in ALL)
    assert one.weights + one.moments + one.gradients == pytest.approx(BYTES_A_TRAINED_WEIGHT * trained + 4 * 637e6)
    assert eight.peak < 78 * 2**30 < one.peak


def test_memory_does_not_grow_with_vocabulary_times_length() -> None:
    config = model_config("mini")

    def workspace(positions: int, rows: int) -> float:
        return step_memory(
            config, SIZES, rows, Work(positions=positions, targets=positions), {Group.ADAPTOR}, Placement()
        ).workspace

    assert workspace(32_768, 158_720) == workspace(32_768, 1000)
