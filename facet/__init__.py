"""Facet's library. Importing any of it first sets the limits that make bytes repeatable."""

import facet.base  # noqa: F401
