"""The backend `cpu`: compiled code that multiplies from the coded streams in memory."""

from typing import Any

from einsort_vla.codec import CompressedTensor, Curve, Leader
from einsort_vla.kernels.cpu.backend import CpuBackend, decode, why_unavailable
from einsort_vla.kernels.native.backend import CpuOptions, NativeBackend
from einsort_vla.kernels.native.backend import decode as decode_curve
from einsort_vla.kernels.registry import BackendSpec


def _of_leader(compressed: CompressedTensor, _: Any = None) -> CpuBackend:
    return CpuBackend(compressed)


BACKEND = BackendSpec(
    CpuBackend.name,
    {Curve.form: NativeBackend, Leader.form: _of_leader},
    why_unavailable=why_unavailable,
    options=CpuOptions,
    is_automatic=True,
    decoders={Curve.form: decode_curve, Leader.form: decode},
)
