"""Explains that a package is not installed. Recognition alone needs few of them: docs/recognise-only.md lists them."""

import contextlib
from collections.abc import Iterator

from ds2_jax.system.errors import InputError

ALL, RECOGNISE, RECOGNISE_LM = (f"requirements{name}.txt" for name in ("", "-recognise", "-recognise-lm"))
FILES = {
    **dict.fromkeys(("numpy", "onnxruntime", "soundfile", "soxr", "tqdm", "tyro"), RECOGNISE),
    **dict.fromkeys(("numba", "rapidfuzz"), RECOGNISE_LM),
    **dict.fromkeys(("flax", "jax", "onnx", "optax", "orbax", "safetensors", "scipy"), ALL),
    **dict.fromkeys(("array_record", "etils", "tensorboardX", "tensorflow", "tensorflow_datasets"), ALL),
    **dict.fromkeys(("PIL", "jinja2", "matplotlib"), ALL),
}
"""Packages by their names in Python, and the smallest file of requirements that has them for recognition."""

USES = {
    **dict.fromkeys(("numba", "rapidfuzz"), "A language model, a hot word, beam search or align"),
    "jax": "--engine jax, or a run without a graph for ONNX Runtime,",
    "onnx": "A model without a graph for ONNX Runtime",
    "safetensors": "A .safetensors file",
}
"""What uses a package in recognition."""
INSTEAD = dict.fromkeys(("onnx", "safetensors"), ", or give a folder with a graph, which `export` writes")


@contextlib.contextmanager
def explained(command: str | None = None) -> Iterator[None]:
    """Turns the error of the body into an InputError if a package of `requirements.txt` is missing.

    Args:
        command: name of a command that needs all packages; None for recognition.

    Raises:
        InputError: a package is missing. The message tells how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in FILES:
            raise
        use, file, instead = USES.get(package, "Recognition"), FILES[package], INSTEAD.get(package, "")
        if command:
            use, file, instead = command, ALL, ""
        raise InputError(
            f"{use} must have the package {package}, got an environment without it. "
            f"Install it: pip install -r {file}{instead}"
        ) from error
