"""Codes for weight matrices: one interface, several forms (see `Codec` and `CodecSpec`)."""

from einsort_vla.codec.codec import Codec, spec_from_dict
from einsort_vla.codec.curve import Curve
from einsort_vla.codec.dense import Dense
from einsort_vla.codec.hessian import Hessian
from einsort_vla.codec.interface import CompressedTensor, checked, decode, encode
from einsort_vla.codec.local import Local
from einsort_vla.codec.lossless import Lossless
from einsort_vla.codec.network import Network
from einsort_vla.codec.scalar import Scalar
from einsort_vla.codec.spec import DENSE_BITS, CodecSpec, Extent, Shape

__all__ = [
    "DENSE_BITS",
    "Codec",
    "CodecSpec",
    "CompressedTensor",
    "Curve",
    "Dense",
    "Extent",
    "Hessian",
    "Local",
    "Lossless",
    "Network",
    "Scalar",
    "Shape",
    "checked",
    "decode",
    "encode",
    "spec_from_dict",
]
