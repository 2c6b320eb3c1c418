"""Commands that are not stages: the grid runner, pictures, prediction, settings."""
