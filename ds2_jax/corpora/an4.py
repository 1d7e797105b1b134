"""Prepares AN4: about an hour of spelled words, numbers and commands (CMU, 1991; 16 kHz, NIST Sphere)."""

from pathlib import Path

from ds2_jax.audio.reading import audio_duration
from ds2_jax.corpora.archive import extract
from ds2_jax.corpora.build import Gathered, building, check_source, finish, report
from ds2_jax.data.draw import drawn_order
from ds2_jax.data.manifest import Utterance
from ds2_jax.system.download import download, file_sha256
from ds2_jax.system.errors import InputError

# Sometimes unavailable (github.com/NVIDIA-NeMo/Speech, issues 3743 and 14136); copies elsewhere are not from CMU.
URL = "http://www.speech.cs.cmu.edu/databases/an4/an4_sphere.tar.gz"
OFFLINE = "Run again to resume, or give a copy of the archive: prepare an4 --archive PATH, train --data.archive PATH."
NUM_DEV_SPEAKERS = 8
NUM_PUBLISHED = {"train": 948, "test": 130}
"""The numbers of utterances in the published archive."""


def prepare(root: Path = Path("datasets"), archive: Path | None = None, seed: int = 0) -> Path:
    """Makes ROOT/an4 from the published archive: train.jsonl, dev.jsonl, test.jsonl, and the unchanged recordings.

    dev contains 8 speakers of the archive's training set; test is the archive's test set. The folder appears when it is
    complete, and a complete folder is not changed. The counts are printed to standard error.

    No checksum from the university is known. A download is checked by gzip's checksum and by the number of utterances,
    which detect damage but not forgery. The SHA-256 of the archive is printed and saved in source.json.

    Args:
        root: folder of the prepared corpora, which also keeps the download.
        archive: a copy of the published an4_sphere.tar.gz, used instead of a download. Its number of utterances is not
            checked.
        seed: seed of the draw of dev speakers.

    Returns:
        The folder ROOT/an4.

    Raises:
        InputError: the archive does not exist and cannot be downloaded, is damaged, or is not AN4; or ROOT/an4 was made
            from another archive or with another seed.
    """
    folder = root / "an4"
    if not folder.exists():
        with building(folder) as partial:
            if not folder.exists():
                _build(folder, partial, archive, seed)
    _check_source(folder, archive, seed)
    return folder


def _build(folder: Path, partial: Path, archive: Path | None, seed: int) -> None:
    root = folder.parent
    source = archive if archive is not None else root / Path(URL).name
    if archive is None:
        download(URL, source, advice=OFFLINE)
    extract(source, partial)
    corpus = partial / "an4"
    splits = {split: _read_split(source, corpus, split) for split in ("train", "test")}
    if archive is None:
        _check_published(source, splits)
    splits = _split_dev(source, splits["train"], seed) | {"test": splits["test"]}
    gathered = {split: Gathered(utterances) for split, utterances in splits.items()}
    sha256 = file_sha256(source)
    finish(corpus, folder, gathered, {"sha256": sha256, "seed": seed})
    report(folder, f"AN4 from {source} (SHA-256 {sha256})", gathered)


def _check_source(folder: Path, archive: Path | None, seed: int) -> None:
    """Raises InputError unless the complete `folder` was made from `archive` with `seed`.

    A missing archive is no error, because training no longer needs it.
    """
    wanted: dict[str, object] = {"seed": seed}
    if archive is not None and archive.is_file():
        wanted["sha256"] = file_sha256(archive)
    check_source(folder, "AN4", wanted)


def _read_split(archive: Path, corpus: Path, split: str) -> list[Utterance]:
    """Reads the utterances of one split of the unpacked archive, in order."""
    transcripts = _read_transcripts(archive, corpus, split)
    utterances = []
    for file_id in _lines(archive, corpus, f"etc/an4_{split}.fileids"):
        parts = file_id.split("/")
        if len(parts) != 3 or not all(parts) or ".." in parts:
            raise _not_an4(archive, f"name utterances as FOLDER/SPEAKER/UTTERANCE, got {file_id!r}")
        _, speaker, name = parts
        if name not in transcripts:
            raise _not_an4(archive, f"give one transcript for each line of an4_{split}.fileids, got none for {file_id}")
        audio = corpus / "wav" / f"{file_id}.sph"
        if not audio.is_file():
            raise _not_an4(archive, f"hold the recording an4/wav/{file_id}.sph, got none")
        try:
            duration = audio_duration(audio)
        except InputError as error:
            raise InputError(f"{archive}: {error}") from error
        utterances.append(Utterance(audio, duration, transcripts.pop(name), name, speaker))
    if not utterances:
        raise _not_an4(archive, f"list utterances in an4_{split}.fileids, got none")
    if transcripts:
        raise _not_an4(archive, f"list each transcript in an4_{split}.fileids, got {min(transcripts)} without a line")
    return utterances


def _read_transcripts(archive: Path, corpus: Path, split: str) -> dict[str, str]:
    """Reads the transcripts by utterance name, from lines `[<s>] WORD ... [</s>] (NAME)`."""
    transcripts: dict[str, str] = {}
    for line in _lines(archive, corpus, f"etc/an4_{split}.transcription"):
        *words, mark = line.split()
        name = mark[1:-1]
        if mark != f"({name})" or name in transcripts:
            raise _not_an4(
                archive, f"end each transcript with its utterance's name in parentheses, each name once, got {line!r}"
            )
        transcripts[name] = " ".join(word for word in words if word not in ("<s>", "</s>"))
    return transcripts


def _lines(archive: Path, corpus: Path, name: str) -> list[str]:
    """Reads the lines that are not blank from a text file of the archive."""
    path = corpus / name
    if not path.is_file():
        raise _not_an4(archive, f"hold an4/{name}, got none")
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise _not_an4(archive, f"hold an4/{name} in UTF-8, got {error.reason} at byte {error.start}") from error


def _not_an4(archive: Path, finding: str) -> InputError:
    return InputError(f"{archive} must {finding}. Use the archive of Sphere files as published: {URL}.")


def _check_published(archive: Path, splits: dict[str, list[Utterance]]) -> None:
    found = {split: len(utterances) for split, utterances in splits.items()}
    if found != NUM_PUBLISHED:
        raise InputError(f"{archive} must hold {NUM_PUBLISHED} utterances, got {found}. Delete it and fetch it again.")


def _split_dev(archive: Path, utterances: list[Utterance], seed: int) -> dict[str, list[Utterance]]:
    """Splits the archive's training set into train and dev by speaker."""
    speakers = {utterance.speaker for utterance in utterances}
    if len(speakers) <= NUM_DEV_SPEAKERS:
        raise _not_an4(archive, f"hold more than {NUM_DEV_SPEAKERS} training speakers, got {len(speakers)}")
    dev = set(drawn_order(speakers, seed)[:NUM_DEV_SPEAKERS])
    return {
        "train": [utterance for utterance in utterances if utterance.speaker not in dev],
        "dev": [utterance for utterance in utterances if utterance.speaker in dev],
    }
