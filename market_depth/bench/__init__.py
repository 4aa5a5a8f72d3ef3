"""Reproducible measurements of the parts, each against a yardstick of the same run."""
