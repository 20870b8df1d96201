"""The dry autograd: when tensors come and go, how gradients meet, what recomputation keeps."""

from hypothesis import given
from hypothesis import strategies as st

from sizeup.estimate.training.basic import add, multiply, pointwise
from sizeup.estimate.training.build import Build, Method
from sizeup.estimate.training.checkpointing import checkpointed
from sizeup.estimate.training.tape import ATTENTION, MLP, Height, Node, Tape, by_label, height, net, rounded


def leaf(tape, n=1024, item=2):
    value = tape.value(n, item)
    value.node, value.needs = Node([], lambda _g: (), [None]), True
    return value


def test_a_value_goes_with_its_last_name():
    tape = Tape()
    value = tape.value(300, 2)
    assert net(tape.log) == 1024
    del value
    assert net(tape.log) == 0
    assert height(tape.log) == Height(1024, 1, 0)


def test_a_product_keeps_both_factors():
    tape = Tape()
    a, b = leaf(tape), leaf(tape)
    c = multiply(tape, a, b)
    del a, b
    assert net(tape.log) == 3 * 2048
    c.node.grads[0] = tape.value(1024, 2)
    tape.backward()
    del c
    # the two gradients wait at leaves that are gone with their nodes
    assert net(tape.log) == 0


def test_a_sum_keeps_nothing():
    tape = Tape()
    a, b = leaf(tape), leaf(tape)
    c = add(tape, a, b)
    del a, b
    assert net(tape.log) == 2048
    assert c.needs


def test_labels_follow_allocations():
    tape = Tape()
    tape.label = MLP
    kept = tape.value(1024, 2)
    tape.label = ATTENTION
    other = tape.value(2048, 2)
    assert by_label(tape.log) == {MLP: 2048, ATTENTION: 4096}
    del kept, other
    assert by_label(tape.log) == {}


@given(st.integers(1, 10**12))
def test_rounding_is_the_allocators(size):
    assert rounded(size) % 512 == 0
    assert 0 <= rounded(size) - size < 512


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=30))
def test_everything_made_is_given_back(sizes):
    tape = Tape()
    values = [tape.value(size, 2) for size in sizes]
    assert net(tape.log) == sum(rounded(2 * size) for size in sizes)
    values.clear()
    assert net(tape.log) == 0


def test_recomputation_keeps_only_the_input():
    def run(checkpoint):
        tape = Tape()
        build = Build(tape, Method(item=2), 1, 64)
        x = leaf(tape, 64 * 128)
        layer = lambda y: pointwise(tape, build.linear("up", y, 128, 512))  # noqa: E731
        y = checkpointed(tape, layer, x) if checkpoint else layer(x)
        kept = net(tape.log)
        y.node.grads[0] = tape.value(y.n, 2)
        tape.backward()
        return kept, len(tape.nodes)

    plain, again = run(checkpoint=False), run(checkpoint=True)
    assert plain[0] - again[0] == 64 * 512 * 2
    assert plain[1] == again[1] == 0
