"""A file of format 4 decodes to the same bits for ever."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from einsort_vla.checkpoint import read
from einsort_vla.codec import decode

GOLDEN = Path(__file__).parents[1] / "golden"


def test_golden_file_decodes_to_the_same_numbers():
    content = read(GOLDEN / "format4.safetensors")
    expected = load_file(GOLDEN / "format4_decoded.safetensors")
    assert content.coded.keys() == expected.keys()
    for name, matrix in content.coded.items():
        if matrix.spec.form == "network":  # contracted by BLAS, whose sums have no fixed order
            torch.testing.assert_close(decode(matrix), expected[name], rtol=1e-6, atol=1e-9)
        else:
            assert torch.equal(decode(matrix), expected[name]), name
    assert content.dense["a.bias"].tolist() == list(range(19))
