from __future__ import annotations

import numpy as np
import pytest

from manifests.mel import mels_of, slaney_filters, slaney_triangles


def test_filters_have_unit_area_and_cover_the_band() -> None:
    filters = slaney_filters(16_000, 4096, 40)
    assert filters.dtype == np.float32
    np.testing.assert_allclose(filters.sum(axis=1) * 16_000 / 4096, 1.0, rtol=0.02)
    assert (filters >= 0).all()
    assert (filters.sum(axis=0)[1:-1] > 0).all()


@pytest.mark.parametrize(("sample_rate_hz", "n_fft", "num_mels"), [(16_000, 400, 80), (16_000, 512, 128), (24_000, 1024, 100)])
def test_equals_torchaudio(sample_rate_hz: int, n_fft: int, num_mels: int) -> None:
    functional = pytest.importorskip("torchaudio.functional")
    bank = (n_fft // 2 + 1, 0.0, sample_rate_hz / 2, num_mels, sample_rate_hz)
    # They reckon in float32: a slope of a few hertz loses four digits.
    peaked = functional.melscale_fbanks(*bank, norm=None, mel_scale="slaney").T.numpy()
    np.testing.assert_allclose(slaney_triangles(sample_rate_hz, n_fft, num_mels)[0], peaked, atol=2e-4)
    unit = functional.melscale_fbanks(*bank, norm="slaney", mel_scale="slaney").T.numpy()
    np.testing.assert_allclose(slaney_filters(sample_rate_hz, n_fft, num_mels), unit, atol=5e-6)


def test_triangles_rise_to_one_at_their_centre_and_are_as_wide_as_stated() -> None:
    triangles, widths = slaney_triangles(16_000, 1 << 16, 20)  # bins of a quarter hertz
    assert triangles.dtype == np.float64
    np.testing.assert_allclose(triangles.max(axis=1), 1.0, atol=2e-3)
    support = (triangles > 0).sum(axis=1, keepdims=True) * 16_000 / (1 << 16)
    np.testing.assert_allclose(widths, support, atol=0.5)
    assert (np.diff(triangles.argmax(axis=1)) > 0).all()


def test_frequencies_stand_on_the_scale_as_slaney_s_toolbox_has_them() -> None:
    hertz = np.array([[0.0, 500.0, 1000.0], [1200.0, 6400.0, 8000.0]])
    mels = mels_of(hertz)
    assert mels.shape == (2, 3)
    np.testing.assert_allclose(mels[0], [0.0, 7.5, 15.0])
    assert mels[1, 1] == pytest.approx(15.0 + 27.0)  # 27 of them make a factor of 6.4
    centres = slaney_triangles(16_000, 1 << 16, 20)[0].argmax(axis=1) * 16_000 / (1 << 16)
    np.testing.assert_allclose(mels_of(centres), np.linspace(0.0, float(mels_of(8000.0)), 22)[1:-1], atol=2e-3)
