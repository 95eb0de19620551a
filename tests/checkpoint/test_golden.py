"""A file of format 9 decodes to the same bits for ever, but for what BLAS multiplies."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from einsort_vla.checkpoint import read
from einsort_vla.codec import decode

GOLDEN = Path(__file__).parents[1] / "golden"


def test_golden_file_decodes_to_the_same_numbers():
    content = read(GOLDEN / "format9.safetensors")
    expected = load_file(GOLDEN / "format9_decoded.safetensors")
    assert content.coded.keys() == expected.keys()
    for name, matrix in content.coded.items():
        spec = matrix.spec
        if spec.form == "network" or getattr(spec, "rotated", False):
            # multiplied by BLAS, whose sums have another order on other processors
            torch.testing.assert_close(decode(matrix), expected[name], rtol=1e-6, atol=1e-6)
        else:
            assert torch.equal(decode(matrix), expected[name]), name
    assert content.dense["a.bias"].tolist() == list(range(19))
