"""Runs the command `transcribe`: writes the transcripts of recordings to standard output or to files."""

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ds2_jax.audio.timeline import Timeline
from ds2_jax.decoding.options import GREEDY, Combination, DecodingOptions
from ds2_jax.decoding.unknown_words import UnknownWords
from ds2_jax.engines.engine import EngineName
from ds2_jax.recognition.formats import Format
from ds2_jax.recognition.inputs import STANDARD_INPUT, AudioFile, find_audio, read_input_blocks, save_standard_input
from ds2_jax.recognition.outputs import Output, open_stdout
from ds2_jax.recognition.piece_outputs import NamedBlocks
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.system.errors import InputError
from ds2_jax.system.interrupts import temporary_folder

logger = logging.getLogger(__package__)

FEW_UNKNOWN = 4
"""So many words that the language model lacks are not worth a hint."""


def transcribe(
    run: Path,
    audio: Sequence[Path],
    formats: Sequence[Format] = ("txt",),
    output_dir: Path | None = None,
    resume: bool = False,
    decoding: DecodingOptions = GREEDY,
    engine: EngineName | None = None,
    others: Sequence[Path] = (),
    combine: Combination = "rover",
) -> int:
    """Writes the transcripts of recordings, shows a progress bar and logs the speed.

    Args:
        run: the folder of a training run.
        audio: files, folders, patterns and "-" for standard input; see `find_audio`.
        formats: the formats to write, several only with `output_dir`. On standard output, txt has one line for each
            recording; if there are several, its path and a tab precede it.
        output_dir: folder for the files NAME.FORMAT, one for each recording and format; None for standard output.
        resume: whether to skip recordings whose files all exist, even if another run or other settings made them.
        decoding: the decoding options.
        engine: what runs the model; see `recogniser.load`.
        others: other models that recognise together with the first.
        combine: how; see `recogniser.load`.

    Returns:
        The exit code: 1 if a recording could not be transcribed, else 0.

    Raises:
        InputError: see `find_audio`, `Output.plan` and `Recogniser`; or results cannot be written.
    """
    found = find_audio(audio)
    output = Output(tuple(dict.fromkeys(formats)), output_dir)
    files = output.plan(found, resume)
    if num_finished := len(found) - len(files):
        logger.info(f"{_files(num_finished)} already finished")
    if not files:
        return 0
    open_stdout()
    started = time.perf_counter()
    recogniser = Recogniser(run, decoding, engine, others, combine)
    load_seconds = time.perf_counter() - started
    with temporary_folder() as folder:
        piped = any(file.path == STANDARD_INPUT and file.utterance is None for file in files)
        standard_input = save_standard_input(folder) if piped else None
        unknown = UnknownWords(recogniser.knows, FEW_UNKNOWN)
        code = _transcribe(recogniser, files, output, standard_input, load_seconds, unknown)
        if decoding.lm and (hint := unknown.hint(run, decoding.lm)):
            logger.info(hint)
        return code


def _transcribe(
    recogniser: Recogniser,
    files: Sequence[AudioFile],
    output: Output,
    standard_input: Path | None,
    load_seconds: float,
    unknown: UnknownWords,
) -> int:
    sample_rate = recogniser.config.features.sample_rate

    def opened(file: AudioFile) -> NamedBlocks:
        timeline = Timeline()
        return NamedBlocks(file.path, read_input_blocks(file, sample_rate, standard_input, timeline), timeline)

    started = time.perf_counter()
    seconds, failed = 0.0, 0
    bar_hidden = len(files) == 1 or not sys.stderr.isatty()
    with tqdm(total=len(files), desc="transcribing", unit="file", leave=False, disable=bar_hidden) as bar:
        for file, result in zip(files, recogniser.transcribe_blocks(map(opened, files)), strict=True):
            with bar.external_write_mode():
                if isinstance(result, InputError):
                    failed += 1
                    logger.error(result)
                else:
                    seconds += result.sound_seconds
                    unknown.add(result.text)
                    output.write(file, result, with_path=len(files) > 1)
            bar.update()
    elapsed = time.perf_counter() - started
    logger.info(
        f"{_files(len(files) - failed)}, {seconds:.1f} s of audio in {elapsed:.1f} s"
        + (f" (real-time factor {elapsed / seconds:.3f})" if seconds else "")
        + f"; model loaded in {load_seconds:.1f} s"
        + (f"; {_files(failed)} failed" if failed else "")
    )
    return 1 if failed else 0


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"
