"""Finds the model that a user names: a path, the name of a model in this package, or an address with its SHA-256."""

import re
from pathlib import Path

from ds2_jax.engines.onnx_file import MAX_BYTES
from ds2_jax.system import locks
from ds2_jax.system.caches import cache_folder, user_cache
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import file_digest

PRETRAINED = Path(__file__).with_name("pretrained")
"""Folder of the models that this package contains."""
ADDRESS = re.compile(r"(https?):/+(.+)", re.IGNORECASE)  # a Path has one slash for two
WITH_SUM = re.compile(r"([^#]+/)([^#/\\]+\.(?:safetensors|onnx))#sha256=([0-9a-fA-F]{64})")
DOWNLOADS = "models"


def find_model(named: Path) -> Path:
    """Returns the path of a model.

    Args:
        named: a path; or the name of a model in this package, unless there is a path of that name; or
            URL#sha256=HEX, the address of a .safetensors or .onnx file and its SHA-256. The file is downloaded once.

    Raises:
        InputError: an address has no checksum, another suffix, or a file of another checksum; or it cannot be reached.
    """
    if address := ADDRESS.fullmatch(named.as_posix()):
        return _downloaded(f"{address[1].lower()}://", address[2])
    own = PRETRAINED / f"{named}.safetensors"
    return own if len(named.parts) == 1 and not named.exists() and own.is_file() else named


def told(model: Path) -> str:
    """Returns what messages call the model at a path: the path, or the name of a model in this package."""
    return model.stem if model.parent == PRETRAINED else str(model)


def home(model: Path) -> Path:
    """Returns the folder of a model's results and of what was fitted to it: its own, or that of its file.

    The results of a model in this package, or of one that was downloaded, lie in ./NAME-SUM-results, with the first
    digits of its SHA-256.
    """
    if not model.is_file():
        return model
    folder = model.resolve().parent
    if folder == PRETRAINED.resolve() or folder.parent == _downloads():
        return Path(f"{model.stem}-{file_digest(model)[:8]}-results")
    return model.parent


def _downloads() -> Path | None:
    try:
        return (user_cache() / "ds2_jax" / DOWNLOADS).resolve()
    except RuntimeError:  # the user has no home folder
        return None


def _downloaded(scheme: str, address: str) -> Path:
    found = WITH_SUM.fullmatch(address)
    if found is None:
        rule = "be the address of a .safetensors or .onnx file with its SHA-256, URL#sha256=HEX"
        raise InputError(f"RUN must {rule}, got {scheme}{address}. Its publisher states the sum.")
    from ds2_jax.system.download import download  # this import loads tqdm

    place, name, wanted = found[1], found[2], found[3].lower()
    try:
        folder = cache_folder(DOWNLOADS) / wanted
        folder.mkdir(exist_ok=True)
        file = folder / name
        with locks.locked(folder, on_taken=lambda: None, on_no_locks=lambda _: None):  # one process downloads
            if file.exists() and file_digest(file) != wanted:
                file.unlink()
            download(f"{scheme}{place}{name}", file, wanted, most_bytes=MAX_BYTES)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{scheme}{place}{name} must be downloadable into the cache, got {error}. "
            "XDG_CACHE_HOME names another folder for it."
        ) from error
    return file
