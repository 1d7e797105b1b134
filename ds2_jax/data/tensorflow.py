"""TensorFlow, whose tf.data reads the recordings. No other module imports TensorFlow."""

import functools
import os
from typing import Any


@functools.cache
def load_tensorflow() -> Any:
    """Imports TensorFlow on first use, with few log lines and without access to accelerators, which JAX uses."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # decoding does not use oneDNN, which would log a line
    import tensorflow as tf

    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return tf
