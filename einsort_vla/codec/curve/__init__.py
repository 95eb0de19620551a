"""The curve code: weights as integers that are computed from windows of a bit stream."""

from einsort_vla.codec.curve.form import Curve

FORM = Curve

__all__ = ["FORM", "Curve"]
