"""Finds the model that a user names: a path, the name of a model in this package, or an address with its SHA-256."""

import re
from pathlib import Path

from ds2_jax.runs.run_folder import PRETRAINED
from ds2_jax.system.caches import cache_folder
from ds2_jax.system.errors import InputError

ADDRESS = re.compile(r"(https?):/+(.+)")  # a Path has one slash for two
WITH_SUM = re.compile(r"([^#]+/)([^#/]+\.(?:safetensors|onnx))#sha256=([0-9a-f]{64})")
DOWNLOADS = "models"


def find_model(named: Path) -> Path:
    """Returns the path of a model.

    Args:
        named: a path; or the name of a model in this package, unless there is a path of that name; or
            URL#sha256=HEX, the address of a .safetensors or .onnx file and its SHA-256. The file is downloaded once.

    Raises:
        InputError: an address has no checksum, another suffix, or a file of another checksum; or it cannot be reached.
    """
    if address := ADDRESS.fullmatch(str(named)):
        return _downloaded(f"{address[1]}://{address[2]}")
    own = PRETRAINED / f"{named}.safetensors"
    return own if len(named.parts) == 1 and not named.exists() and own.is_file() else named


def pretrained() -> list[str]:
    """Lists the names of the models in this package."""
    return sorted(path.stem for path in PRETRAINED.glob("*.safetensors"))


def _downloaded(address: str) -> Path:
    found = WITH_SUM.fullmatch(address)
    if found is None:
        rule = "be the address of a .safetensors or .onnx file with its SHA-256, URL#sha256=HEX"
        raise InputError(f"RUN must {rule}, got {address}. Its publisher states the sum; sha256sum computes it.")
    from ds2_jax.system.download import download

    file = cache_folder(DOWNLOADS) / found[3] / found[2]
    download(found[1] + found[2], file, found[3])
    return file
