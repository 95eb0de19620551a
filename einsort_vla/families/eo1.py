"""EO-1."""

from einsort_vla.families.family import TABLES, Family

EO1 = Family("eo1", dense={**TABLES, "*lm_head*": "the head over the vocabulary"})
