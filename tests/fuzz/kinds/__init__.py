"""The kinds of files that are read: how a sample of each is made, opened and signed."""

from tests.fuzz.kinds.kind import Kind

__all__ = ["Kind"]
