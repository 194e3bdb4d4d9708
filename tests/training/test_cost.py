from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from training.attention import DocumentSpans
from training.config import model_config
from training.cost import Work, stage_flops
from training.features import log_mel
from training.head import weighted_loss
from training.lengths import num_patches, num_valid_frames
from training.model import StepAudio2
from training.recipe import Group

TRAINED = [
    {Group.ADAPTOR},
    {Group.DECODER},
    {Group.HEAD},
    {Group.EMBEDDING, Group.HEAD},
    {Group.ADAPTOR, Group.DECODER, Group.EMBEDDING, Group.HEAD},
]
ROWS, TEXT, SAMPLES, TOKENS, TARGETS = 700, 300, 40_000, 60, 17


def counted(counter: FlopCounterMode) -> float:
    return float(counter.get_total_flops())


def frozen_but(model: StepAudio2, trained: set[Group]) -> None:
    for group, parameters in model.groups().items():
        for _, parameter in parameters:
            parameter.requires_grad_(Group(group) in trained)


def squares(work: Work, rows: int) -> Work:
    """The counter takes no notice of a mask: it counts every pair of a row."""
    return replace(work, pairs=rows * TOKENS**2)


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("trained", TRAINED, ids=lambda groups: "+".join(sorted(groups)))
def test_operations_of_a_step_are_those_that_torch_counts(trained: set[Group], recomputes: bool) -> None:
    config = model_config("micro")
    model = StepAudio2(config, ROWS, TEXT)
    model.model.recomputes = recomputes
    frozen_but(model, trained)
    mels = torch.stack([log_mel(torch.randn(SAMPLES), config.encoder.num_mels)] * 2)
    patches = num_patches(SAMPLES)
    valid = torch.full((2,), num_valid_frames(mels.shape[2]))
    heard = torch.zeros(2, TOKENS, dtype=torch.bool)
    heard[:, 1 : 1 + patches] = True
    spans = DocumentSpans(((TOKENS,), (TOKENS,)))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        features = model.hear(mels, valid, torch.full((2,), patches))
        places = torch.cat([torch.arange(TARGETS), TOKENS + torch.arange(TARGETS)])
        ids, positions = torch.zeros(2, TOKENS).long(), spans.positions(TOKENS)
        hidden = model.hidden(ids, positions, spans, heard, features, places_N=places)
        targets, weights = torch.zeros(2 * TARGETS).long(), torch.ones(2 * TARGETS)
        loss, _ = weighted_loss(hidden, model.lm_head.weight, targets, weights)
        loss.backward()
    work = squares(Work.of_example(TOKENS, TARGETS, [SAMPLES]) * 2, 2)
    parts = stage_flops(config, ROWS, TEXT + 1, work, trained, recomputes=recomputes)
    assert sum(part.total for part in parts.values()) == counted(counter)
    assert parts["encoder"].backward == 0


@pytest.mark.parametrize("trained", [{Group.ENCODER, Group.CTC_HEAD}, {Group.ENCODER}, {Group.CTC_HEAD}])
def test_operations_of_a_ctc_step_are_those_that_torch_counts(trained: set[Group]) -> None:
    config = model_config("micro")
    model = StepAudio2(config, ROWS, TEXT)
    frozen_but(model, trained)
    mels = log_mel(torch.randn(SAMPLES), config.encoder.num_mels)[None]
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.ctc_logits(mels, torch.tensor([num_valid_frames(mels.shape[2])])).sum().backward()
    work = Work.of_example(TOKENS, 0, [SAMPLES])
    parts = stage_flops(config, ROWS, TEXT + 1, work, trained, is_ctc=True)
    assert sum(part.total for part in parts.values()) == counted(counter)


def test_text_alone_costs_no_encoder() -> None:
    parts = stage_flops(model_config("micro"), ROWS, TEXT + 1, Work.of_example(TOKENS, TOKENS - 1), {Group.DECODER})
    assert parts["encoder"].total == parts["adaptor"].total == 0


@pytest.mark.parametrize("lengths", [(7,), (3, 5, 1), (10, 10)])
def test_pairs_are_those_that_the_mask_leaves(lengths: tuple[int, ...]) -> None:
    width = sum(lengths) + 4
    numbers = DocumentSpans((lengths,)).numbers(width)[0]
    mask = (numbers[:, None] == numbers[None, :]) & (numbers >= 0)[:, None] & torch.ones(width, width).tril().bool()
    total = sum((Work.of_example(length, 0) for length in lengths), Work())
    assert total.pairs == int(mask.sum())
    assert total.positions == sum(lengths)


@pytest.mark.parametrize("num_samples", [321, 16_000, 39_999, 400_000])
def test_audio_is_as_long_as_the_model_makes_it(num_samples: int) -> None:
    work = Work.of_example(1, 0, [num_samples])
    config = model_config("micro")
    model = StepAudio2(config, ROWS, TEXT)
    mel = log_mel(torch.randn(num_samples), config.encoder.num_mels)[None]
    assert work.mel_frames == mel.shape[2]
    with torch.no_grad():
        frames = model.encode(mel, torch.tensor([mel.shape[2] - 2]))
        assert (work.encoder_frames, work.patches) == (frames.shape[1], model.adapter(frames).shape[1])
        assert work.encoder_positions == model.encoder.conv2(model.encoder.conv1(mel)).shape[2]


def test_a_large_decoder_costs_six_operations_a_weight_and_token() -> None:
    config = model_config("mini")
    work = Work.of_example(1, 1)
    everything = {Group.ADAPTOR, Group.DECODER, Group.EMBEDDING, Group.HEAD}
    parts = stage_flops(config, 158_720, 151_666, work, everything)
    weights = 6.525e9 + 158_720 * 3584  # blocks and head
    assert parts["decoder"].total + parts["head"].forward + parts["head"].backward == pytest.approx(6 * weights, rel=1e-3)
    aligned = stage_flops(config, 158_720, 151_666, work, {Group.ADAPTOR})
    # Frozen weights have no gradient: a third is saved, and no more.
    assert aligned["decoder"].total == pytest.approx(parts["decoder"].total * 2 / 3, rel=1e-3)
    again = stage_flops(config, 158_720, 151_666, work, everything, recomputes=True)
    assert 1.2 < again["decoder"].total / parts["decoder"].total < 4 / 3
