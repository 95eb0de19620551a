"""Reads the text in a picture, by PP-OCRv4 in ONNX Runtime (`rapidocr-onnxruntime`)."""

from typing import Any

import numpy as np
from PIL import Image

from einsort_vla.errors import importing

PACKAGE = "rapidocr-onnxruntime"


class Reader:
    """Finds words; the networks are loaded once.

    Args:
        n_threads: that ONNX Runtime may use.

    Raises:
        MissingDependency: the package is not installed.
    """

    def __init__(self, n_threads: int = 1) -> None:
        fix = (
            f"pip install {PACKAGE}. Or give questions that have OCR tokens, or a model that sees."
        )
        with importing(f"pictures are read by {PACKAGE}, which cannot be imported", fix):
            from rapidocr_onnxruntime import RapidOCR
        self._engine: Any = RapidOCR(intra_op_num_threads=n_threads)

    def read(self, image: Image.Image) -> tuple[str, ...]:
        """The words, from top to bottom, split at spaces as in TextVQA's OCR tokens."""
        blue_first = np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
        lines, _ = self._engine(blue_first)
        return tuple(word for _, text, _ in lines or () for word in text.split())
