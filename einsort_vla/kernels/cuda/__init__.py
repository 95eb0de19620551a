"""The backend `cuda`: kernels that NVRTC compiles, without a CUDA toolkit."""

from einsort_vla.codec import Curve
from einsort_vla.kernels.cuda.backend import CudaBackend, CudaOptions, decode, why_unavailable
from einsort_vla.kernels.registry import BackendSpec

BACKEND = BackendSpec(
    CudaBackend.name,
    {Curve.form: CudaBackend},
    device="cuda",
    why_unavailable=why_unavailable,
    options=CudaOptions,
    is_automatic=True,
    decoders={Curve.form: decode},
)
