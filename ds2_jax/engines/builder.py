"""Collects the operators and weights of an ONNX graph."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ds2_jax import config as config_lib
from ds2_jax.config import Config

OPSET, IR_VERSION = 17, 8
"""Versions of ONNX's operators and of its file format. Runtimes from 2022 on read them."""

Value = str | np.ndarray | np.generic
"""The name of a value in the graph, or a constant."""


class Graph:
    """Collects the operators of a graph. Call it to add one."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    def __call__(self, operator: str, *inputs: Value, outputs: int = 1, **attributes: Any) -> Any:
        """Adds an operator and returns the name of its output, or the names of several.

        Args:
            operator: ONNX's name of it.
            inputs: names of values, or arrays; "" for an optional input that is left out.
            outputs: number of outputs.
            attributes: those of the operator.
        """
        self._count += 1
        names = [f"{operator.lower()}_{self._count}" + f".{i}" * (outputs > 1) for i in range(outputs)]
        given = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        self._nodes.append(helper.make_node(operator, given, names, name=names[0], **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, values: np.ndarray | np.generic) -> str:
        """Adds an array and returns its name. Equal small arrays are stored once."""
        values = np.ascontiguousarray(values).reshape(np.shape(values))
        content = values.tobytes() if values.size < 64 else str(len(self._weights)).encode()
        key = values.dtype.str, values.shape, content
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._weights)}"
            self._weights.append(numpy_helper.from_array(values, self._constants[key]))
        return self._constants[key]

    def model(
        self, config: Config, inputs: Sequence[onnx.ValueInfoProto], outputs: Mapping[str, onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """Makes the model. `outputs` maps values of the graph to the outputs of the model."""
        nodes = [*self._nodes]
        for value, output in outputs.items():
            nodes.append(helper.make_node("Identity", [value], [output.name], name=output.name))
        graph = helper.make_graph(nodes, "deep_speech_2", inputs, list(outputs.values()), self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model.producer_name = "ds2_jax"
        helper.set_model_props(model, {"config": json.dumps(json.loads(config_lib.to_json(config)))})
        return model
