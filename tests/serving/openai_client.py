"""What a user of the package `openai` writes. Runs in an environment that has it; prints what it got as JSON."""

import json
import sys
from pathlib import Path
from typing import Any

import openai

url, audio = sys.argv[1:]
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
print(json.dumps(got))
