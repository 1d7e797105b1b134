"""Makes the Spanish corpus of docs/fine-tuning.md: sentences of a table, spoken by espeak-ng.

    python -m tests.spanish_voices es.tsv datasets/es-voices

A line of the table is NAME, a tab and a sentence. The test voices and their sentences are in no other split.
"""

import random
import re
import sys
from pathlib import Path

import soundfile

from ds2_jax.corpora import synthetic
from ds2_jax.data.manifest import Utterance, write_manifest

VOICES = {
    "train": ("es", "es+m1", "es+f2", "es+m7", "es-419", "es-419+f1", "es-419+m3", "es-419+f5"),
    "dev": ("es+m4", "es-419+f3"),
    "test": ("es+f4", "es-419+m6"),
}
NUM_SENTENCES = 60
LONGEST = 60
"""Characters of a sentence."""


def main(table: Path, folder: Path) -> None:
    """Writes FOLDER/SPLIT.jsonl and the audio of each split."""
    rng = random.Random(0)
    lines = [line.split("\t")[1] for line in table.read_text(encoding="utf-8").splitlines()]
    plain = {" ".join(re.sub("[^A-Z]", " ", line.upper()).split()) for line in lines}
    sentences = sorted(sentence for sentence in plain if 1 < len(sentence) <= LONGEST)
    rng.shuffle(sentences)
    parts = {"test": sentences[::6], "dev": sentences[1::6], "train": [s for i, s in enumerate(sentences) if i % 6 > 1]}
    folder.mkdir(parents=True)
    for split, voices in VOICES.items():
        utterances = []
        for voice in voices:
            said = rng.sample(parts[split], min(NUM_SENTENCES, len(parts[split])))
            prompts = [synthetic.prompt(rng, sentence) for sentence in said]
            for i, waveform in enumerate(synthetic.speak(voice, prompts)):
                path = folder / f"{voice}-{i:02d}.wav"
                soundfile.write(path, waveform, synthetic.SAMPLE_RATE)
                seconds = len(waveform) / synthetic.SAMPLE_RATE
                utterances.append(Utterance(path, seconds, said[i], path.stem, voice))
        write_manifest(folder / f"{split}.jsonl", utterances)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
