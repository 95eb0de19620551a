"""A package by name: draccus's wheel brings one of the same name, which would come first."""
