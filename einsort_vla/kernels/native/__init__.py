"""Compiled code for matrices in the `curve` form, with a plain C interface; see einsort.h."""
