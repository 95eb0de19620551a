"""NVRTC, the run-time compiler of CUDA, as the nvidia-cuda-nvrtc packages install it."""

import ctypes
import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from einsort_vla.errors import MissingDependency

INSTALL = "pip install nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-nvrtc-cu12==12.6.85"


@dataclass(frozen=True)
class Nvrtc:
    """One version of the compiler."""

    path: Path

    @property
    def version(self) -> tuple[int, int]:
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    @property
    def sms(self) -> frozenset[int]:
        """What it compiles for, as 10 x major + minor of the compute capability."""
        n = ctypes.c_int()
        self._check("nvrtcGetNumSupportedArchs", ctypes.byref(n))
        found = (ctypes.c_int * n.value)()
        self._check("nvrtcGetSupportedArchs", found)
        return frozenset(found)

    def cubin(self, source: Path, sm: int, flags: Sequence[str] = ()) -> bytes:
        """The machine code of a file, whose folder is searched for what it includes.

        Raises:
            MissingDependency: it does not compile, or not for that SM.
        """
        if sm not in self.sms:
            raise MissingDependency(
                f"NVRTC {self._name()} does not compile for sm_{sm}, only for "
                f"{', '.join(f'sm_{known}' for known in sorted(self.sms))}."
            )
        program = ctypes.c_void_p()
        text, name = source.read_bytes(), source.name.encode()
        self._check("nvrtcCreateProgram", ctypes.byref(program), text, name, 0, None, None)
        try:
            options = [f"-arch=sm_{sm}", "-std=c++17", f"-I{source.parent}", *flags]
            array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            if self._library.nvrtcCompileProgram(program, len(options), array):
                log = self._text(program, "nvrtcGetProgramLog").decode()
                raise MissingDependency(
                    f"NVRTC {self._name()} cannot compile {source.name} for sm_{sm}: {log[:800]}"
                )
            return self._text(program, "nvrtcGetCUBIN")
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    @functools.cached_property
    def _library(self) -> ctypes.CDLL:
        try:
            for builtins in self.path.parent.glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)  # else it is not found by its name
            return ctypes.CDLL(str(self.path))
        except OSError as error:
            raise MissingDependency(f"NVRTC cannot be loaded: {error}. {INSTALL}") from error

    def _text(self, program: ctypes.c_void_p, function: str) -> bytes:
        n = ctypes.c_size_t()
        self._check(f"{function}Size", program, ctypes.byref(n))
        text = ctypes.create_string_buffer(n.value)
        self._check(function, program, text)
        return text.raw

    def _check(self, function: str, *arguments: object) -> None:
        if result := getattr(self._library, function)(*arguments):
            raise MissingDependency(f"{function} of {self.path} fails: error {result}.")

    def _name(self) -> str:
        return ".".join(map(str, self.version))


@functools.cache
def installed() -> tuple[Nvrtc, ...]:
    """Every NVRTC of the environment, the oldest first.

    Raises:
        MissingDependency: there is none.
    """
    package = importlib.util.find_spec("nvidia")
    folders = (package.submodule_search_locations if package else None) or ()
    found = [
        Nvrtc(path)
        for folder in folders
        for path in Path(folder).glob("*/lib/libnvrtc.so.*")
        if path.suffix[1:].isdigit()
    ]
    if not found:
        raise MissingDependency(f"the CUDA kernels need NVRTC, and none is installed: {INSTALL}")
    return tuple(sorted(found, key=lambda nvrtc: nvrtc.version))


def compiler_for(sm: int) -> Nvrtc:
    """The oldest NVRTC that compiles for `sm`: drivers load what older versions made, not newer.

    Raises:
        MissingDependency: there is no NVRTC, or none for that SM.
    """
    found = next((nvrtc for nvrtc in installed() if sm in nvrtc.sms), None)
    if found is None:
        versions = ", ".join(".".join(map(str, nvrtc.version)) for nvrtc in installed())
        known = sorted(frozenset().union(*(nvrtc.sms for nvrtc in installed())))
        raise MissingDependency(
            f"no NVRTC here (versions {versions}) compiles for sm_{sm}, only for "
            f"{', '.join(f'sm_{other}' for other in known)}. All versions that are used: {INSTALL}"
        )
    return found
