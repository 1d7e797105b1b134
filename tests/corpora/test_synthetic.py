import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ds2_jax import corpora
from ds2_jax.audio.reading import read_audio
from ds2_jax.config import DataConfig
from ds2_jax.config.frames import conv_output_lengths, count_frames, ctc_min_frames
from ds2_jax.config.settings import ENGLISH
from ds2_jax.corpora import synthetic
from ds2_jax.corpora.synthetic import Prompt
from ds2_jax.data.manifest import Utterance, read_manifest, write_manifest
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet

SCRIPT = synthetic.script()
SPLITS = ("train", "dev", "test")
PAIRS = list(itertools.combinations(SPLITS, 2))


def small_script() -> dict[str, dict[str, list[Prompt]]]:
    """Gives the first sentences of two voices of each split; en-gb-x-rp+f5 breathes, which is random noise."""
    chosen = {"en-gb-x-rp+f5", "en-us", "en-us+m4", "en-029+Mike", "en-gb-scotland+f3", "en-gb-scotland+m3"}
    return {
        split: {voice: prompts[:3] for voice, prompts in SCRIPT[split].items() if voice in chosen} for split in SPLITS
    }


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first") / "corpus"
    synthetic.build(folder, small_script())
    return folder


def sentences(split: str) -> set[str]:
    return {prompt.transcript for prompts in SCRIPT[split].values() for prompt in prompts}


def accent(voice: str) -> str:
    return voice.partition("+")[0]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_script_is_always_the_same() -> None:
    assert synthetic.script() == SCRIPT


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_splits_share_no_sentence(one: str, other: str) -> None:
    assert not sentences(one) & sentences(other)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_splits_share_no_voice(one: str, other: str) -> None:
    assert not set(SCRIPT[one]) & set(SCRIPT[other])


def test_vocal_tracts_and_an_accent_of_test_are_heard_nowhere_else() -> None:
    others = [*SCRIPT["train"], *SCRIPT["dev"]]
    assert not {voice.partition("+")[2] for voice in SCRIPT["test"]} & {voice.partition("+")[2] for voice in others}
    assert {accent(voice) for voice in SCRIPT["test"]} - {accent(voice) for voice in others} == {"en-gb-scotland"}


def test_sizes() -> None:
    counts = {split: sum(map(len, SCRIPT[split].values())) for split in SPLITS}
    assert counts == {"train": 1200, "dev": 60, "test": 180}
    assert len(SCRIPT["train"]) >= 16
    assert len({accent(voice) for voice in SCRIPT["train"]}) == 7
    assert len(SCRIPT["test"]) >= 3


def test_vocabulary_is_28_words_all_in_training_and_no_letters() -> None:
    words = {split: {word for sentence in sentences(split) for word in sentence.split()} for split in SPLITS}
    assert len(words["train"]) == 28
    assert words["dev"] | words["test"] <= words["train"]
    assert all(len(word) > 1 and word.isalpha() and word.isupper() for word in words["train"])


def test_voices_of_test_say_the_same_sentences() -> None:
    spoken = [[prompt.transcript for prompt in prompts] for prompts in SCRIPT["test"].values()]
    assert all(other == spoken[0] for other in spoken)


def test_speed_and_pitch_vary_within_each_voice() -> None:
    for prompts in SCRIPT["train"].values():
        assert max(p.rate for p in prompts) - min(p.rate for p in prompts) > 30
        assert max(p.pitch for p in prompts) - min(p.pitch for p in prompts) > 15


def test_two_builds_are_the_same_bytes(small_corpus: Path, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere" / "again"
    synthetic.build(again, small_script())
    assert files(again) == files(small_corpus)
    assert len(files(again)) == 3 + 6 * 3


def test_utterances_name_their_voice(small_corpus: Path) -> None:
    rows = [row for split in SPLITS for row in read_manifest(small_corpus / f"{split}.jsonl")]
    assert {row.speaker for row in rows} == {voice for voices in small_script().values() for voice in voices}
    assert all(row.id == row.audio.stem and row.id.startswith(f"{row.speaker}-") for row in rows)
    assert len({row.id for row in rows}) == len(rows)


def test_words_and_their_times_are_listed(small_corpus: Path) -> None:
    for row in (row for split in SPLITS for row in read_manifest(small_corpus / f"{split}.jsonl")):
        assert [word.text for word in row.words] == row.transcript.split()
        assert row.words[0].start == 0
        assert row.duration - 0.1 < row.words[-1].end <= row.duration
        assert all(0.04 < word.end - word.start < 0.9 for word in row.words), row


def check_audio(folder: Path, script: dict[str, dict[str, list[Prompt]]]) -> list[Utterance]:
    """Every utterance decodes, is audible, is not clipped and is long enough for CTC at 40 ms a frame."""
    alphabet = Alphabet(ENGLISH)
    rows = []
    for split in SPLITS:
        prompts = [prompt for said in script[split].values() for prompt in said]
        utterances = read_manifest(folder / f"{split}.jsonl")
        for row, prompt in zip(utterances, prompts, strict=True):
            assert row.transcript == prompt.transcript
            waveform = read_audio(row.audio, 16_000)
            assert len(waveform) / 16_000 == row.duration, row.id
            assert 0.15 < row.duration / len(row.transcript.split()) < 0.8, row.id
            assert np.abs(waveform).max() == pytest.approx(prompt.level, abs=1e-4), row.id
            assert np.sqrt(np.square(waveform).mean()) > 0.01, row.id
            frames = conv_output_lengths(count_frames(len(waveform), 160), 4)
            assert frames >= ctc_min_frames(alphabet.encode(row.transcript)), row.id
        rows += utterances
    return rows


def test_audio(small_corpus: Path) -> None:
    assert len(check_audio(small_corpus, small_script())) == 18


@pytest.mark.slow
def test_audio_of_the_whole_corpus(tmp_path: Path) -> None:
    rows = check_audio(synthetic.prepare(tmp_path), SCRIPT)
    assert len(rows) == 1440
    assert 0.7 < sum(row.duration for row in rows) / 3600 < 0.9
    assert max(row.duration for row in rows) < 4
    assert all([word.text for word in row.words] == row.transcript.split() for row in rows)


def test_resampling_keeps_what_lies_below_8_khz_and_nothing_folds(small_corpus: Path) -> None:
    waveforms = [read_audio(row.audio, 16_000) for row in read_manifest(small_corpus / "train.jsonl")]
    power = np.mean([np.abs(np.fft.rfft(waveform, 65_536)) ** 2 for waveform in waveforms], axis=0)
    frequency = np.fft.rfftfreq(65_536, 1 / 16_000)
    assert power[frequency > 7_950].mean() < 1e-3 * power[(frequency > 7_000) & (frequency < 7_200)].mean()
    assert power[(frequency > 200) & (frequency < 4_000)].sum() > 0.5 * power.sum()


@pytest.mark.parametrize(
    ("voice", "finding"), [("en-gb", "espeak_SetVoiceByName returned 2"), ("en-us+nobody", "no variant 'nobody'")]
)
def test_unknown_voice_is_an_error(voice: str, finding: str) -> None:
    with pytest.raises(InputError) as caught:
        synthetic.speak(voice, [Prompt("STOP", 140, 50, 0.5)])
    assert str(caught.value) == (
        f"espeak-ng must speak with the voice {voice!r}, got {finding}. Reinstall espeakng-loader, version 0.2.4."
    )


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InputError) as caught:
        synthetic.prepare(tmp_path)
    assert str(caught.value) == (
        "Synthesised voices must have the package espeakng-loader, got none. "
        "Install it: pip install espeakng-loader==0.2.4 (it carries espeak-ng, under the GPL)."
    )
    assert not list(tmp_path.iterdir())


def refuse(*_: object) -> None:
    raise AssertionError("built again")


def test_there_is_no_archive_of_it(tmp_path: Path) -> None:
    data = DataConfig(corpus="synthetic", root=tmp_path, archive=Path("a.tar.gz"))
    message = r"^data\.archive must be None for synthetic, which is built here, got a\.tar\.gz\. Remove it\.$"
    with pytest.raises(InputError, match=message):
        corpora.split_manifests(data, build=True)


def test_prepare_builds_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(synthetic, "script", small_script)
    stale = tmp_path / "data" / "synthetic.partial" / "audio"  # as a killed run leaves it
    stale.mkdir(parents=True)
    (stale / "en-us-00.wav").write_bytes(b"half")
    folder = synthetic.prepare(tmp_path / "data")
    assert folder == tmp_path / "data" / "synthetic"
    assert capsys.readouterr().err == "building the quick-start corpus: 18 utterances in 6 voices ...\n"
    assert list(folder.parent.iterdir()) == [folder]
    assert all(row.audio.is_file() for split in SPLITS for row in read_manifest(folder / f"{split}.jsonl"))
    monkeypatch.setattr(synthetic, "build", refuse)
    assert synthetic.prepare(tmp_path / "data") == folder
    assert capsys.readouterr().err == ""
    older = json.loads((folder / "source.json").read_text())
    del older["word_times"]
    (folder / "source.json").write_text(json.dumps(older))
    assert synthetic.prepare(tmp_path / "data") == folder
    assert capsys.readouterr().err == (
        f"{folder} has no word times, which this version writes: delete the folder and prepare it again to get them.\n"
    )
    monkeypatch.setattr(synthetic, "script", lambda: {split: {} for split in SPLITS})
    with pytest.raises(InputError, match="must hold the quick-start corpus of this version, got another"):
        synthetic.prepare(tmp_path / "data")


def test_a_stop_leaves_nothing_to_believe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "script", small_script)
    written = []

    def stop_at_dev(write: Callable[..., None]) -> Callable[..., None]:
        def stopping(path: Path, utterances: object) -> None:
            if path.name == "dev.jsonl":
                raise KeyboardInterrupt
            write(path, utterances)
            written.append(path.name)

        return stopping

    monkeypatch.setattr(synthetic, "write_manifest", stop_at_dev(write_manifest))
    with pytest.raises(KeyboardInterrupt):
        synthetic.prepare(tmp_path)
    assert written == ["train.jsonl"]
    assert not list(tmp_path.iterdir())


def test_folder_that_is_not_the_corpus_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "synthetic"
    folder.mkdir()
    (folder / "train.jsonl").write_text("mine")
    with pytest.raises(InputError) as caught:
        synthetic.prepare(tmp_path)
    assert str(caught.value) == (
        f"{folder} must be made by preparing the quick-start corpus, got no source.json in it. "
        "Delete the folder, or choose another root."
    )
    assert files(folder) == {"train.jsonl": b"mine"}
