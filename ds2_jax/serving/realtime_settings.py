"""The settings of a session of OpenAI's Realtime transcription: read, and shown as they are in effect.

What has no effect here is accepted and not shown: language, languages, delay, noise_reduction, and the threshold of
server_vad. semantic_vad is server_vad with its defaults. The names of the beta are understood, too.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ds2_jax.recognition.endpoints import ENDPOINTS, Endpoints
from ds2_jax.serving.errors import shown, wrong

RATES = {"audio/pcm": 24000, "audio/pcmu": 8000, "audio/pcma": 8000}
"""Sample rates in Hz by format."""
BETA_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
BETA_NAMES = {
    "input_audio_format": "format",
    "input_audio_transcription": "transcription",
    "turn_detection": "turn_detection",
}
LOGPROBS = "item.input_audio_transcription.logprobs"
LEAST_SILENCE_MS, MOST_MS = 100, 10_000
"""Bounds of the milliseconds of server_vad. Values beyond are set to them."""
NO_LABELS_PER_PAUSE = ENDPOINTS.no_labels / ENDPOINTS.pause


@dataclasses.dataclass(frozen=True)
class ServerVad:
    """When the server commits a turn.

    Attributes:
        silence_duration_ms: the pause that ends a turn.
        prefix_padding_ms: how much earlier than the first text the start of speech is told.
    """

    silence_duration_ms: int = 500
    prefix_padding_ms: int = 300


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a session.

    Attributes:
        model: the model's name.
        audio_format: one of RATES.
        vad: None if the client commits turns.
        prompt: text whose words are hot words.
        keywords: more hot words.
        logprobs: whether to list the log-probabilities of words.
    """

    model: str
    audio_format: str = "audio/pcm"
    vad: ServerVad | None = dataclasses.field(default_factory=ServerVad)
    prompt: str = ""
    keywords: tuple[str, ...] = ()
    logprobs: bool = False

    @property
    def rate(self) -> int:
        """Sample rate in Hz."""
        return RATES[self.audio_format]

    @property
    def endpoints(self) -> Endpoints:
        """When a segment of the stream ends. A turn that the client commits can have many."""
        if self.vad is None:
            return ENDPOINTS
        pause = self.vad.silence_duration_ms / 1000
        no_labels = max(ENDPOINTS.no_labels, pause * NO_LABELS_PER_PAUSE)
        return dataclasses.replace(ENDPOINTS, pause=pause, no_labels=no_labels)

    def updated(self, session: Any) -> "Settings":
        """Takes what an update names; the rest stays. Whether the model exists is not checked here.

        Raises:
            RequestError: a value is wrong.
        """
        session = _object(session, "session")
        if (kind := session.get("type", "transcription")) != "transcription":
            raise wrong("session.type", "be transcription", shown(kind), "This server only transcribes.")
        audio = _object(session.get("audio"), "session.audio")
        given = {new: session[old] for old, new in BETA_NAMES.items() if old in session}
        given |= _object(audio.get("input"), "session.audio.input")
        changes: dict[str, Any] = {}
        if "format" in given:
            changes["audio_format"] = _format(given["format"])
        if "transcription" in given:
            changes |= _transcription(given["transcription"])
        if "turn_detection" in given:
            changes["vad"] = _vad(given["turn_detection"])
        if "include" in session:
            changes["logprobs"] = LOGPROBS in _texts(session["include"], "session.include")
        return dataclasses.replace(self, **changes)

    def described(self, number: str, *, beta: bool) -> dict[str, Any]:
        """Writes the settings in effect.

        Args:
            number: the name of the session.
            beta: whether to use the names of the beta.
        """
        transcription: dict[str, Any] = {"model": self.model, "prompt": self.prompt, "keywords": list(self.keywords)}
        detection = None if self.vad is None else {"type": "server_vad", **dataclasses.asdict(self.vad)}
        include = [LOGPROBS] if self.logprobs else []
        session = {"id": number, "object": "realtime.transcription_session", "include": include}
        if beta:
            return session | {
                "input_audio_format": next(old for old, new in BETA_FORMATS.items() if new == self.audio_format),
                "input_audio_transcription": transcription,
                "turn_detection": detection,
                "input_audio_noise_reduction": None,
            }
        audio_format: dict[str, Any] = {"type": self.audio_format}
        if self.audio_format == "audio/pcm":
            audio_format["rate"] = self.rate
        inputs = {
            "format": audio_format,
            "noise_reduction": None,
            "transcription": transcription,
            "turn_detection": detection,
        }
        return session | {"type": "transcription", "audio": {"input": inputs}}


def _format(value: Any) -> str:
    if isinstance(value, Mapping):
        name, rate = value.get("type", "audio/pcm"), value.get("rate")
    else:
        name, rate = BETA_FORMATS.get(value, value) if isinstance(value, str) else value, None
    if not isinstance(name, str) or name not in RATES:
        raise wrong("session.audio.input.format", f"be one of {', '.join(RATES)}", shown(name), "Correct it.")
    if rate not in (None, RATES[name]):
        rule = f"be {RATES[name]} for {name}"
        raise wrong("session.audio.input.format.rate", rule, shown(rate), "Resample the audio.")
    return name


def _transcription(value: Any) -> dict[str, Any]:
    given, place = _object(value, "session.audio.input.transcription"), "session.audio.input.transcription"
    changes: dict[str, Any] = {}
    for name in ("model", "prompt"):
        text = given.get(name)
        if not (text is None or isinstance(text, str)):
            raise wrong(f"{place}.{name}", "be a text", shown(text), "Correct it.")
        if text is not None:
            changes[name] = text
    if "keywords" in given:
        changes["keywords"] = _texts(given["keywords"], f"{place}.keywords")
    return changes


def _vad(value: Any) -> ServerVad | None:
    if value is None:
        return None
    place = "session.audio.input.turn_detection"
    given = _object(value, place)
    if (kind := given.get("type", "server_vad")) not in ("server_vad", "semantic_vad"):
        raise wrong(f"{place}.type", "be server_vad or semantic_vad", shown(kind), "null lets the client commit.")
    milliseconds = {
        field.name: _milliseconds(given[field.name], f"{place}.{field.name}")
        for field in dataclasses.fields(ServerVad)
        if given.get(field.name) is not None
    }
    if "silence_duration_ms" in milliseconds:
        milliseconds["silence_duration_ms"] = max(LEAST_SILENCE_MS, milliseconds["silence_duration_ms"])
    return ServerVad(**milliseconds)


def _milliseconds(value: Any, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise wrong(place, "be a number of milliseconds", shown(value), "Correct it.")
    return int(min(value, MOST_MS))


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise wrong(place, "be an object", shown(value), "Correct it.")
    return value


def _texts(value: Any, place: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        raise wrong(place, "be a list of texts", shown(value), "Correct it.")
    return tuple(value)
