"""Times of sound are those of its file, as a player shows them; ffmpeg opens nothing but the file."""

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.audio.reading import read_audio, read_blocks
from ds2_jax.audio.timeline import Timeline
from ds2_jax.system.errors import InputError
from tests.audio.recordings import RATE, write

pytestmark = pytest.mark.usefixtures("ffmpeg")

VIDEO = {".webm": ("libvpx", "libopus"), ".ts": ("mpeg2video", "aac"), ".avi": ("mpeg4", "mp3")}
FRAME = 0.1  # seconds: coders add up to this much before the sound


def run(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *map(str, arguments)], check=True)


def click(tmp_path: Path, seconds: float = 2.0) -> Path:
    """Writes noise of a tenth of a second after 0.5 s, and again after 1.5 s."""
    samples = np.zeros(int(seconds * RATE))
    for start in (0.5, 1.5):
        place = slice(int(start * RATE), int((start + 0.1) * RATE))
        samples[place] = np.random.default_rng(0).uniform(-0.5, 0.5, place.stop - place.start)
    return write(tmp_path / "source.wav", samples[:, None])


def film(tmp_path: Path, suffix: str, *, late: float = 0.0, gap: float = 0.0) -> Path:
    """Makes a film of 20 s whose sound begins `late` and has a gap after a second."""
    video, audio = VIDEO.get(suffix, ("mpeg4", "aac"))
    path = tmp_path / f"film{suffix}"
    source = ["-f", "lavfi", "-i", "color=size=16x16:rate=25:duration=20", "-itsoffset", late, "-i", click(tmp_path)]
    shift = ["-af", f"asetnsamples=n=160,asetpts=PTS+if(gte(T\\,{late + 1.0})\\,{gap}/TB\\,0)"]
    run(*source, "-map", "0:v", "-map", "1:a", "-c:v", video, "-c:a", audio, *shift, path)
    return path


def clicks(path: Path) -> tuple[list[float], Timeline]:
    """Finds the clicks of a file, in seconds of the file."""
    timeline = Timeline()
    waveform = np.concatenate(list(read_blocks(path, RATE, timeline)))
    loud = np.flatnonzero(np.abs(waveform) > 0.1)
    starts = loud[np.diff(loud, prepend=-RATE) > RATE // 2]
    return [timeline.time(start / RATE) for start in starts.tolist()], timeline


@pytest.mark.parametrize(
    ("suffix", "late"),
    [(suffix, 2.0) for suffix in (".mkv", ".mp4", ".mov", ".webm", ".ts", ".m2ts", ".flv")] + [(".ts", 7.0)],
)
def test_sound_that_begins_later_than_the_picture(tmp_path: Path, suffix: str, late: float) -> None:
    found, timeline = clicks(film(tmp_path, suffix, late=late) if suffix != ".flv" else flash(tmp_path, late))
    assert found == pytest.approx([late + 0.5, late + 1.5], abs=FRAME)
    assert timeline.length == pytest.approx(20, abs=0.2)


def test_sound_that_an_avi_header_delays(tmp_path: Path) -> None:
    """ffmpeg reads the delay, but writes none: it is lost in the films that it makes."""
    path = film(tmp_path, ".avi")
    content = bytearray(path.read_bytes())
    stream = content.index(b"auds")
    scale, rate = struct.unpack_from("<II", content, stream + 20)
    struct.pack_into("<I", content, stream + 28, 2 * rate // scale)
    path.write_bytes(content)
    found, _ = clicks(path)
    assert found == pytest.approx([2.5, 3.5], abs=FRAME)


def flash(tmp_path: Path, late: float) -> Path:
    """Makes a film whose container takes few sample rates."""
    path = tmp_path / "film.flv"
    source = ["-f", "lavfi", "-i", "color=size=16x16:rate=25:duration=20", "-itsoffset", late, "-i", click(tmp_path)]
    run(*source, "-map", "0:v", "-map", "1:a", "-c:v", "flv", "-c:a", "aac", "-ar", "44100", path)
    return path


@pytest.mark.parametrize(
    ("suffix", "gap"),
    [(suffix, 3.0) for suffix in (".mkv", ".mp4", ".mov", ".webm")] + [(".ts", 3.0), (".ts", 15.0), (".mkv", 1800.0)],
)
def test_gaps_in_the_sound_move_what_follows(tmp_path: Path, suffix: str, gap: float) -> None:
    path = film(tmp_path, suffix, late=1.0, gap=gap)
    found, _ = clicks(path)
    assert found == pytest.approx([1.5, gap + 2.5], abs=FRAME)
    assert len(read_audio(path, RATE)) < 2.3 * RATE


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_a_clock_that_jumps_by_hours_is_told(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    path = film(tmp_path, suffix, gap=36_000.0)
    found, _ = clicks(path)
    assert found == pytest.approx([0.5, 36_001.5], abs=FRAME)
    [message] = [record.message for record in caplog.records]
    assert message.startswith(f"{path}: the clock jumps by 10.0 h after 1.")


def test_a_clock_that_is_set_back_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = film(tmp_path, ".ts", late=2.0)
    path.write_bytes(path.read_bytes() * 2)
    found, _ = clicks(path)
    assert found[:3] == pytest.approx([2.5, 3.5, 4.5], abs=0.3)
    assert any("the clock goes back by" in record.message for record in caplog.records)


FORMATS = {".ts": ("-c:a", "aac"), ".aac": (), ".ac3": (), ".mka": ("-c:a", "ac3")}


@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (44_100, 1), (44_100, 6)])
@pytest.mark.parametrize("suffix", FORMATS)
def test_sound_whose_rate_or_channels_change(tmp_path: Path, suffix: str, rate: int, channels: int) -> None:
    """So it is in broadcasts."""
    paths = [tmp_path / f"{part}{suffix}" for part in "ab"]
    for path, form, start in zip(paths, [(48_000, 1), (rate, channels)], [0, 2.05], strict=True):
        layout = ("-ar", form[0], "-ac", form[1], *FORMATS[suffix])
        run("-i", click(tmp_path), *layout, *(("-output_ts_offset", start) if suffix == ".ts" else ()), path)
    joined = tmp_path / f"joined{suffix}"
    joined.write_bytes(b"".join(path.read_bytes() for path in paths))
    found, _ = clicks(joined)
    assert found == pytest.approx([0.5, 1.5, 2.55, 3.55], abs=FRAME)


def test_gaps_behind_a_change_of_channels(tmp_path: Path) -> None:
    first, second = tmp_path / "first.ts", tmp_path / "second.ts"
    run("-i", click(tmp_path), "-ac", 2, "-c:a", "aac", first)
    shift = ["-af", "asetnsamples=n=160,asetpts=PTS+if(gte(T\\,1.0)\\,3/TB\\,0)"]
    run("-i", click(tmp_path), "-c:a", "aac", *shift, "-output_ts_offset", 33 * 0.064, second)  # 33 frames
    first.write_bytes(first.read_bytes() + second.read_bytes())
    found, _ = clicks(first)
    assert found == pytest.approx([0.5, 1.5, 2.612, 6.612], abs=FRAME)


def test_files_without_a_clock_begin_at_0(tmp_path: Path) -> None:
    for name in ("a.m4a", "a.wma", "a.aac", "a.oga", "a.mka"):
        run("-i", click(tmp_path), *(("-c:a", "flac") if name == "a.oga" else ()), tmp_path / name)
        found, _ = clicks(tmp_path / name)
        assert found == pytest.approx([0.5, 1.5], abs=FRAME), name


def test_a_timeline() -> None:
    timeline = Timeline()
    assert (timeline.time(3.0), timeline.end_time(3.0)) == (3.0, 3.0)
    timeline.add(0.0, 2.0, "a")
    timeline.add(5.0, 17.0, "a")  # a gap of ten seconds
    timeline.add(6.0, 17.8, "a")  # a small step back
    assert [timeline.time(each) for each in (0.0, 1.0, 5.0, 5.5, 6.0, 6.1, 7.0)] == pytest.approx(
        [2.0, 3.0, 17.0, 17.5, 18.0, 18.0, 18.8]
    )
    assert [timeline.end_time(each) for each in (1.0, 5.0, 5.5, 6.0, 7.0)] == pytest.approx(
        [3.0, 7.0, 17.5, 18.0, 18.8]
    )
    assert timeline.span(4.7, 5.2) == pytest.approx((6.7, 7.2)), "a word that a gap divides stays whole"
    assert timeline.span(4.8, 5.3) == pytest.approx((16.8, 17.3))


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile {path}\n"
MPD = """<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"
mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet
mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL></Representation></AdaptationSet>
</Period></MPD>"""
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
SMIL = '<smil><body><audio src="{url}"/></body></smil>'
ATTACKS = {"m3u8": PLAYLIST, "ffconcat": CONCAT, "mpd": MPD, "sdp": SDP, "smil": SMIL}


@pytest.mark.parametrize("name", ["upload.bin", "a.mp3", "a.mp4", "a.m3u8"])
@pytest.mark.parametrize("kind", ATTACKS)
def test_no_file_makes_ffmpeg_open_another(
    tmp_path: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret.mp3"
    soundfile.write(secret, np.random.default_rng(0).uniform(-0.5, 0.5, RATE), RATE)
    (tmp_path / name).write_text(ATTACKS[kind].format(url=f"file://{secret}", path="secret.mp3"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"^{name} must be "):
        read_audio(Path(name), RATE)


def test_the_attacks_would_work_without_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the test above could not fail."""
    secret = tmp_path / "secret.mp3"
    soundfile.write(secret, np.random.default_rng(0).uniform(-0.5, 0.5, RATE), RATE)
    monkeypatch.setattr("ds2_jax.audio.ffmpeg.FORMATS", ["hls", "concat", "mp3"])
    monkeypatch.chdir(tmp_path)
    for kind in ("m3u8", "ffconcat"):
        Path("upload.bin").write_text(ATTACKS[kind].format(url=f"file://{secret}", path="secret.mp3"))
        assert len(read_audio(Path("upload.bin"), RATE)) >= RATE


def test_other_audio_tracks_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = click(tmp_path)
    run("-i", source, "-i", source, "-map", "0:a", "-map", "1:a", "-c:a", "pcm_s16le", tmp_path / "two.mkv")
    clicks(tmp_path / "two.mkv")
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}/two.mkv: only the first of 2 audio tracks is read. "
        "Take out another: ffmpeg -i OLD -map 0:a:1 NEW.flac."
    ]
    caplog.clear()
    run("-i", source, "-c:a", "pcm_s16le", tmp_path / "one.mkv")
    clicks(tmp_path / "one.mkv")
    assert not caplog.records


def test_a_picture_is_no_sound(tmp_path: Path) -> None:
    run("-f", "lavfi", "-i", "color=size=16x16", "-frames:v", "1", tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png must be a recording in a format that is read"):
        read_audio(tmp_path / "a.png", RATE)
