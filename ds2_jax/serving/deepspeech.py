"""The API of deepspeech.pytorch's server: POST /transcribe."""

import contextlib

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ds2_jax.recognition.transcript import Transcript
from ds2_jax.serving.errors import RequestError
from ds2_jax.serving.service import Service, unless_gone
from ds2_jax.serving.uploads import received


async def transcribe(request: Request) -> Response:
    """POST /transcribe: the status is always 200, also for errors.

    Source: deepspeech.pytorch, server.py.
    """
    service: Service = request.app.state.service

    async def whole() -> Transcript:
        async with contextlib.aclosing(service.recognise(service.model(None), upload.path)) as results:
            return [each async for each in results if isinstance(each, Transcript)][-1]

    try:
        with service.request():
            async with received(request, service.folder, service.limits) as upload:
                transcript = await unless_gone(request, whole)
    except RequestError as error:
        return JSONResponse({"status": "error", "message": error.message})
    return JSONResponse({"status": "OK", "transcription": transcript.text})
