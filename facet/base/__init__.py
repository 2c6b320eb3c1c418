"""What every stage reads: parameters, names, files and arrays, limits of the processor."""
