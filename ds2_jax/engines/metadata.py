"""The texts that a model's file carries: its settings, and what was fitted to it."""

from pathlib import Path

from ds2_jax.engines import safetensors
from ds2_jax.engines.onnx_file import check_graph
from ds2_jax.system.errors import InputError


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the texts of a .onnx or .safetensors file.

    Raises:
        InputError: the file cannot be read, or is no such model.
    """
    if path.suffix == ".safetensors":
        return safetensors.read_metadata(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} must be readable, got: {error.strerror}. Export the model again.") from error
    return check_graph(content, str(path))
