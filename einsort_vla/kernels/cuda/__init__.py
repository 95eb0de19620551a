"""The backend `cuda`: kernels that NVRTC compiles, without a CUDA toolkit."""

from einsort_vla.kernels.cuda.backend import CudaBackend, why_unavailable

__all__ = ["CudaBackend", "why_unavailable"]
