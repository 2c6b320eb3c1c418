"""The grid runner: all runs on all cores."""
