"""Weights as .safetensors that are damaged, foreign or of other settings."""

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ds2_jax import config as config_lib
from ds2_jax.engines import safetensors
from tests.engines.hostile import CONFIG, TOO_MANY, variables, weights


def made_file(header: Mapping[str, Any] | bytes, data: bytes = b"", size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def other_weights() -> dict[str, bytes]:
    """Makes files of weights that are damaged, hostile, or of another model."""
    size = int.from_bytes(weights()[:8], "little")
    header, data = json.loads(weights()[8 : 8 + size]), weights()[8 + size :]
    settings = {"config": config_lib.to_json(CONFIG)}

    def claiming(name: str = "params.head", **values: Any) -> bytes:
        return made_file({**header, name: {**header[name], **values}}, data)

    def changing(change: Callable[[dict[str, Any]], None]) -> bytes:
        tree = jax.tree.map(np.copy, variables())
        change(tree)
        return safetensors.to_bytes(tree, settings)

    def holding(value: float, *path: str) -> bytes:
        def change(tree: dict[str, Any]) -> None:
            place: Any = tree
            for part in path:
                place = place[part]
            place.flat[0] = value

        return changing(change)

    def replacing(name: str, value: Any) -> bytes:
        return changing(lambda tree: tree["params"].update({name: value}))

    def grow(tree: dict[str, Any]) -> None:
        tree["params"]["head"] = np.sign(tree["params"]["head"]) * np.float32(3e38)
        tree["params"]["head_norm"]["scale"] *= 1000

    metadata = {"__metadata__": settings}
    return {
        "terabytes": claiming(shape=[TOO_MANY], data_offsets=[0, 4 * TOO_MANY]),
        "terabytes alone": made_file(
            metadata | {"a": {"dtype": "F32", "shape": [TOO_MANY], "data_offsets": [0, 4]}}, b"1234"
        ),
        "no bytes of a huge shape": claiming(shape=[0, 2**62], data_offsets=[0, 0]),
        "overflow": claiming(shape=[2**62, 16]),
        "overlap": claiming(data_offsets=header["params.conv_0.bias"]["data_offsets"]),
        "backwards": claiming(data_offsets=header["params.head"]["data_offsets"][::-1]),
        "a negative offset": claiming(data_offsets=[-4, 0]),
        "F16": claiming(dtype="F16"),
        "BF16": claiming(dtype="BF16", shape=[6, 4]),
        "F8": claiming(dtype="F8_E4M3", shape=[12, 4]),
        "I32": claiming(dtype="I32"),
        "an unknown type": claiming(dtype="OBJECT"),
        "a header of exabytes": made_file(b"", size=2**60),
        "a header of gigabytes": made_file(b"", size=2**30),
        "a large header": made_file(json.dumps(metadata).encode().ljust(9 * 2**20), b""),
        "a deep header": made_file(b'{"a":' * 100_000),
        "numbers as metadata": made_file({"__metadata__": {"config": 1}}),
        "settings alone": made_file(metadata),
        "bytes behind": weights() + b"1234",
        "nothing": b"",
        "three bytes": b"abc",
        "zeros": bytes(5000),
        "an array more": replacing("more", np.zeros(1, np.float32)),
        "an array inside another": replacing("head", {"more": np.zeros(1, np.float32)}),
        "an array less": changing(lambda tree: tree["params"].pop("head")),
        "another shape": replacing("head", np.zeros((4, 3), np.float32)),
        "a scalar": replacing("head", np.float32(1)),
        "float64": replacing("head", variables()["params"]["head"].astype(np.float64)),
        "NaN": holding(np.nan, "params", "head"),
        "infinity": holding(np.inf, "params", "conv_0", "kernel"),
        "a negative variance": holding(-1.0, "batch_stats", "head_norm", "var"),
        "too large to compute": changing(grow),
    }
