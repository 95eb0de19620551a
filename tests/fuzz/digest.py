"""One text for whatever an entry point returns, so that two results can be compared."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


def digest(value: Any) -> str:
    """SHA-256 of a result, whatever it is made of."""
    sha256 = hashlib.sha256()
    _update(sha256, value)
    return sha256.hexdigest()


def _update(sha256: Any, value: Any) -> None:
    sha256.update(type(value).__name__.encode())
    if isinstance(value, torch.Tensor):
        plain = value.detach().contiguous()
        sha256.update(repr((plain.dtype, tuple(plain.shape))).encode())
        sha256.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, np.ndarray):
        sha256.update(repr((value.dtype, value.shape)).encode() + value.tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            _update(sha256, key)
            _update(sha256, value[key])
    elif isinstance(value, list | tuple | set | frozenset):
        for item in sorted(value, key=repr) if isinstance(value, set | frozenset) else value:
            _update(sha256, item)
    elif isinstance(value, Path):
        sha256.update(value.name.encode("utf-8", "surrogatepass"))
    elif is_dataclass(value):
        for field in fields(value):
            if field.compare:
                _update(sha256, getattr(value, field.name))
    else:
        sha256.update(repr(value).encode("utf-8", "surrogatepass"))
    sha256.update(b";")
