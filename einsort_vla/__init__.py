"""EinSort weight compression for vision-language-action policies.

Importing this package loads nothing else: take what you need from its submodules, in the order
of the data flow: `plan`, `codec`, `checkpoint`, `layers`, `kernels`.
"""

__all__ = ["__version__"]

__version__ = "0.1.0.dev0"
