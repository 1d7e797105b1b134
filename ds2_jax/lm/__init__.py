"""Builds language models for decoding from text."""
