"""Networks: building, training, saving, and what a saved one answers."""
