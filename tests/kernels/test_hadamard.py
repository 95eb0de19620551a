"""The op of the rotation against the rotation of matrices."""

import pytest
import torch

from einsort_vla.codec.rotation import rotate
from einsort_vla.kernels import hadamard  # noqa: F401  registers the op

TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.mark.parametrize("n", [1, 7, 24, 64, 128, 720, 2048, 4304])
def test_it_rotates_as_the_codec_does(n):
    x = torch.randn(2, 3, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    for dtype, tolerance in TOLERANCE.items():
        given = x.to(dtype)
        found = torch.ops.einsort.hadamard(given)
        expected = rotate(given.double().flatten(0, 1)).view(x.shape)
        assert (found.dtype, found.shape) == (dtype, x.shape)
        assert (found - expected).norm() < tolerance * expected.norm()


def test_it_is_whole_and_takes_views_and_nothing():
    x = torch.randn(48, 3).t()
    torch.testing.assert_close(torch.ops.einsort.hadamard(x), rotate(x))
    torch.library.opcheck(torch.ops.einsort.hadamard.default, (x,))
    assert torch.ops.einsort.hadamard(torch.zeros(2, 0, 24)).shape == (2, 0, 24)
