"""Word n-gram language models: reads files and computes probabilities."""
