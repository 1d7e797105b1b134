"""The programs for which `export` writes a folder. Importing this loads nothing."""

from typing import Literal

Target = Literal["sherpa-onnx", "onnx-asr", "transformers.js"]
