"""What cannot be coded is refused with its reason."""

import pytest
import torch

from einsort_vla.codec import CodecSpec, encode, menu
from einsort_vla.errors import NumericsError, ShapeError, UsageError

SPEC = CodecSpec("scalar", b=4)


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (torch.tensor([[1.0, torch.nan]]), NumericsError, "1 NaN or infinite"),
        (torch.tensor([[torch.inf, torch.inf]]), NumericsError, "2 NaN or infinite"),
        (torch.full((2, 2), 1e6), NumericsError, "float16 range"),
        (torch.zeros(3), ShapeError, r"shape \(3,\)"),
        (torch.zeros(0, 3), ShapeError, r"shape \(0, 3\)"),
    ],
)
def test_bad_weights(weight, error, message):
    with pytest.raises(error, match=message):
        encode(weight, SPEC)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "leder"}, "Did you mean 'leader'"),
        ({"form": "scalar", "b": 1}, "2 to 15 bits; 1"),
        ({"form": "leader", "d": 3, "b": 2, "s": 6}, r"no leader table for d=3.*\(2, 2, 6\)"),
    ],
)
def test_bad_specs(arguments, message):
    with pytest.raises(UsageError, match=message):
        CodecSpec(**arguments)


def test_unknown_menu_names_the_forms():
    with pytest.raises(UsageError, match=r"unknown codec 'gguf'\. Valid: leader, scalar"):
        menu("gguf")
