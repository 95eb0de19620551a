"""ACT, the action chunking transformer."""

from einsort_vla.families.family import LOOKUP, RAW, UNUSED, Family

ACT = Family(
    "act",
    dense={"*vae_encoder*": UNUSED, "*pos_embed*": LOOKUP, "*attn.out_proj.*": RAW},
    settings={"pretrained_backbone_weights": None},  # the checkpoint holds them
)
