"""OpenAI's API: /v1/audio/transcriptions and /v1/models."""

import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ds2_jax.decoding.decoder import Decoder
from ds2_jax.recognition.formats import to_srt, to_vtt
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.transcript import Segment, Transcript
from ds2_jax.serving.errors import RequestError, shown, wrong
from ds2_jax.serving.hot_words import hot_words
from ds2_jax.serving.service import GoneError, Service, unless_gone
from ds2_jax.serving.transcripts import logprobs, usage, verbose
from ds2_jax.serving.uploads import Upload, received
from ds2_jax.text.alphabet import Alphabet

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
GRANULARITIES = ("word", "segment")
LONGEST_LANGUAGE = 35
"""Letters of the longest tag of a language (RFC 5646, section 4.4.1)."""


class Wanted(NamedTuple):
    """What a request asks for, besides the text.

    Attributes:
        response_format: one of FORMATS.
        granularities: see `transcripts.verbose`.
        logprobs: whether to list the log-probabilities of words.
        stream: whether to send segments as they come.
        language: what the client says that is spoken.
        words: hot words.
    """

    response_format: str
    granularities: Sequence[str]
    logprobs: bool
    stream: bool
    language: str | None
    words: list[str]


async def models(request: Request) -> Response:
    """GET /v1/models."""
    service: Service = request.app.state.service
    return JSONResponse({"object": "list", "data": [_model(service, name) for name in service.models]})


async def model(request: Request) -> Response:
    """GET /v1/models/{id}."""
    service: Service = request.app.state.service
    name = request.path_params["name"]
    service.model(name)
    return JSONResponse(_model(service, name))


def _model(service: Service, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": service.started, "owned_by": "ds2_jax"}


async def transcriptions(request: Request) -> Response:
    """POST /v1/audio/transcriptions."""
    service: Service = request.app.state.service
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(service.request())
        upload = await stack.enter_async_context(received(request, service.folder, service.limits))
        recogniser = service.model(upload.field("model"))
        wanted = read_fields(upload, Alphabet.of(recogniser.config.data))
        decoder = await service.decoder(recogniser, wanted.words)
        if wanted.stream:
            events = _events(service, recogniser, upload, decoder, wanted)
            await stack.enter_async_context(contextlib.aclosing(events))
            first = await unless_gone(request, lambda: anext(events))  # a file that cannot be read has its own status
            return EventStream(request, _with_first(first, events), stack.pop_all())

        async def whole() -> Transcript:
            async with contextlib.aclosing(service.recognise(recogniser, upload.path, decoder)) as results:
                return [each async for each in results if isinstance(each, Transcript)][-1]

        return _answer(await unless_gone(request, whole), wanted)


def read_fields(upload: Upload, alphabet: Alphabet) -> Wanted:
    """Reads the fields of a request; those that are unknown are ignored.

    Raises:
        RequestError: a field is wrong.
    """
    if any(name.startswith("known_speaker") for name in upload.fields):
        raise wrong("known_speaker_names", "be left out", "some", "The models do not tell speakers apart.")
    response_format = upload.field("response_format") or "json"
    if response_format not in FORMATS:
        raise wrong("response_format", f"be one of {', '.join(FORMATS)}", shown(response_format), "Correct it.")
    granularities = upload.fields.get("timestamp_granularities", ["segment"])
    for each in granularities:
        if each not in GRANULARITIES:
            raise wrong("timestamp_granularities", "be word or segment", shown(each), "Correct it.")
    for each in (include := upload.fields.get("include", [])):
        if each != "logprobs":
            raise wrong("include", "be logprobs", shown(each), "Correct it.")
    _check_temperature(upload.field("temperature"))
    stream = (upload.field("stream") or "false").lower()
    if stream not in ("true", "false", "1", "0"):
        raise wrong("stream", "be true or false", shown(stream), "Correct it.")
    language = upload.field("language")
    return Wanted(
        response_format,
        granularities,
        bool(include),
        stream in ("true", "1"),
        language and language[:LONGEST_LANGUAGE],
        hot_words(upload.field("prompt") or "", upload.fields.get("keywords", ()), alphabet),
    )


def _check_temperature(temperature: str | None) -> None:
    try:
        right = 0 <= float(temperature or 0) <= 1
    except ValueError:
        right = False
    if not right:
        raise wrong("temperature", "be 0 to 1", shown(temperature), "It has no effect; leave it out.")


def _answer(transcript: Transcript, wanted: Wanted) -> Response:
    if wanted.response_format == "text":
        return PlainTextResponse(f"{transcript.text}\n")
    if wanted.response_format == "srt":
        return PlainTextResponse(to_srt(transcript))
    if wanted.response_format == "vtt":
        return PlainTextResponse(to_vtt(transcript), media_type="text/vtt")
    if wanted.response_format == "verbose_json":
        return JSONResponse(verbose(transcript, wanted.language, wanted.granularities))
    answer: dict[str, Any] = {"text": transcript.text, "usage": usage(transcript)}
    if wanted.logprobs:
        answer["logprobs"] = logprobs(transcript.words)
    return JSONResponse(answer)


class EventStream(StreamingResponse):
    """Server-sent events, which end if the client goes away.

    Args:
        request: the request.
        events: what is sent.
        stack: what is closed afterwards, even if nothing was sent.
    """

    def __init__(self, request: Request, events: AsyncGenerator[str, None], stack: contextlib.AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._request, self._events, self._stack = request, events, stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - see ASGI
        """Sends the response (ASGI)."""
        async with self._stack, contextlib.aclosing(self._events):
            with contextlib.suppress(GoneError):  # there is nobody to whom the response would be ended
                await unless_gone(self._request, lambda: self.stream_response(send))


async def _events(
    service: Service, recogniser: Recogniser, upload: Upload, decoder: Decoder | None, wanted: Wanted
) -> AsyncGenerator[str, None]:
    """Gives segments as they are recognised, then the whole text.

    Raises:
        RequestError: something is wrong before the first event; later it is an event.
    """
    begun = False
    try:
        async with contextlib.aclosing(service.recognise(recogniser, upload.path, decoder)) as results:
            async for result in results:
                if isinstance(result, Transcript):
                    yield _event(_done(result, wanted))
                elif text := result.readings[0].text:
                    yield _event(_delta(result, text, wanted, first=not begun))
                    begun = True
    except RequestError as error:
        if not begun:
            raise
        yield _event(error.body)


async def _with_first(first: str, others: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    yield first
    async for each in others:
        yield each


def _done(transcript: Transcript, wanted: Wanted) -> dict[str, Any]:
    # The type of this event allows a usage in tokens only.
    done: dict[str, Any] = {"type": "transcript.text.done", "text": transcript.text}
    if wanted.logprobs:
        done["logprobs"] = logprobs(transcript.words)
    return done


def _delta(segment: Segment, text: str, wanted: Wanted, *, first: bool) -> dict[str, Any]:
    delta: dict[str, Any] = {"type": "transcript.text.delta", "delta": text if first else f" {text}"}
    if wanted.logprobs:
        delta["logprobs"] = logprobs(segment.readings[0].words, first)
    return delta


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
