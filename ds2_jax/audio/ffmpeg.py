"""Reads audio with the ffmpeg program if libsndfile cannot read it: m4a, mp4, webm, mkv and other formats."""

import contextlib
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ds2_jax.audio.cut import check_not_cut
from ds2_jax.audio.joined import check_single
from ds2_jax.audio.parts import AudioBytes, Parts, Source, num_bytes
from ds2_jax.audio.sndfile import UnknownFormatError
from ds2_jax.audio.timeline import Timeline
from ds2_jax.audio.waveform import MAX_RATE, MIN_RATE, block_samples
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.system.interrupts import temporary_folder

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

FFMPEG_SUFFIXES = frozenset(
    ".3gp .aac .ac3 .amr .ape .asf .avi .flv .m2ts .m4a .m4b .m4v .mka .mkv .mov .mp4 .mpeg .mpg .mts .ogv .spx .ts"
    " .tta .webm .wma .wmv .wv".split()
)
"""Suffixes to look for in folders. A file that you name may have any suffix."""
FORMATS = (
    "3gp aac ac3 aiff amr amrnb amrwb ape asf au avi caf dsf dts dtshd eac3 flac flv gsm iff ircam loas matroska,webm"
    " mlp mov,mp4,m4a,3gp,3g2,mj2 mp3 mpc mpc8 mpeg mpegts mxf nistsphere nsv nut ogg oma rm rso sox tak truehd tta voc"
    " w64 wav wtv wv xwma"
).split()
"""Formats of ffmpeg that hold the sound themselves. Others, such as playlists, name files or addresses to open."""
CLOCKLESS = frozenset("aac ac3 amr amrnb amrwb dts dtshd eac3 gsm loas mlp mp3 mpc mpc8 truehd".split())
"""Formats without times. ffmpeg derives them from the first frame, which is wrong where the rate changes."""
MAX_BLOCK = 2**28
"""The largest allocation in bytes that a file's header may cause in ffmpeg. ffmpeg's own limit is 2 GiB."""
MAX_MEMORY = 2**32
"""The address space of ffmpeg in bytes."""
MIN_CPU_SECONDS = 60
BYTES_PER_CPU_SECOND = 100_000
"""ffmpeg may compute for a minute, and for a second more for each so many bytes of the file; it needs a tenth of it."""
AU_HEADER = struct.Struct(">4s5I")  # ".snd", bytes before the samples, bytes of samples, coding, Hz, channels
STEP = 0.05
"""Seconds. ffmpeg prints where the file's clock and the number of samples have moved apart by more than this."""
# For every frame, register 0 is the time at which it should begin and register 1 the number of samples before it. Where
# its time differs, both are printed; then the time counts on from there. Samples that have no time are taken as due.
# Where the rate or the channels change, ffmpeg makes these filters anew, and they count from 0 again. So the first
# frame of each is printed too, and all are resampled to the first rate. The times go on without those of the frames
# (0/0), which the output does not need, because it must not see them start again.
CLOCK = (
    "aresample,aselect=e='if(not(n)*not(isnan(pts))+gt(abs(pts-ld(0)),{step}*sample_rate),"
    "print(ld(1),16)*0+print(pts,16)*0+st(0,pts)*0,0)+st(0,ld(0)+samples_n)*0+st(1,ld(1)+samples_n)*0+1',asetpts=0/0"
)
NOT_KNOWN = re.compile("Format not on whitelist|Invalid data found when processing input")
NUMBER = re.compile(r"-?\d+\.\d{6}")


@contextlib.contextmanager
def open_audio(
    source: Source, reason: UnknownFormatError, timeline: Timeline
) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """Opens the first audio track of a file.

    Args:
        source: the file.
        reason: why libsndfile cannot read it.
        timeline: where the sound's place in the file is stated as the blocks are read.

    Yields:
        The sample rate in Hz, and the samples in blocks of [S, C] float32. Reading the blocks raises InputError if
        ffmpeg finds a fault.

    Raises:
        InputError: ffmpeg is not installed, does not know the format, or finds no sound; or another file follows.
    """
    check_single(source)
    check_not_cut(source)
    program = shutil.which("ffmpeg")
    if program is None:
        raise _without_program(source, reason)
    with contextlib.ExitStack() as stack:
        if isinstance(source, AudioBytes) or reason.ranges:
            path = stack.enter_context(temporary_folder()) / "audio"
            ranges = reason.ranges or [(0, num_bytes(source))]
            with Parts(source, b"", ranges) as sound, path.open("wb") as file:
                shutil.copyfileobj(sound, file)
        else:
            path = source
        messages = stack.enter_context(tempfile.TemporaryFile())
        process = stack.enter_context(_start(program, path, messages))
        stack.callback(process.kill)  # it still runs if the reader stops early
        decoding = _Decoding(process, messages, path, str(source), timeline)
        yield decoding.file_rate, decoding.blocks()


def _without_program(source: Source, reason: UnknownFormatError) -> InputError:
    suffix = Path(str(source)).suffix.lower()
    if suffix in FFMPEG_SUFFIXES:
        rule = "be WAV, FLAC, Ogg, MP3 or another format that libsndfile reads"
        advice = "Install ffmpeg, which reads it, or convert the file."
        return InputError(f"{source} must {rule}, got {suffix.removeprefix('.')}. {advice}")
    return InputError(f"{str(reason).rstrip('.')}. ffmpeg reads more formats: install it, or convert the file.")


def _start(program: str, path: Path, messages: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Starts ffmpeg. It writes the AU format (a short header, then float samples) to a pipe."""
    arguments = [program, "-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info", "-xerror"]
    # The file could be a playlist that names other files or addresses, whatever it is called. The prefix "file:" keeps
    # ffmpeg from taking the start of the file's name for a protocol.
    arguments += ["-format_whitelist", ",".join(FORMATS), "-protocol_whitelist", "file", "-max_alloc", str(MAX_BLOCK)]
    # Times are those of the file, for all of its streams. Without -copyts, ffmpeg moves those of a transport stream so
    # that the sound begins at 0, and closes gaps of more than 10 s. A track may begin after the usual 5 s.
    arguments += ["-copyts", "-analyzeduration", "60M", "-probesize", "50M", "-i", f"file:{path}", "-map", "0:a:0"]
    arguments += ["-af", CLOCK.format(step=STEP), "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages)
    if hasattr(resource, "prlimit"):
        seconds = MIN_CPU_SECONDS + path.stat().st_size // BYTES_PER_CPU_SECOND
        with contextlib.suppress(ProcessLookupError):  # it has ended
            resource.prlimit(process.pid, resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (seconds, seconds))
    return process


class _Decoding:
    """A running ffmpeg: its samples, its messages, and the times that it prints."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", messages: IO[bytes], path: Path, name: str, timeline: Timeline
    ) -> None:
        assert process.stdout is not None
        self._process, self._pipe, self._messages = process, process.stdout, messages
        self._path, self._name, self._timeline = path, name, timeline
        self._rest, self._numbers, self._errors = "", list[float](), list[str]()
        self._start: float | None = None  # the file's time at which a player starts
        self._is_known, self._has_clock = False, True
        self._num_said = self._num_read = 0
        self._num_tracks, self._counting = 0, True
        self._counted_from = 0.0  # seconds of sound at which ffmpeg began to count
        header = self._pipe.read(AU_HEADER.size)
        if len(header) < AU_HEADER.size:
            self._check()
            raise InputError(f"{name} must hold sound, got none. Replace the file.")
        _, start, _, _, self.file_rate, self._num_channels = AU_HEADER.unpack(header)
        if not MIN_RATE <= self.file_rate <= MAX_RATE:
            rule = f"have a rate of {MIN_RATE} to {MAX_RATE} Hz"
            raise InputError(f"{name} must {rule}, got {self.file_rate} Hz. Replace the file.")
        self._pipe.read(start - AU_HEADER.size)

    def blocks(self) -> Iterator[np.ndarray]:
        frame = self._num_channels * 4
        while data := self._pipe.read(block_samples(self._num_channels) * frame):
            self._listen()
            samples = np.frombuffer(data[: len(data) // frame * frame], ">f4")
            self._num_read += len(samples) // self._num_channels
            yield samples.reshape(-1, self._num_channels).astype(np.float32)
        self._check()

    def _listen(self) -> None:
        """Reads what ffmpeg has said. It prints a time before it writes the samples."""
        self._messages.seek(self._num_said)
        data = self._messages.read()
        self._num_said += len(data)
        *lines, self._rest = (self._rest + data.decode(errors="replace")).split("\n")
        for line in lines:
            self._hear(line)

    def _hear(self, line: str) -> None:
        if self._start is None and (found := re.match(r"\[info\]\s+Duration: (\S+?),(?: start: (-?[\d.]+),)?", line)):
            self._start = float(found[2] or 0.0)
            if length := re.fullmatch(r"(\d+):(\d+):([\d.]+)", found[1]):
                self._timeline.length = int(length[1]) * 3600 + int(length[2]) * 60 + float(length[3])
        elif found := re.match(r"\[info\] Input #0, ([\w,]+), from", line):
            self._is_known, self._has_clock = True, found[1] not in CLOCKLESS
        elif line.startswith("[info] Stream mapping"):  # the streams of the output follow
            self._timeline.num_tracks, self._counting = max(1, self._num_tracks), False
        elif self._counting and re.match(r"\[info\]\s+Stream #0:\S+ Audio: ", line):
            self._num_tracks += 1
        elif NUMBER.fullmatch(number := line.removeprefix("[error] ")):
            self._numbers.append(float(number))
            if len(self._numbers) % 2 == 0 and self._has_clock:
                self._place(*self._numbers[-2:])
        elif found := re.match(r"(?:\[[^\]]* @ 0x[0-9a-f]+\] )?\[(?:error|fatal|panic)\] (.*)", line):
            self._errors.append(found[1].replace(f"file:{self._path}: ", "").strip())

    def _place(self, num_samples: float, time: float) -> None:
        """Notes the time, in samples of the file's clock, at which a sample should begin."""
        file_time = time / self.file_rate - (self._start or 0.0)
        if num_samples == 0 and len(self._numbers) > 2:  # the rate or the channels have changed
            self._counted_from = max(self._num_read / self.file_rate, self._timeline.sound(file_time))
        elif num_samples or abs(file_time) > STEP:
            self._timeline.add(self._counted_from + num_samples / self.file_rate, file_time, self._name)

    def _check(self) -> None:
        """Waits until ffmpeg ends.

        Raises:
            InputError: ffmpeg failed or printed an error. It prints one after decoding a file that is cut short.
        """
        code = self._process.wait()
        self._listen()
        if self._rest:
            self._hear(self._rest)
        if any("matches no streams" in each for each in self._errors):
            raise InputError(f"{self._name} must hold sound, got none. Replace the file.")
        if not self._is_known and self._errors and NOT_KNOWN.search(self._errors[0]):
            rule = "be a recording in a format that is read"
            got = "another format, a playlist, samples without a header or a damaged header"
            advice = "Convert it; ffmpeg must be told the coding of samples: ffmpeg -f s16le -ar RATE -i OLD NEW.wav."
            raise InputError(f"{self._name} must {rule}, got {got}. {advice}")
        if code or self._errors:
            first = shorten(self._errors[0].rstrip(".")) if self._errors else f"exit code {code}"
            raise InputError(
                f"{self._name} must be undamaged audio or video, got an ffmpeg error: {first}. "
                "Replace the file, or repair it: ffmpeg -i OLD NEW.flac."
            )
