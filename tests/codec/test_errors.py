"""What cannot be coded is refused with its reason."""

import pytest
import torch

from einsort_vla.codec import Codec, Curve, Dense, Hessian, Scalar, decode, encode, spec_from_dict
from einsort_vla.errors import NumericsError, ShapeError, UsageError

SPEC = Scalar(4)


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (torch.tensor([[1.0, torch.nan]]), NumericsError, "1 NaN or infinite"),
        (torch.tensor([[torch.inf, torch.inf]]), NumericsError, "2 NaN or infinite"),
        (torch.full((2, 2), 1e6), NumericsError, "float16 range.*--exclude"),
        (torch.tensor([[1.0], [1e-9]]), NumericsError, "mean square of 1e-09, too small"),
        (torch.zeros(3), ShapeError, r"shape \(3,\)"),
        (torch.zeros(0, 3), ShapeError, r"shape \(0, 3\)"),
    ],
)
def test_bad_weights(weight, error, message):
    with pytest.raises(error, match=message):
        encode(weight, SPEC)


def test_codes_of_too_narrow_a_type():
    wide = torch.tensor([[4e4, -4e4, 1.1]])
    with pytest.raises(NumericsError, match=r"8e\+04 apart, beyond"):
        encode(wide, Scalar(4, grid="asymmetric"))
    assert torch.isfinite(decode(encode(wide, Scalar(4)))).all()
    with pytest.raises(NumericsError, match=r"values that bfloat16 cannot.*dtype: float32"):
        encode(wide, Dense())


def test_what_stays_dense_takes_the_narrowest_type_that_is_exact():
    wide = torch.tensor([[4e4, -4e4, 1.1]])
    found = [Dense.of(weight).dtype for weight in (wide.bfloat16().float(), wide.half(), wide)]
    assert found == ["bfloat16", "float16", "float32"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"form": "curv"}, "Did you mean 'curve'"),
        ({"form": "scalar", "bits": 1}, "2 to 15 bits, nf4 takes 4; 1 was"),
        ({"form": "scalar", "bits": 3, "grid": "nf4"}, "nf4 takes 4; 3 was"),
        ({"form": "scalar", "bits": 3, "grid": "log"}, "unknown scalar grid 'log'"),
        ({"form": "scalar", "bits": 3, "group": 1}, "2 or more inputs, .* or 0 for all; not 1"),
        ({"form": "dense", "dtype": "float64"}, "unknown dense dtype 'float64'"),
        ({"form": "curve", "bits": 2.0, "window": 9}, "windows of 10, 12.* bits; not 9"),
    ],
)
def test_bad_specs(parameters, message):
    with pytest.raises(UsageError, match=message):
        spec_from_dict(parameters)


@pytest.mark.parametrize("spec", [Scalar(3), Curve(2.0)], ids=str)
@pytest.mark.parametrize(
    ("hessian", "error", "message"),
    [
        (torch.eye(5), ShapeError, r"Hessian has shape \(5, 5\).*4 inputs needs \(4, 4\)"),
        (torch.full((4, 4), torch.nan), NumericsError, "NaN or infinite values; calibrate"),
        (torch.zeros(4, 4), NumericsError, "no inputs were seen"),
        (torch.ones(4, 4) - 0.5 * torch.eye(4), NumericsError, "not positive definite"),
    ],
)
def test_bad_hessians(spec, hessian, error, message):
    with pytest.raises(error, match=message):
        encode(torch.randn(6, 4), spec, Hessian(hessian))


def test_unknown_menu_names_the_forms():
    with pytest.raises(UsageError, match=r"unknown codec 'gguf'\. Valid: curve, local, .*scalar"):
        Codec.parse("gguf")


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        ("", "unknown codec ''"),
        ("dense", "unknown codec 'dense'"),
        ("curve windw=12", "unknown option of --codec curve 'windw'. Did you mean 'window'"),
        ("curve window=9", "windows of 10, 12, 13, 14, 16 bits; not 9"),
        ("scalar clip=yes", "'clip=yes' must be true or false"),
        ("scalar group=many", "'group=many' must be a whole number"),
        ("scalar grid=log", "unknown scalar grid 'log'"),
        ("network decomposition=svdd", "Did you mean 'svd'"),
        ("lossless level=9", "it has none"),
    ],
)
def test_bad_options_of_a_codec(codec, message):
    with pytest.raises(UsageError, match=message):
        Codec.parse(codec)


def test_options_hold_for_all_codes_of_a_menu():
    def menu(text):
        return Codec.parse(text).menu()

    assert {spec.group for spec in menu("scalar group=64")[:-1]} == {64}
    assert {spec.window for spec in menu("curve window=10")[:10]} == {10}
    assert not any(spec.rotated for spec in menu("curve rotated=false")[:-1])


def test_a_codec_is_a_value():
    """Equal where it offers the same codes, with one text, whatever was typed."""
    same = [Codec.parse(text) for text in ("curve", "curve window=13", " curve  rotated=true")]
    assert set(same) == {Codec("curve")}
    assert {str(codec) for codec in same} == {"curve"}
    long = Codec.parse("scalar grid=nf4 group=128 clip=true")
    assert str(long) == "scalar group=128 grid=nf4 clip=true"
    assert Codec.parse(str(long)) == long != Codec.parse("scalar group=64")


def test_defaults_of_a_user_do_not_undo_what_was_said():
    kept = Codec.parse("curve window=14").with_defaults(window=10, group=3)
    assert kept == Codec.parse("curve window=14")
    assert Codec.parse("scalar group=0").with_defaults(group=64) == Codec("scalar")
    assert Codec.parse("curve rotated=false").with_defaults(window=10) == Codec.parse(
        "curve window=10 rotated=false"
    )
