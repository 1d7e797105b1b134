"""Fuzz targets: archives of corpora, and language models."""

import gzip
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.fuzz import seeds
from tests.fuzz.target import Target, accepted, attempt


def _read_archive(path: Path) -> None:
    from ds2_jax.corpora.archive import extract

    folder = path.parent / "unpacked"
    whole = attempt(path, lambda: extract(path, folder / "whole", shows_bar=False))
    chosen = attempt(path, lambda: extract(path, folder / "chosen", lambda member: "only/this", shows_bar=False))
    for each in folder.rglob("*"):
        assert each.is_dir() or each.is_file(), each
        assert not each.is_symlink(), each
    for result in (whole, chosen):
        if result is not None:
            raise result


def _members() -> Sequence[tuple[tarfile.TarInfo, bytes]]:
    return [
        seeds.member("an4", b"", type=tarfile.DIRTYPE, mode=0o755),
        seeds.member("an4/etc/an4_train.fileids", b"an4_clstk/fash/an251-fash-b\n" * 9),
        seeds.member("an4/wav/" + "long/" * 30 + "a.sph", seeds.sphere()[:2000]),
        seeds.member("an4/wav/übung.sph", b"x"),
    ]


def _tar() -> Sequence[bytes]:
    return [seeds.archive(_members(), kind) for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]


def _tar_claims() -> Sequence[bytes]:
    """Makes archives with members that would leave the folder or are not files, and with sizes beyond any disk."""
    up = [
        seeds.member(name) for name in ("../up", "a/../../up", "/tmp/ds2_jax_up", "..", "C:/up", "a\0b", "x" * 5000, "")
    ]
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"S", b"?")
    links = [seeds.member("link", b"", type=kind, linkname="../..", devmajor=1, devminor=5) for kind in kinds]
    through = [seeds.member("a", b"", type=tarfile.SYMTYPE, linkname=".."), seeds.member("a/up")]
    twice = [seeds.member("a"), seeds.member("a/b"), seeds.member("a")]
    claims = [seeds.archive([each]) for each in (*up, *links)] + [seeds.archive(through), seeds.archive(twice)]
    one = seeds.archive([seeds.member("a")], tarfile.GNU_FORMAT)
    sizes = (b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\x80\0\0\0\x7f" + b"\xff" * 7)
    for kind in (b"0", b"L", b"K", b"x", b"g", b"S"):
        claims += [one[:124] + size + one[136:156] + kind + one[157:] for size in sizes]
    sparse = seeds.member(
        "a", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**62)}
    )
    return [*claims, seeds.archive([sparse])]


ARCHIVES = {
    "gzip": Target("a.tar.gz", lambda: [seeds.mend_tar(each) for each in _tar()], _read_archive),
    "tar": Target("a.tar.gz", _tar, _read_archive, _tar_claims, seeds.mend_tar),
}


def _read_arpa(path: Path) -> None:
    from ds2_jax.decoding.ngram.model import load

    model = accepted(path, lambda: load(path))
    scores = model.word_scores("GO LEFT AND UP")
    assert np.isfinite([each.log10 for each in scores]).all()
    cached = next((path.parent / "cache/ds2_jax/ngrams").iterdir())
    content = bytearray(cached.read_bytes())
    content[sum(map(ord, cached.name)) * 7919 % len(content)] ^= 1  # a damaged cache is made again
    cached.write_bytes(content)
    assert load(path).word_scores("GO LEFT AND UP") == scores


ARPA = (
    b"\\data\\\nngram 1=5\nngram 2=3\nngram 3=1\n\n\\1-grams:\n-1.0\t<unk>\n-99\t<s>\t-0.3\n"
    b"-0.8\t</s>\n-0.9\tGO\t-0.25\n-1.1\tLEFT\t-1e-1\n\n"
    b"\\2-grams:\n-0.3\t<s> GO\t-.5\n-0.4\tGO LEFT\t0\n-0.5\tLEFT </s>\n\n"
    b"\\3-grams:\n-0.1\t<s> GO LEFT\n\n\\end\\\n"
)


def _arpa_claims() -> Sequence[bytes]:
    many = b"\\data\\\n" + b"".join(b"ngram %d=0\n" % i for i in range(1, 200_000)) + b"\\1-grams:\n"
    deep = b"\\data\\\n" + b"".join(b"ngram %d=%d\n" % (i, 3 * (i == 1)) for i in range(1, 3001))
    deep += b"\\1-grams:\n-1\t<s>\n-1\t</s>\n-1\ta\n"
    deep += b"".join(b"\\%d-grams:\n" % i for i in range(2, 3000)) + b"\\3000-grams:\n" + b"-1\t<s>\n" * 100_000
    counts = [ARPA.replace(b"1=5", b"1=" + value) for value in (b"0", b"2147483648", b"9" * 18, b"9" * 19, b"-1")]
    bomb = gzip.compress(ARPA.replace(b"\\end\\", b"") + b"-1.0\t<s>\n" * 3_000_000)
    return [many, deep, *counts, bomb, b"\\data\\\n" + b"a" * 2**25]


MODELS = {"arpa": Target("lm.arpa", lambda: [ARPA, gzip.compress(ARPA, mtime=0)], _read_arpa, _arpa_claims)}
