"""Deep Speech 2 in JAX and Flax.

Axis letters, used in every docstring:
    B utterances, S samples, T input frames (10 ms), T' output frames (20 or 40 ms), F frequency bins,
    C channels, H hidden units, V labels with blank, N label positions, G gates of a recurrent cell.

Nothing is imported here, so that `import ds2_jax.model` loads neither TensorFlow nor Orbax and starts no backend.
"""
