"""Word n-gram language models: from files to probabilities."""
