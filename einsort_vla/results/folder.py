"""The files of a run folder."""

RUN, LOG, VIDEOS = "run.json", "episodes.jsonl", "videos"  # what a run writes
REPORT, PAGE, CARD = "report.json", "report.html", "report.md"  # what is made of it
