"""The backend `cpu`: C++ that the system's compiler builds at first use."""

from einsort_vla.kernels.cpu.backend import CpuBackend

__all__ = ["CpuBackend"]
