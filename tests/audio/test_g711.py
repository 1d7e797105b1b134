"""G.711: libsndfile decodes every byte to the same sample."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

from ds2_jax.audio.g711 import decode_alaw, decode_ulaw


@pytest.mark.parametrize(("decode", "subtype"), [(decode_ulaw, "ULAW"), (decode_alaw, "ALAW")])
def test_every_byte_is_decoded_as_libsndfile_does(decode: Callable[[bytes], np.ndarray], subtype: str) -> None:
    content = bytes(range(256))
    expected, _ = soundfile.read(
        io.BytesIO(content), format="RAW", subtype=subtype, channels=1, samplerate=8000, dtype="int16"
    )
    found = decode(content)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, expected)
