"""A fuzzer of all files that the project reads: hostile copies with right fingerprints.

    python -m tests.fuzz                  a few hundred mutations of all kinds
    python -m tests.fuzz --n 10000 -j 2   as many as are asked for, in two processes
    python -m tests.fuzz KIND SEED        one of them again, with its traceback

A sample of each kind of files is made once. Each case copies it, changes one or two places,
computes the fingerprints anew (or leaves them wrong), and opens the copy by the entry point that
users have. It may end in our own error that names the file, or as if nothing had been changed.
"""
