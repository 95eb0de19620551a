"""The EinSort paper's sorted tensor networks, one stage a module."""

from einsort_vla.codec.network.form import Network

FORM = Network

__all__ = ["FORM", "Network"]
