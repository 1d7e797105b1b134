"""Language models for decoding: made from text, and tuned to a trained run."""
