"""A client of the Wyoming protocol, as Home Assistant is one. Prints the text of a file."""

import asyncio
import sys
import wave

from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient


async def main(port: int, path: str, model: str) -> None:
    """Sends the file and waits for its text."""
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Transcribe(name=model, language="en").event())
        with wave.open(path) as file:
            form = {"rate": file.getframerate(), "width": file.getsampwidth(), "channels": file.getnchannels()}
            await client.write_event(AudioStart(**form).event())
            while block := file.readframes(2400):
                await client.write_event(AudioChunk(audio=block, **form).event())
        await client.write_event(AudioStop().event())
        while event := await client.read_event():
            if Transcript.is_type(event.type):
                print(Transcript.from_event(event).text)
                return


asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
