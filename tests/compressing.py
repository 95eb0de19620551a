"""A policy folder compressed in one call."""

from einsort_vla.checkpoint import DenseFolder, compress_folder, plan_folder
from einsort_vla.codec import Codec

CURVE = Codec("curve")


def plan(source, rate=0.5, codec=CURVE):
    return plan_folder(DenseFolder(source), rate, codec)


def compress(source, destination, rate=0.5, codec=CURVE, **more):
    """The summary; `more` is for `compress_folder`."""
    dense = DenseFolder(source)
    return compress_folder(dense, destination, plan_folder(dense, rate, codec), **more)
