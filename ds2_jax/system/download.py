"""Downloads files, with resume, and computes their checksums."""

import functools
import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from ds2_jax.system.errors import InputError

CHUNK_BYTES = 1 << 16
TIMEOUT_SECONDS = 30.0


def download(
    url: str,
    path: Path,
    checksum: str | None = None,
    advice: str = "Run the command again.",
    *,
    shows_bar: bool = True,
    most_bytes: int | None = None,
) -> None:
    """Downloads `url` to `path` with a progress bar, unless `path` exists.

    The bytes are written to PATH.part, from which a later call resumes if the server allows it. `path` appears when it
    is complete. If the file on the server changes between two calls, the resumed file mixes both versions. Only
    `checksum` detects this.

    Args:
        url: http or https address.
        path: file to write.
        checksum: hexadecimal MD5 or SHA-256 of the file, distinguished by the length; None for no check.
        advice: what the user can do if the download fails.
        shows_bar: False if the caller shows the progress of several downloads.
        most_bytes: the file may have so many bytes at most.

    Raises:
        InputError: the server cannot be reached or refuses, the connection breaks, or the disk is full (PATH.part is
            kept); or the file has another checksum (PATH.part is deleted).
    """
    if path.exists():
        return
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        _fetch(url, part, shows_bar, most_bytes)
        if checksum is not None:
            name, digest = {32: ("MD5", file_md5), 64: ("SHA-256", file_sha256)}[len(checksum)]
            if (found := digest(part)) != checksum:
                part.unlink()
                raise InputError(f"{url} must have the {name} {checksum}, got {found}. {advice}")
        part.replace(path)
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: an address that is none
        raise InputError(f"{url} must be downloadable to {part}, got {error}. {advice}") from error


def file_md5(path: Path) -> str:
    """Computes the hexadecimal MD5 of a file, which detects damage but not forgery."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, functools.partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def file_sha256(path: Path) -> str:
    """Computes the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(url: str, part: Path, shows_bar: bool, most_bytes: int | None) -> None:
    """Downloads the missing bytes of `part`."""
    offset = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not offset:
            raise
        part.unlink()  # it is not shorter than the file on the server, so it cannot be resumed
        _fetch(url, part, shows_bar, most_bytes)
        return
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            offset = 0
        length = response.headers["Content-Length"]
        total = None if length is None else offset + int(length)
        with (
            part.open("ab" if offset else "wb") as file,
            tqdm(desc=part.stem, initial=offset, total=total, unit="B", unit_scale=True, disable=not shows_bar) as bar,
        ):
            received = offset
            while chunk := response.read(CHUNK_BYTES):
                received += len(chunk)
                if most_bytes is not None and received > most_bytes:
                    raise ConnectionError(f"more than {most_bytes:,} bytes")
                file.write(chunk)
                bar.update(len(chunk))
    received = part.stat().st_size
    if total is not None and received != total:
        raise ConnectionError(f"{received} of {total} bytes before the connection closed")
