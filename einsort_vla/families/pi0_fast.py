"""pi0-FAST: a language model whose words are the actions."""

from einsort_vla.families.family import TABLES, Family

PI0_FAST = Family("pi0_fast", dense={**TABLES, "*lm_head*": "the head over the action tokens"})
