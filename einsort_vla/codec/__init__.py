"""Codes for weight matrices: one interface, several forms (see `CodecSpec`)."""

from einsort_vla.codec.interface import decode, encode, n_bits
from einsort_vla.codec.spec import FORMS, CodecSpec, menu, predicted_distortion
from einsort_vla.codec.tensor import CompressedTensor

__all__ = [
    "FORMS",
    "CodecSpec",
    "CompressedTensor",
    "decode",
    "encode",
    "menu",
    "n_bits",
    "predicted_distortion",
]
