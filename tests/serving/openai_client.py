"""What a user of the package `openai` writes. Runs in an environment that has it; prints what it got as JSON."""

import asyncio
import base64
import json
import sys
import wave
from pathlib import Path
from typing import Any

import openai

url, audio, spoken = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0)
got: dict[str, object] = {"models": [model.id for model in client.models.list()]}


def create(**options: Any) -> Any:
    """Transcribes the file with the model `whole`."""
    with Path(audio).open("rb") as file:
        return client.audio.transcriptions.create(**{"model": "whole", "file": file} | options)


def checked(answer: Any) -> Any:
    """Validates an answer strictly against the type that the package ships; returns it as JSON."""
    content = answer.model_dump(mode="json", exclude_unset=True)
    type(answer).model_validate(content, strict=True)
    return content


for response_format in ("json", "verbose_json"):
    got[response_format] = checked(create(response_format=response_format))
for response_format in ("text", "srt", "vtt"):
    got[response_format] = create(response_format=response_format)
words = create(response_format="verbose_json", timestamp_granularities=["word", "segment"])
got["words"] = [word.word for word in words.words]
got["logprobs"] = [each.token for each in create(include=["logprobs"]).logprobs]
got["events"] = [checked(event) for event in create(stream=True)]
got["hot"] = create(extra_body={"keywords": ["CU"]}).text
wrong: dict[str, dict[str, Any]] = {"model": {"model": "other"}, "audio": {"file": ("a.wav", b"no audio")}}
for name, options in wrong.items():
    try:
        create(**options)
    except openai.APIStatusError as error:
        got[f"wrong {name}"] = [type(error).__name__, error.code, error.param]
try:
    openai.OpenAI(base_url=f"{url}/v1", api_key="other", max_retries=0).models.list()
except openai.AuthenticationError as error:
    got["wrong key"] = error.code


async def at_once() -> list[str]:
    """Transcribes the file three times at once."""
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0)

    async def text() -> str:
        answer = await client.audio.transcriptions.create(model="whole", file=Path(audio))
        checked(answer)
        return answer.text

    return await asyncio.gather(*(text() for _ in range(3)))


async def live(turn_detection: dict[str, Any] | None) -> list[Any]:
    """Sends the samples of the second file to the model `live`; returns the events."""
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0)
    transcription = {"model": "live", "language": "en", "prompt": ""}
    inputs = {"transcription": transcription, "turn_detection": turn_detection, "noise_reduction": None}
    logprobs = ["item.input_audio_transcription.logprobs"]
    session: Any = {"type": "transcription", "audio": {"input": inputs}, "include": logprobs}
    async with client.realtime.connect(model="live", extra_query={"intent": "transcription"}) as connection:
        await connection.session.update(session=session)
        await connection.input_audio_buffer.clear()
        with wave.open(spoken) as file:
            while block := file.readframes(2400):
                await connection.input_audio_buffer.append(audio=base64.b64encode(block).decode())
        await connection.input_audio_buffer.commit()
        await connection.input_audio_buffer.commit(event_id="empty")
        events = []
        async for event in connection:
            events.append(checked(event))
            if event.type == "error":
                break
    return events


got["at once"] = asyncio.run(at_once())
got["committed"] = asyncio.run(live(None))
got["vad"] = asyncio.run(live({"type": "server_vad", "silence_duration_ms": 800}))
print(json.dumps(got))
