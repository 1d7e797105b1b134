"""Builds n-gram language models from text, for decoding."""
