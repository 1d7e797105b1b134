"""What is wrong or odd in checked manifests: errors, warnings and remarks, each search linear in the rows."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ds2_jax.curation.recordings import Recording
from ds2_jax.data.manifest import Problem, Utterance
from ds2_jax.data.splits import AUDIO_REASONS
from ds2_jax.system.errors import shorten
from ds2_jax.system.files import write_text

Level = Literal["error", "warning", "remark"]
Role = Literal["train", "dev", "test"]

SILENCE = 3e-4
"""Standard deviation of silent samples, 70 dB below full scale; the quietest recording of AN4 has 4e-3."""
CLIPPED = 1e-3
"""Share of samples at the peak from which a recording is clipped; AN4 has up to 1.4e-4."""
MIN_UTTERANCES = 20
"""Fewer give no idea of what is usual."""
OUTLIER = 5.0
"""Standard deviations, on its own side of the median, from which a speech rate is odd."""
MAD_TO_STANDARD_DEVIATION = 1.4826
"""Of a normal distribution."""
MIN_SPREAD = 0.1
"""Relative; for manifests in which most rates are the same."""


@dataclasses.dataclass(frozen=True)
class Checked:
    """A manifest, read and measured.

    Attributes:
        path: of the manifest.
        role: what it is used for.
        utterances: all of them.
        recordings: measured, or the problem of reading it, of each utterance.
        problems: what was found by the rules of training.
        transcripts: of each utterance, normalised.
    """

    path: Path
    role: Role
    utterances: Sequence[Utterance]
    recordings: Sequence[Recording | Problem]
    problems: Sequence[Problem]
    transcripts: Sequence[str]

    def leaves_out(self, problem: Problem) -> bool:
        """Whether the utterance is not used: a test split is never made easier, only its audio must be there."""
        return self.role != "test" or problem.reason in (*AUDIO_REASONS, "wrong duration")

    def rates(self) -> np.ndarray:
        """[U] float, characters a second; NaN where there is no transcript or no duration."""
        characters = np.array([len(text) or np.nan for text in self.transcripts])
        seconds = np.array([utterance.duration or np.nan for utterance in self.utterances])
        rates: np.ndarray = characters / seconds
        return rates


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something to mend (error), to look at (warning) or to know (remark) about an utterance."""

    level: Level
    manifest: str
    kind: str
    id: str
    audio: str
    detail: str


def write_findings(path: Path, findings: Iterable[Finding]) -> None:
    """Writes JSON Lines: level, manifest, kind, id, audio, detail."""
    lines = (json.dumps(dataclasses.asdict(finding), ensure_ascii=False) + "\n" for finding in findings)
    write_text(path, "".join(lines))


def find(manifests: Sequence[Checked], sample_rate: int, unusable: Level) -> list[Finding]:
    """All there is to say about manifests, those of each together.

    Args:
        manifests: in the order in which what they share is looked for: the later one is told.
        sample_rate: Hz, of the model.
        unusable: what it is that an utterance cannot be used: an error where training stops, else a warning.
    """
    shared = shared_findings(manifests)
    findings = []
    for manifest in manifests:
        for problem in manifest.problems:
            level = unusable if manifest.leaves_out(problem) else "warning"
            findings.append(_finding(level, manifest, problem.reason, problem, problem.detail))
        findings += sound_findings(manifest, sample_rate)
        findings += rate_findings(manifest)
        findings += [finding for finding in shared if finding.manifest == str(manifest.path)]
    return findings


def _finding(level: Level, manifest: Checked, kind: str, row: Utterance | Problem, detail: str) -> Finding:
    return Finding(level, str(manifest.path), kind, row.id, str(row.audio), detail)


def sound_findings(manifest: Checked, sample_rate: int) -> Iterator[Finding]:
    """Silent and clipped recordings, and sample rates that are mixed or below the model's."""
    seen = Counter(each.sample_rate for each in manifest.recordings if isinstance(each, Recording))
    rates = ", ".join(f"{rate} Hz {count:,}" for rate, count in seen.most_common())
    usual = seen.most_common(1)[0][0] if seen else sample_rate
    for utterance, recording in zip(manifest.utterances, manifest.recordings, strict=True):
        if isinstance(recording, Problem):
            continue
        if recording.level < SILENCE:
            detail = f"standard deviation {recording.level:.1g} of full scale"
            yield _finding("warning", manifest, "silence", utterance, detail)
        elif recording.clipped > CLIPPED:
            detail = f"{recording.clipped:.1%} of the samples at the peak"
            yield _finding("warning", manifest, "clipping", utterance, detail)
        if recording.sample_rate != usual:
            detail = f"{recording.sample_rate} Hz; the manifest has {rates}"
            yield _finding("warning", manifest, "mixed sample rates", utterance, detail)
        if recording.sample_rate < sample_rate:
            detail = f"{recording.sample_rate} Hz; the model hears {sample_rate} Hz"
            yield _finding("warning", manifest, "sample rate below the model's", utterance, detail)


def rate_findings(manifest: Checked) -> Iterator[Finding]:
    """Utterances spoken oddly fast (words too many, or audio cut short) or slowly (words missing)."""
    rates = manifest.rates()
    median = np.nanmedian(rates) if np.isfinite(rates).any() else np.nan
    odd = outliers(rates)
    for index in sorted(
        np.flatnonzero(odd).tolist(), key=lambda i: -abs(np.log(rates[i] / median))
    ):  # the oddest first
        utterance = manifest.utterances[index]
        text = shorten(repr(manifest.transcripts[index]))
        detail = f"{rates[index]:.1f} characters a second, usual are {median:.1f}: {text} in {utterance.duration:g} s"
        yield _finding("warning", manifest, "odd speech rate", utterance, detail)


def outliers(rates: np.ndarray) -> np.ndarray:
    """Marks rates far from the usual: [U] bool; NaN is none, nor is anything among fewer than `MIN_UTTERANCES`.

    The spread is the median absolute deviation of the logarithms, taken on each side of the median by itself: short
    utterances in long silence make the lower side wide, and must not hide what is odd on the other.
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
    """Recordings that are there twice, and texts and speakers of two manifests, each told where it occurs again."""
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
                    findings.append(_finding("warning", manifest, kind, utterance, f"as {shorten(other.id)}{differs}"))
            first, other = texts.setdefault(text, (manifest, utterance))
            if text and first is not manifest:
                tell("warning", f"text also in {first.path}", text, manifest, utterance, shorten(repr(text)))
            speaker = utterance.speaker
            if speaker and (home := speakers.setdefault(speaker, manifest)) is not manifest:
                tell("remark", f"speaker also in {home.path}", speaker, manifest, utterance, shorten(speaker))
    return findings
