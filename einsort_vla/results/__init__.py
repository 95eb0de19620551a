"""Results of an evaluation: from episodes to statistics, verdicts and pages.

Knows no simulator and no torch; the layout of a run folder is in docs/evaluation.md. A simulator's
process takes no more than `arms`, `episode`, `log`, `measures`, `motion` and `run`, which load
neither scipy nor jinja2 nor matplotlib.
"""
