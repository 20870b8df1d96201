"""Single kernels against Liger-Kernel's measurements on real GPUs (A100, H100): bytes, plus whole cuBLAS workspaces.

Its benchmark runs forward and backward with `retain_graph`, over and over: inputs and weights hold gradients already,
nothing kept is released, and the output and its gradient stay (the benchmark of head and loss releases it).
"""

import csv
import json

import pytest

from sizeup.estimate.training.activations import activate
from sizeup.estimate.training.basic import multiply
from sizeup.estimate.training.build import Build, Method, stored_bytes
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.loss import cross_entropy, fused_cross_entropy
from sizeup.estimate.training.tape import TEMPORARY, Node, Tape, height, rounded

MIB = 2**20
WORKSPACE = 8.125


def highest(program, elements, item, *, weight_item=2, backward=True, output_gradient=None, other=0, retain=True):
    tape = Tape(accumulating=True)
    build = Build(tape, Method(item=weight_item), 1, 1)
    x = tape.value(elements, item)
    x.node, x.needs = Node([], lambda _g: (), [None]), True
    y = program(tape, build, x)
    held = stored_bytes(build.weights) + other
    if not backward:
        return (height(tape.log).top + held) / MIB
    tape.label = TEMPORARY
    given = tape.value(y.n, output_gradient or y.item)
    seed = given if given.item == y.item else tape.value(y.n, y.item)
    y.node.grads[0] = seed  # and stays alive: autograd's root holds what it starts from
    if not retain:
        tape.backward()
    for node in reversed(list(tape.nodes)):
        grad = node.grads[0]
        node.grads = [None] * len(node.grads)
        results = list(node.backward(grad))
        tape._fit(node.edges, results)
        del grad
        tape._pass_on(node.edges, results)
    return (height(tape.log).top + held + rounded(elements * item) + stored_bytes(build.weights)) / MIB


def mlp(case, activation):
    h, inner = case["hidden_size"], case["intermediate_size"]

    def program(tape, build, x):
        gate = activate(tape, build.linear("gate", x, h, inner), activation)
        return build.linear("down", multiply(tape, gate, build.linear("up", x, h, inner)), inner, h)

    return program


def predicted(row):
    """MiB of a row, or None for kernels that the estimate doesn't speak of."""
    case, size = json.loads(row["extra_benchmark_config_str"]), int(float(row["x_value"]))
    kernel, plain = row["kernel_name"], row["kernel_provider"] == "huggingface"
    if kernel == "cross_entropy" and plain:
        tokens = case["B"] * case["T"]
        loss = lambda tape, build, x: cross_entropy(tape, x, tokens, shifted=False, upcast=False)  # noqa: E731
        return highest(loss, tokens * size, 4)
    if kernel == "layer_norm" and plain:
        norm = lambda tape, build, x: build.layer_norm("norm", x, size)  # noqa: E731
        return highest(norm, case["M"] * size, 4, weight_item=4)
    if kernel == "rms_norm" and plain:
        norm = lambda tape, build, x: build.rms("norm", x, size)  # noqa: E731
        return highest(norm, case["M"] * size, 2, weight_item=4, output_gradient=2)
    if kernel in {"swiglu", "geglu"} and plain:
        tokens = size * case.get("B", case.get("bsz"))
        program = mlp(case, case["hidden_act"])
        return highest(program, tokens * case["hidden_size"], 2, backward=row["kernel_operation_mode"] != "forward")
    if kernel == "fused_linear_cross_entropy":
        return head_and_loss(case, size, plain=plain)
    return None


def head_and_loss(case, tokens, *, plain):
    """Both variants' modules are there while either runs."""
    h, vocabulary = case["H"], case["V"]

    def program(tape, build, x):
        weight = build.weight("head", vocabulary * h, vocabulary, "head")
        if not plain:
            return fused_cross_entropy(tape, x, weight, tokens, h)
        return cross_entropy(tape, linear(tape, x, weight), tokens, shifted=False, upcast=False)

    return highest(program, tokens * h, 2, other=2 * vocabulary * h, retain=False)


def test_loss_norm_and_mlp_agree_with_real_gpus(truth_dir):
    with (truth_dir / "liger_kernel_memory.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kernel_provider"] != "torch_compile"]
    judged = 0
    for row in rows:
        expected = predicted(row)
        if expected is None:
            continue
        judged += 1
        measured = float(row["y_value_50"])
        spaces = round((measured - expected) / WORKSPACE)
        assert spaces in {0, 1, 2}, (row, expected)
        assert measured - spaces * WORKSPACE == pytest.approx(expected, rel=1e-3), (row, expected)
    assert judged >= 40
