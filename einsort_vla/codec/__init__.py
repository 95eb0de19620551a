"""Codes for weight matrices: one interface, several forms (see `CodecSpec`)."""

from einsort_vla.codec.dense import Dense
from einsort_vla.codec.interface import (
    FORMS,
    check_codec,
    choices,
    decode,
    encode,
    menu,
    n_bits,
    spec_from_dict,
)
from einsort_vla.codec.leader import Leader
from einsort_vla.codec.local import Local
from einsort_vla.codec.lossless import Lossless
from einsort_vla.codec.network import Network
from einsort_vla.codec.scalar import Scalar
from einsort_vla.codec.spec import DENSE_BITS, CodecSpec, Shape
from einsort_vla.codec.tensor import CompressedTensor

__all__ = [
    "DENSE_BITS",
    "FORMS",
    "CodecSpec",
    "CompressedTensor",
    "Dense",
    "Leader",
    "Local",
    "Lossless",
    "Network",
    "Scalar",
    "Shape",
    "check_codec",
    "choices",
    "decode",
    "encode",
    "menu",
    "n_bits",
    "spec_from_dict",
]
