"""The backend `cuda`: kernels that NVRTC compiles, without a CUDA toolkit."""

from einsort_vla.codec import Leader
from einsort_vla.kernels.cuda.backend import CudaBackend, CudaOptions, why_unavailable
from einsort_vla.kernels.registry import BackendSpec

BACKEND = BackendSpec(
    CudaBackend.name,
    {Leader.form: CudaBackend},
    device="cuda",
    why_unavailable=why_unavailable,
    options=CudaOptions,
    is_automatic=True,
)
