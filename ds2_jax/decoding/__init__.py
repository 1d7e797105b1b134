"""Decoding: turns the model's log-probabilities into text."""
