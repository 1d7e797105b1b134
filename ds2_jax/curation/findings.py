"""Finds errors, warnings and remarks in checked manifests. Each search is linear in the number of rows."""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ds2_jax.config.places import relative
from ds2_jax.curation.recordings import Recording
from ds2_jax.data.manifest import Problem, Utterance
from ds2_jax.data.splits import AUDIO_REASONS
from ds2_jax.system.errors import shorten
from ds2_jax.system.files import write_text
from ds2_jax.text.encoding import broken_part

Level = Literal["error", "warning", "remark"]
Role = Literal["train", "dev", "test"]

SILENCE = 3e-4
"""Samples are silent if their standard deviation is below this, 70 dB under full scale. The quietest recording of AN4
has 4e-3."""
CLIPPED = 1e-3
"""A recording with a larger fraction of samples at the peak is clipped; AN4 has up to 1.4e-4."""
MIN_UTTERANCES = 20
"""The number of utterances that are needed to know the usual speech rate."""
OUTLIER = 5.0
"""A speech rate is odd if it is more than this many standard deviations from the median. Each side of it has its own
standard deviation."""
MAD_TO_STANDARD_DEVIATION = 1.4826
"""The standard deviation of a normal distribution divided by its median absolute deviation."""
MIN_SPREAD = 0.1
"""The smallest relative spread to assume, for manifests in which most rates are equal."""


@dataclasses.dataclass(frozen=True)
class Checked:
    """A manifest, read and measured.

    Attributes:
        path: path of the manifest.
        role: the split that it is checked as.
        utterances: all utterances.
        recordings: the measurements of each recording, or the problem of reading it.
        problems: the problems by the rules of training.
        transcripts: the normalised transcript of each utterance.
    """

    path: Path
    role: Role
    utterances: Sequence[Utterance]
    recordings: Sequence[Recording | Problem]
    problems: Sequence[Problem]
    transcripts: Sequence[str]

    def leaves_out(self, problem: Problem) -> bool:
        """Whether training leaves the utterance out. A test split leaves out only unusable audio, to stay as hard."""
        return self.role != "test" or problem.reason in (*AUDIO_REASONS, "wrong duration")

    @functools.cached_property
    def places(self) -> dict[str, str]:
        """Where the manifest lists each utterance, by id."""
        return {utterance.id: utterance.place for utterance in self.utterances}

    def rates(self) -> np.ndarray:
        """Computes the characters a second of every utterance, [U] float; NaN without transcript or duration."""
        characters = np.array([len(text) or np.nan for text in self.transcripts])
        seconds = np.array([utterance.duration or np.nan for utterance in self.utterances])
        rates: np.ndarray = characters / seconds
        return rates


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something to correct (error), to look at (warning) or to know (remark) about an utterance."""

    level: Level
    manifest: str
    kind: str
    id: str
    audio: str
    detail: str
    place: str = ""

    def where(self) -> str:
        """Names the utterance as its manifest does, by line and path; see `located`."""
        return located(self.place, Path(self.audio), Path(self.manifest))


def located(place: str, audio: Path, manifest: Path) -> str:
    """Names an utterance by its line in the manifest and its path, relative to the manifest's folder if inside."""
    shown = str(relative(audio, manifest.absolute().parent))
    return f"{place}, {shown}" if place else shown


def write_findings(path: Path, findings: Iterable[Finding]) -> None:
    """Writes findings as JSON Lines with level, manifest, kind, id, audio, detail and place."""
    lines = (json.dumps(dataclasses.asdict(finding), ensure_ascii=False) + "\n" for finding in findings)
    write_text(path, "".join(lines))


def find(manifests: Sequence[Checked], sample_rate: int, unusable: Level) -> list[Finding]:
    """Finds everything to report about manifests, one manifest after the other.

    Args:
        manifests: the manifests; findings about shared content go to the later one.
        sample_rate: sample rate of the model in Hz.
        unusable: level of an utterance that cannot be used: "error" if training stops there, else "warning".
    """
    shared = shared_findings(manifests)
    findings = []
    for manifest in manifests:
        for problem in manifest.problems:
            level = unusable if manifest.leaves_out(problem) else "warning"
            findings.append(_finding(level, manifest, problem.reason, problem, problem.detail))
        findings += text_findings(manifest)
        findings += sound_findings(manifest, sample_rate)
        findings += rate_findings(manifest)
        findings += [finding for finding in shared if finding.manifest == str(manifest.path)]
    return findings


def _finding(level: Level, manifest: Checked, kind: str, row: Utterance | Problem, detail: str) -> Finding:
    return Finding(level, str(manifest.path), kind, row.id, str(row.audio), detail, manifest.places.get(row.id, ""))


def text_findings(manifest: Checked) -> Iterator[Finding]:
    """Finds transcripts that a wrong encoding may have broken."""
    for utterance in manifest.utterances:
        if part := broken_part(utterance.transcript):
            detail = f"{part!r} in {shorten(repr(utterance.transcript))}"
            yield _finding("warning", manifest, "perhaps a wrong encoding", utterance, detail)


def sound_findings(manifest: Checked, sample_rate: int) -> Iterator[Finding]:
    """Finds silent and clipped recordings, and sample rates that are mixed or below the model's."""
    seen = Counter(each.sample_rate for each in manifest.recordings if isinstance(each, Recording))
    rates = ", ".join(f"{count:,} at {rate} Hz" for rate, count in seen.most_common())
    usual = seen.most_common(1)[0][0] if seen else sample_rate
    for utterance, recording in zip(manifest.utterances, manifest.recordings, strict=True):
        if isinstance(recording, Problem):
            continue
        if recording.cancels:
            yield _finding(
                "warning", manifest, "channels cancel", utterance, "the mix, which the model hears, is silent"
            )
        elif recording.level < SILENCE:
            detail = f"standard deviation {recording.level:.1g} of full scale"
            yield _finding("warning", manifest, "silence", utterance, detail)
        elif recording.clipped > CLIPPED:
            detail = f"{recording.clipped:.1%} of the samples at the peak"
            yield _finding("warning", manifest, "clipping", utterance, detail)
        if recording.sample_rate != usual:
            detail = f"{recording.sample_rate} Hz; the manifest has {rates}"
            yield _finding("warning", manifest, "mixed sample rates", utterance, detail)
        if recording.sample_rate < sample_rate:
            detail = f"{recording.sample_rate} Hz; the model uses {sample_rate} Hz"
            yield _finding("warning", manifest, "sample rate below the model's", utterance, detail)


def rate_findings(manifest: Checked) -> Iterator[Finding]:
    """Finds odd speech rates: too fast (extra words, or audio cut off) or too slow (missing words)."""
    rates = manifest.rates()
    median = np.nanmedian(rates) if np.isfinite(rates).any() else np.nan
    odd = outliers(rates)
    for index in sorted(
        np.flatnonzero(odd).tolist(), key=lambda i: -abs(np.log(rates[i] / median))
    ):  # the oddest first
        utterance = manifest.utterances[index]
        text = shorten(repr(manifest.transcripts[index]))
        detail = (
            f"{rates[index]:.1f} characters a second, the median is {median:.1f}: {text} in {utterance.duration:g} s"
        )
        yield _finding("warning", manifest, "odd speech rate", utterance, detail)


def outliers(rates: np.ndarray) -> np.ndarray:
    """Marks unusual rates, [U] bool; NaN is never marked, and with fewer than `MIN_UTTERANCES` no rate is.

    The spread is the median absolute deviation of the logarithms, computed separately on each side of the median. Short
    utterances in long silence widen the lower side, and must not hide outliers on the upper one.
    """
    logs = np.log(rates)  # [U]
    known = logs[np.isfinite(logs)]
    if len(known) < MIN_UTTERANCES:
        return np.zeros(len(rates), bool)
    distances = logs - np.median(known)
    below, above = (
        max(MIN_SPREAD, MAD_TO_STANDARD_DEVIATION * float(np.median(np.abs(side[np.isfinite(side)]))))
        for side in (distances[distances <= 0], distances[distances >= 0])
    )
    odd: np.ndarray = (distances < -OUTLIER * below) | (distances > OUTLIER * above)
    return odd


def shared_findings(manifests: Sequence[Checked]) -> list[Finding]:
    """Finds repeated recordings, and texts and speakers that manifests share. Reports the later occurrence."""
    audio: dict[bytes, tuple[Checked, Utterance]] = {}
    texts: dict[str, tuple[Checked, Utterance]] = {}
    speakers: dict[str, Checked] = {}
    told: set[tuple[str, str, str]] = set()
    findings = []

    def tell(level: Level, kind: str, value: str, manifest: Checked, utterance: Utterance, detail: str) -> None:
        if (kind, str(manifest.path), value) not in told:
            told.add((kind, str(manifest.path), value))
            findings.append(_finding(level, manifest, kind, utterance, detail))

    for manifest in manifests:
        rows = zip(manifest.utterances, manifest.recordings, manifest.transcripts, strict=True)
        for utterance, recording, text in rows:
            if isinstance(recording, Recording):
                first, other = audio.setdefault(recording.digest, (manifest, utterance))
                if other is not utterance:
                    same = first is manifest
                    kind = "same recording twice" if same else f"recording also in {first.path}"
                    differs = "" if other.transcript == utterance.transcript else ", with another transcript"
                    earlier = located(other.place, other.audio, first.path)
                    findings.append(_finding("warning", manifest, kind, utterance, f"as {earlier}{differs}"))
            first, other = texts.setdefault(text, (manifest, utterance))
            if text and first is not manifest:
                tell("warning", f"text also in {first.path}", text, manifest, utterance, shorten(repr(text)))
            speaker = utterance.speaker
            if speaker and (home := speakers.setdefault(speaker, manifest)) is not manifest:
                tell("remark", f"speaker also in {home.path}", speaker, manifest, utterance, shorten(speaker))
    return findings
