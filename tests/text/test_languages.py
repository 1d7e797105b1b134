"""Transcripts in French, Spanish and Russian survive encoding and decoding. espeak-ng speaks them."""

import shlex
from pathlib import Path

import pytest
import soundfile

from ds2_jax import cli
from ds2_jax.corpora.synthetic import SAMPLE_RATE, Prompt, speak
from ds2_jax.data.manifest import Utterance, read_manifest, write_manifest
from ds2_jax.text.alphabet import Alphabet

SENTENCES = {
    "fr": {
        "L’eau de l'été, c’est «\u00a0l'arc-en-ciel\u00a0».": "l'eau de l'été c'est l'arc en ciel",
        "Où va-t-il\u202f? À Noël… il a déjà dix œufs\u202f!": "où va t il à noël il a déjà dix œufs",
        "Ouvrez la porte – et fermez la fenêtre.": "ouvrez la porte et fermez la fenêtre",
    },
    "es": {
        "¿Cuántos años tiene el niño?": "cuántos años tiene el niño",
        "¡Abre la puerta, por favor!": "abre la puerta por favor",
        "El pingüino vive aquí; mañana no.": "el pingüino vive aquí mañana no",
    },
    "ru": {
        "Что-нибудь ещё? — Да, чай.": "что нибудь ещё да чай",
        "Откройте, пожалуйста, «эту» дверь!": "откройте пожалуйста эту дверь",
        "Съешь мягких булок, выпей же чаю…": "съешь мягких булок выпей же чаю",
    },
}
"""The spoken sentences, and how the model writes them."""


@pytest.mark.parametrize("language", SENTENCES)
def test_a_language_goes_from_manifest_to_labels_and_back(
    language: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentences = SENTENCES[language]
    spoken = speak(language, [Prompt(text, 140, 50, 0.5) for text in sentences])
    rows = []
    for number, (text, waveform) in enumerate(zip(sentences, spoken, strict=True)):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, waveform, SAMPLE_RATE)
        rows.append(Utterance(path, len(waveform) / SAMPLE_RATE, text, f"{number}", language))
    manifest = tmp_path / "train.jsonl"
    write_manifest(manifest, rows)

    assert cli.main(["data", "check", str(manifest)]) == 1  # English
    assert "error: unknown characters: 3" in capsys.readouterr().out
    assert cli.main(["data", "alphabet", str(manifest)]) == 0
    report = capsys.readouterr().out
    assert "With these settings 0 of 3 transcripts hold a character to replace" in report
    pasted = shlex.split(report.splitlines()[-1])
    assert cli.main(["data", "check", str(manifest), *pasted]) == 0
    assert "train split: nothing found" in capsys.readouterr().out

    settings = dict(word.removeprefix("--data.").split("=", 1) for word in pasted)
    alphabet = Alphabet(settings["alphabet"], remove=settings["remove"])
    for utterance in read_manifest(manifest):
        assert alphabet.decode(alphabet.encode(utterance.transcript)) == sentences[utterance.transcript]
