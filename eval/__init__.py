"""Closed-loop evaluation: rollout, statistics, report."""
