"""Says what made a result: manifest, weights, decoding options and version. The result's file is named after them."""

import dataclasses
import datetime
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ds2_jax.config.places import TFDS, absolute, is_tfds
from ds2_jax.data.splits import Split, digest
from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.system.checks import build, require
from ds2_jax.system.program import VERSION

DIGITS = 8
"""The number of hexadecimal digits of a digest in file names and headings."""


TOGETHER = {"with", "combine"}
"""The keys of `Provenance.decoding` that tell of other models."""
NOTHING: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What made a result.

    Attributes:
        manifest: absolute path of the manifest, or tfds:NAME#SPLIT.
        manifest_digest: SHA-256 of the utterances' ids, durations and transcripts, whatever their order.
        steps: the checkpoints whose weights were averaged, the best first.
        weights_digest: SHA-256 of these weights.
        decoding: the decoding options. Greedy decoding has the defaults, because it uses none of them. If other models
            recognised together with the first, `with` lists them, and `combine` says how.
        lm_digest: SHA-256 of the language model's file; "" without a language model.
        version: version of this package.
        written: local time at which the result was written, in ISO 8601.
    """

    manifest: str
    manifest_digest: str
    steps: list[int]
    weights_digest: str
    decoding: dict[str, Any]
    lm_digest: str
    version: str = VERSION
    written: str = ""

    @classmethod
    def of(
        cls,
        manifest: Path,
        split: Split,
        weights: tuple[list[int], str],
        decoding: DecodingOptions = GREEDY,
        together: Mapping[str, Any] = NOTHING,
    ) -> Self:
        """Describes an evaluation before it begins.

        Args:
            manifest: the manifest, or tfds:NAME#SPLIT.
            split: its utterances.
            weights: the steps and the digest of the weights, from `trained.weights_of`.
            decoding: the decoding options, with the weights of the language model.
            together: what `ensembles.describe` gives, if several models recognise together.
        """
        ordered = Split(sorted(split.utterances, key=lambda utterance: utterance.id), split.alphabet)
        options = decoding if decoding.beam else GREEDY
        values: dict[str, Any] = vars(options) | {"hot_word": sorted(options.hot_word)} | {**together}
        if options.beam:
            values["beam_width"] = options.width
        lm_digest = ""
        if options.lm:
            from ds2_jax.decoding.ngram.cache import digest_of  # this import loads Numba

            values["lm"], lm_digest = str(options.lm.absolute()), digest_of(options.lm)
        return cls(str(absolute(manifest)), digest(ordered), *weights, values, lm_digest)

    @classmethod
    def read(cls, row: Any) -> Self:
        """Reads what `dataclasses.asdict` gave to JSON.

        Raises:
            InputError, KeyError: a value is missing or of another type.
        """
        require(isinstance(row, dict), "provenance", "be a JSON object", row)
        names = ("manifest", "manifest_digest", "weights_digest", "lm_digest", "version", "written")
        texts = {name: build(str, row[name], f"{name}.") for name in names}
        decoding, steps = row["decoding"], row["steps"]
        require(isinstance(decoding, dict), "decoding", "be a JSON object", decoding)
        require(isinstance(steps, list), "steps", "be a list", steps)
        return cls(**texts, decoding=decoding, steps=[build(int, step, "steps.") for step in steps])

    def written_now(self) -> Self:
        """Notes the present time as the time of writing."""
        return dataclasses.replace(self, written=datetime.datetime.now().astimezone().isoformat(timespec="seconds"))

    @property
    def name(self) -> str:
        """The name of the result's files: MANIFEST+LM-DIGEST, MANIFEST+beam-DIGEST or MANIFEST-DIGEST.

        The digest is that of the manifest and its path, the weights, the decoding options and the language model. So
        other results have other files, and the same evaluation replaces its own. The path belongs to it because a copy
        of a set with noise has the same ids, durations and transcripts.
        """
        made_by = [self.manifest, self.manifest_digest, self.weights_digest or self.steps, *self.how]
        found = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
        return f"{manifest_name(Path(self.manifest))}{self._suffix}-{found[:DIGITS]}"

    @property
    def how(self) -> tuple[str, str]:
        """Identifies the decoding: the options as JSON, and the digest of the language model instead of its path."""
        return json.dumps(self._options, sort_keys=True), self.lm_digest

    @property
    def _options(self) -> dict[str, Any]:
        """The options that are not the defaults, without the language model."""
        defaults: dict[str, Any] = vars(GREEDY) | {"hot_word": []}
        return {name: value for name, value in self.decoding.items() if name != "lm" and value != defaults.get(name)}

    @property
    def _beam(self) -> bool:
        return bool(self._options.keys() - TOGETHER)

    @property
    def _suffix(self) -> str:
        models = f"+{len(self.decoding['with'])}models" if "with" in self.decoding else ""
        if not self._beam:
            return models
        lm = self.decoding.get("lm")
        return models + (f"+{Path(lm).name.removesuffix('.gz').removesuffix('.arpa')}" if lm else "+beam")

    def __str__(self) -> str:
        """Describes manifest and decoding in a heading."""
        shown = [manifest_name(Path(self.manifest)), "beam search" if self._beam else "greedy"]
        if lm := self.decoding.get("lm"):
            shown.append(f"{Path(lm).name} ({self.lm_digest[:DIGITS]})")
        for name, value in self._options.items():
            shown.append(f"{name.replace('_', ' ')} {' '.join(value) if isinstance(value, list) else value}")
        return ", ".join(shown)


def manifest_name(manifest: Path) -> str:
    """Names a manifest FOLDER-STEM, because many are called test.jsonl, and a tfds: name SET-SPLIT."""
    if is_tfds(manifest):
        where, _, split = str(manifest).rpartition("#")
        return re.sub(r"[^\w.+-]+", "-", f"{where.removeprefix(TFDS).rstrip('/').rpartition('/')[2]}-{split}")
    return f"{manifest.absolute().parent.name}-{manifest.stem}"
