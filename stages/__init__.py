"""The pipeline's stages, one program each: read inputs, call facet, write outputs.

They import the standard library and facet alone, facet.base first: importing it sets limits that
numpy and TensorFlow read when they are imported.
"""
