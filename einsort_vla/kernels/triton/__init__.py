"""The backend `triton`: kernels that Triton compiles for the GPU at first use."""

from einsort_vla.kernels.triton.backend import TritonBackend, why_unavailable

__all__ = ["TritonBackend", "why_unavailable"]
