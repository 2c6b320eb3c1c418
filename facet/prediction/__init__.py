"""Trained models in use: what they predict, and pictures of them."""
