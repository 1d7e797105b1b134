"""Receives forms with a recording, within bounds, and keeps the recording in a file that only this user can read."""

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ds2_jax.serving.errors import RequestError, wrong
from ds2_jax.serving.observe import record
from ds2_jax.serving.options import Limits

MAX_FIELDS = 200
FORM_BYTES = 2**20
"""Bytes of a form besides the recording."""
SLOWEST = 2000
"""Bytes a second that an upload must have on average. That is half of a telephone's line, in a compressed format."""


class Upload(NamedTuple):
    """A form.

    Attributes:
        path: the recording.
        fields: values of the other fields, in order. "[]" at the end of a name is left out.
    """

    path: Path
    fields: Mapping[str, Sequence[str]]

    def field(self, name: str) -> str | None:
        """Returns the last value of a field; None if it is missing or empty."""
        return self.fields.get(name, [""])[-1] or None


@contextlib.asynccontextmanager
async def received(request: Request, folder: Path, limits: Limits) -> AsyncIterator[Upload]:
    """Receives a form whose field "file" is a recording. The file is removed afterwards.

    Raises:
        RequestError: it is no such form, it is too large, the client is too slow, or the disk is full.
        ClientDisconnect: the client went away.
    """
    with contextlib.ExitStack() as opened:
        form = await _parsed(request, limits, opened)
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise wrong("file", "be a file", "none", "Send the recording as a part of multipart/form-data.")
        record().file = file.filename
        try:
            path = await run_in_threadpool(_save, file.file, folder)
        except OSError as error:
            raise _storage(error) from error
        opened.callback(path.unlink, missing_ok=True)
        yield Upload(path, _fields(form))


async def _parsed(request: Request, limits: Limits, opened: contextlib.ExitStack) -> FormData:
    """Reads a form. `opened` closes its files."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise RequestError(400, "The body must be multipart/form-data, got another type. Send a form with a file.")
    most = int(limits.max_megabytes * 1e6)
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most + FORM_BYTES:
        raise _too_large(limits)
    parser = MultiPartParser(
        request.headers, _bounded(request, limits, most + FORM_BYTES), max_files=1, max_fields=MAX_FIELDS
    )
    opened.callback(_close_files, parser)
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise RequestError(400, f"The body must be a form with one file, got: {error.message}") from error
    except OSError as error:
        raise _storage(error) from error


def _close_files(parser: MultiPartParser) -> None:
    for file in parser._files_to_close_on_error:  # those of a form that is cut short are in no form
        file.close()


async def _bounded(request: Request, limits: Limits, most: int) -> AsyncGenerator[bytes, None]:
    """Receives a body, at most so many bytes, with pauses that are not too long."""
    num_bytes, started = 0, time.monotonic()
    chunks = request.stream()
    while True:
        try:
            chunk = await asyncio.wait_for(anext(chunks), limits.idle_seconds)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise RequestError(408, "The upload must go on, got a pause. Send it again.") from error
        num_bytes += len(chunk)
        if num_bytes > most:
            raise _too_large(limits)
        if time.monotonic() - started > limits.idle_seconds + num_bytes / SLOWEST:
            raise RequestError(408, f"The upload must have {SLOWEST} bytes a second, got fewer. Send it again.")
        yield chunk


def _fields(form: FormData) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields.setdefault(name.removesuffix("[]"), []).append(value)
    return fields


def _save(file: BinaryIO, folder: Path) -> Path:
    """Copies an upload to a file of mode 0600."""
    start = file.read(3)
    file.seek(0)
    # libsndfile recognises some MP3 files that begin with an ID3 tag only by the end of their name.
    handle, name = tempfile.mkstemp(".mp3" if start == b"ID3" else "", "upload", folder)
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as copy:
            shutil.copyfileobj(file, copy, 2**20)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _too_large(limits: Limits) -> RequestError:
    rule = f"have at most {limits.max_megabytes:g} MB"
    return RequestError(413, f"file must {rule}, got more. Send it in parts or as FLAC.", "file", "too_large")


def _storage(error: OSError) -> RequestError:
    return RequestError(507, f"The server must have space for the upload, got: {error.strerror}. Try again later.")
