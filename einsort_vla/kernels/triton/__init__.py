"""The backend `triton`: kernels that Triton compiles for the GPU at first use."""

from einsort_vla.codec import Leader
from einsort_vla.kernels.registry import BackendSpec
from einsort_vla.kernels.triton.backend import TritonBackend, why_unavailable

BACKEND = BackendSpec(
    TritonBackend.name,
    {Leader.form: TritonBackend},
    device="cuda",
    why_unavailable=why_unavailable,
    is_automatic=True,
)
