"""Transformers: `EinSortConfig` compresses a model while it is loaded, saved ones load as they are.

Importing this package registers the method `einsort`; Transformers has no other way to find it.

    from einsort_vla.huggingface import EinSortConfig
    model = AutoModelForCausalLM.from_pretrained(ID, quantization_config=EinSortConfig(rate=0.75))
    model.save_pretrained(FOLDER)
"""

from einsort_vla.errors import importing

with importing(
    "Transformers cannot be imported", "Install it with: pip install 'einsort-vla[transformers]'"
):
    import transformers as _transformers  # noqa: F401

from einsort_vla.huggingface.quantizer import EinSortConfig
from einsort_vla.huggingface.text import watch_text

__all__ = ["EinSortConfig", "watch_text"]
