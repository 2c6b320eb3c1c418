"""Data that needs no download: each module writes the raw folder its real source would give."""
