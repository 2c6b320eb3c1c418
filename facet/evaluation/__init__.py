"""Metrics, statistics, warnings, pictures and comparisons of runs."""
