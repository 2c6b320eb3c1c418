"""Programs for those who change Facet; nothing of the library imports them."""
