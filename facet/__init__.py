"""Facet's library. Importing any of it first sets the limits that make bytes repeatable."""

from facet.base.processor import limit_instructions

limit_instructions()
