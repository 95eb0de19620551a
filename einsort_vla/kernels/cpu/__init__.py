"""The backend `cpu`: compiled code that multiplies from the coded streams in memory."""

from einsort_vla.codec import Leader
from einsort_vla.kernels.cpu.backend import CpuBackend, decode, why_unavailable
from einsort_vla.kernels.registry import BackendSpec

BACKEND = BackendSpec(
    CpuBackend.name,
    {Leader.form: CpuBackend},
    why_unavailable=why_unavailable,
    is_automatic=True,
    decoders={Leader.form: decode},
)
