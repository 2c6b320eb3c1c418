"""The pipeline's stages. Importing any of them first sets the limits that make bytes repeatable."""

from stages.processor import limit_instructions

limit_instructions()
