"""The texts that a model's file carries: its settings, and what was fitted to it."""

from pathlib import Path

from ds2_jax.engines import safetensors
from ds2_jax.engines.onnx_file import check_graph, read_graph


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the texts of a .onnx or .safetensors file.

    Raises:
        InputError: the file cannot be read, or is no such model.
    """
    if path.suffix == ".safetensors":
        return safetensors.read_metadata(path)
    return check_graph(read_graph(path), str(path))
