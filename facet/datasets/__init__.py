"""Data sets: sources, decoding, labels, splits, inputs, augmentation."""
