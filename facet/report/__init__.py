"""The report: all results on one page."""
