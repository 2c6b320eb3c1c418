"""Weights & Biases and provenance: what is recorded of a run, never part of its result."""
