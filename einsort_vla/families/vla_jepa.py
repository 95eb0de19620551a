"""VLA-JEPA: the world model that it is trained with is not needed to act."""

from einsort_vla.families.family import LOOKUP, TABLES, UNUSED, Family

_TRAINING = "the world model, which only training needs"

VLA_JEPA = Family(
    "vla_jepa",
    dense={
        **TABLES,
        "*lm_head*": "the look-up table, stored as the head tied to it",
        "*future_tokens*": LOOKUP,
        "*pos_embed*": LOOKUP,
    },
    dropped={
        "*lm_head*": UNUSED,
        "model.video_encoder.*": _TRAINING,
        "model.video_predictor.*": _TRAINING,
    },
    tied={"*lm_head*": "*embed_tokens.weight"},
    settings_coded={"enable_world_model": False},
)
