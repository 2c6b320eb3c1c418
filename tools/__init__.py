"""Commands that are not stages: the grid runner, pictures, prediction, settings."""

import stages  # noqa: F401  its limits come before numpy and TensorFlow are imported
