"""The forms and the backends there are, each registered by its line here.

`--help` names them, so this needs no torch. A form `x` is the module `einsort_vla.codec.x`, whose
`FORM` is its class; a backend `x` is `einsort_vla.kernels.x`, whose `BACKEND` says all of it.
"""

DENSE = "dense"  # the form of what is not coded: part of each one's menu, not for users to choose
FORMS = ("curve", "local", "lossless", "network", "scalar")
"""The forms a user may choose."""
DEFAULT_FORM = "curve"

# With what `--help` says of each. Of those for one device `auto` prefers the first.
_MODULES = {
    "decoded": "at load",
    "cpu": "compiled code, from the streams",
    "cuda": "the same on a GPU",
    "reference": "decoded anew at each call",
    "factored": "one factor after the other",
}
AUTO = "auto"
BACKENDS = {**_MODULES, AUTO: "the fastest that runs here"}
"""The backends a user may name."""
