"""The OpenAPI document of the HTTP interface, at /openapi.json. OpenAPI does not describe WebSockets."""

from typing import Any

from ds2_jax.system.program import VERSION

Schema = dict[str, Any]


def document(root_path: str = "") -> Schema:
    """Writes the document.

    Args:
        root_path: the path under which a proxy offers the server.
    """
    return {
        "openapi": "3.1.0",
        "info": {"title": "ds2_jax", "version": VERSION, "description": "Speech recognition"},
        "servers": [{"url": root_path or "/"}],
        "security": [{"key": []}, {}],
        "paths": {
            "/v1/audio/transcriptions": {"post": _transcriptions()},
            "/v1/models": {"get": _get("List the models", _object(object=_TEXT, data=_list(_ref("Model"))))},
            "/v1/models/{name}": {
                "parameters": [{"name": "name", "in": "path", "required": True, "schema": _TEXT}],
                "get": _get("Describe a model", _ref("Model"), "404"),
            },
            "/transcribe": {"post": _transcribe()},
            "/health": {"get": _get("Whether the process runs", _STATUS) | {"security": []}},
            "/ready": {"get": _get("Whether requests are answered", _STATUS, "503", _STATUS) | {"security": []}},
            "/metrics": {"get": _get("Metrics of Prometheus", _TEXT, media="text/plain")},
            "/openapi.json": {"get": _get("This document", {"type": "object"})},
        },
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_BYTES: Schema = {"type": "string", "contentMediaType": "application/octet-stream"}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(optional: Schema | None = None, **fields: Schema) -> Schema:
    return {"type": "object", "required": list(fields), "properties": fields | (optional or {})}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_STATUS = _object(status=_TEXT)


def _answer(about: str, schema: Schema, media: str = "application/json") -> Schema:
    return {"description": about, "content": {media: {"schema": schema}}}


def _errors(*statuses: str) -> Schema:
    return {status: _answer("An error", _ref("Error")) for status in statuses}


def _get(
    about: str, schema: Schema, status: str | None = None, other: Schema | None = None, media: str = "application/json"
) -> Schema:
    responses = {"200": _answer(about, schema, media), **_errors("401", "403", "405", "503")}
    if status:
        responses[status] = _answer("Otherwise", other or _ref("Error"))
    return {"summary": about, "responses": responses}


def _form(required: Schema, optional: Schema) -> Schema:
    return {"required": True, "content": {"multipart/form-data": {"schema": _object(optional, **required)}}}


def _transcriptions() -> Schema:
    fields = {
        "model": _TEXT | {"description": "Name of a model; by default the first"},
        "response_format": {"enum": ["json", "text", "srt", "verbose_json", "vtt"]},
        "timestamp_granularities[]": _list({"enum": ["word", "segment"]}),
        "include[]": _list({"enum": ["logprobs"]}),
        "stream": {"enum": ["true", "false"]},
        "language": _TEXT | {"description": "Has no effect on the text"},
        "prompt": _TEXT | {"description": "Its words become more likely"},
        "keywords[]": {"description": "Words or phrases that become more likely; the field may be repeated"},
        "temperature": {"type": "number", "minimum": 0, "maximum": 1, "description": "Has no effect"},
    }
    content = {
        "application/json": {"schema": {"anyOf": [_ref("Verbose"), _ref("Transcription")]}},
        **{media: {"schema": _TEXT} for media in ("text/plain", "text/vtt")},
        "text/event-stream": {},
    }
    statuses = ("400", "401", "403", "404", "405", "408", "413", "429", "500", "503", "507")
    return {
        "summary": "Recognise a recording, as OpenAI's API does",
        "requestBody": _form({"file": _BYTES}, fields),
        "responses": {"200": {"description": "The text", "content": content}, **_errors(*statuses)},
    }


def _transcribe() -> Schema:
    answers = [
        _object(status={"const": "OK"}, transcription=_TEXT),
        _object(status={"const": "error"}, message=_TEXT),
    ]
    return {
        "summary": "Recognise a recording, as deepspeech.pytorch's server does; errors have status 200, too",
        "requestBody": _form({"file": _BYTES}, {}),
        "responses": {"200": _answer("The text or an error", {"oneOf": answers})}
        | _errors("401", "403", "405", "500", "503"),
    }


def _schemas() -> Schema:
    nullable = {"type": ["string", "null"]}
    word = _object(word=_TEXT, start=_NUMBER, end=_NUMBER, confidence=_NUMBER)
    token = _object(token=_TEXT, logprob=_NUMBER, bytes=_list({"type": "integer"}))
    segment = _object(id={"type": "integer"}, start=_NUMBER, end=_NUMBER, text=_TEXT, confidence=_NUMBER)
    usage = _object(type={"const": "duration"}, seconds=_NUMBER)
    return {
        "Error": _object(error=_object(message=_TEXT, type=_TEXT, param=nullable, code=nullable)),
        "Model": _object(id=_TEXT, object={"const": "model"}, created={"type": "integer"}, owned_by=_TEXT),
        "Transcription": _object({"logprobs": _list(token)}, text=_TEXT, usage=usage),
        "Verbose": _object(
            {"words": _list(word), "segments": _list(segment)},
            task={"const": "transcribe"},
            language=_TEXT,
            duration=_NUMBER,
            text=_TEXT,
            usage=usage,
        ),
    }
