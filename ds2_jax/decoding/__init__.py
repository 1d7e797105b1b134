"""From what the model gives for each frame to text."""
