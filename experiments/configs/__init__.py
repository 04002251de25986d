"""Configs: default.py holds every key; the others are diffs against it."""
