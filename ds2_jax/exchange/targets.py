"""Names the programs for which `export` writes a folder."""

from typing import Literal

Target = Literal["sherpa-onnx", "onnx-asr", "transformers.js"]
