import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from bioelx_ray.errors import EncoderError  # noqa: E402
from bioelx_ray.retrieval.onnx_rows import quantise  # noqa: E402

RANDOM = np.random.default_rng(0)
TABLE = RANDOM.normal(size=(10_000, 64)).astype(np.float32)
WEIGHT = RANDOM.normal(size=(64, 32)).astype(np.float32)
IDS = RANDOM.integers(0, 10_000, size=(3, 5))


def model(nodes, constants, outputs=("y",)):
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [output]) for op, inputs, output in nodes],
        "test",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["b", "n"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(graph, ids=IDS):
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"ids": ids})


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_embedding_then_product():
    nodes = [("Gather", ["table", "ids"], "x"), ("MatMul", ["x", "w"], "y")]
    graph = quantise(model(nodes, {"table": TABLE, "w": WEIGHT}))
    assert graph.ByteSize() < TABLE.nbytes / 3
    assert relative_error(run(graph)[0], TABLE[IDS] @ WEIGHT) < 0.02


def test_rows_do_not_know_each_other():
    table = TABLE * np.logspace(-3, 3, len(TABLE), dtype=np.float32)[:, None]
    nodes = [("Gather", ["table", "ids"], "x"), ("MatMul", ["x", "w"], "y")]
    graph = quantise(model(nodes, {"table": table, "w": WEIGHT}))
    together = run(graph)[0]
    alone = np.concatenate([run(graph, row[None])[0] for row in IDS])
    np.testing.assert_array_equal(together, alone)
    for found, expected in zip(together, table[IDS] @ WEIGHT, strict=True):
        assert relative_error(found, expected) < 0.02


def test_what_is_used_twice():
    nodes = [
        ("Gather", ["table", "ids"], "x"),
        ("MatMul", ["x", "w"], "a"),
        ("MatMul", ["x", "v"], "b"),
        ("MatMul", ["x", "w"], "c"),
        ("Transpose", ["w"], "d"),
    ]
    constants = {"table": TABLE, "w": WEIGHT, "v": -WEIGHT, "unused": WEIGHT}
    graph = quantise(model(nodes, constants, outputs=("a", "b", "c", "d")))
    a, b, c, d = run(graph)
    np.testing.assert_array_equal(a, c)
    np.testing.assert_array_equal(a, -b)
    np.testing.assert_array_equal(d, WEIGHT.T)
    assert [node.op_type for node in graph.graph.node].count("QuantizeLinear") == 1
    assert "unused" not in {tensor.name for tensor in graph.graph.initializer}


def test_zeros_stay_zeros():
    nodes = [("Gather", ["table", "ids"], "x"), ("MatMul", ["x", "w"], "y")]
    found = run(quantise(model(nodes, {"table": TABLE * 0, "w": WEIGHT})))[0]
    np.testing.assert_array_equal(found, 0)
    found = run(quantise(model(nodes, {"table": TABLE, "w": WEIGHT * 0})))[0]
    np.testing.assert_array_equal(found, 0)


def test_nothing_to_quantise():
    with pytest.raises(EncoderError, match="no constant matrix"):
        quantise(model([("Cast", ["ids"], "y")], {}))
