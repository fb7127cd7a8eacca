"""A model.onnx that also tells how similar an image is to each training image that it knows, for a page."""

from __future__ import annotations

from pathlib import Path

import onnx

from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.runs.onnx_model import DISTANCE

#: The output that is added: cosines, float32 of shape (n, known images).
SIMILARITIES = "similarities"


def with_similarities(path: Path) -> bytes:
    """Return the model in *path* with the output SIMILARITIES, of which its distance is made; one without, as it is.

    Raises
    ------
    UserError : it is no ONNX model, or its distance is made in another way than export_model's.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's errors have no base class of their own
        raise UserError(f"{path}: not an ONNX model ({one_line(error)[:200]})", "export the run again") from error
    graph = model.graph
    if DISTANCE not in [output.name for output in graph.output]:
        return path.read_bytes()
    makers = {output: node for node in graph.node for output in node.output}
    # The distance is 1 - max(features @ known images).
    name, kinds = DISTANCE, []
    for position in (1, 0, 0):
        node = makers.get(name)
        kinds.append(node.op_type if node else "")
        if node and kinds[-1] != "MatMul":
            name = node.input[min(position, len(node.input) - 1)]
    if kinds != ["Sub", "ReduceMax", "MatMul"]:
        raise UserError(f"{path}: its distance is made by {', '.join(kinds)}", "export the run again")
    for node in graph.node:
        node.input[:] = [SIMILARITIES if value == name else value for value in node.input]
        node.output[:] = [SIMILARITIES if value == name else value for value in node.output]
    graph.output.append(onnx.helper.make_tensor_value_info(SIMILARITIES, onnx.TensorProto.FLOAT, ["batch", None]))
    return bytes(model.SerializeToString())
