"""Masks, products and recomputation: what each allocates, by hand."""

from sizeup.estimate.training.architectures.decoder import DecoderShape
from sizeup.estimate.training.attention import Heads, product
from sizeup.estimate.training.basic import add, cast, cut, scale
from sizeup.estimate.training.build import Build, Method
from sizeup.estimate.training.checkpointing import checkpointed
from sizeup.estimate.training.estimate import training_footprint
from sizeup.estimate.training.linear import linear
from sizeup.estimate.training.masks import make_mask
from sizeup.estimate.training.settings import TrainSetting
from sizeup.estimate.training.tape import Node, Parameter, Tape, net, rounded


def built(batch=3, sequence=100):
    return Build(Tape(), Method(item=2), batch, sequence)


def test_a_window_needs_one_mask_for_all_sequences():
    build = built()
    mask = make_mask(build, 50, padding=False, eager=False)
    assert net(build.tape.log) == rounded(100 * 100)
    assert mask.n == 3 * 100 * 100


def test_padding_needs_a_mask_for_each_sequence():
    build = built()
    mask = make_mask(build, None, padding=True, eager=False)
    assert mask is not None
    assert net(build.tape.log) == rounded(3 * 100 * 100)


def test_a_window_beyond_the_sequence_needs_none():
    assert make_mask(built(), 101, padding=False, eager=False) is None


def test_falcon_makes_a_mask_anyway():
    assert make_mask(built(), None, padding=False, eager=False, always=True) is not None


def copied(batch):
    """Bytes of copies that a product of two parts of a larger tensor makes."""
    tape = Tape()
    whole = tape.value(4096, 2)
    part = cut(tape, whole, 2048)
    h = Heads(batch, 16, 16, 4, 4, 32, 32)
    before = len(tape.log)
    product(tape, part, part, 512, h)
    return sum(entry >> 9 << 9 for entry in tape.log[before:] if entry > 0)


def test_one_sequence_s_heads_need_no_copy():
    assert copied(1) == rounded(2 * 512)
    assert copied(2) == rounded(2 * 512) + 2 * rounded(2 * 2048)


def test_what_keeps_nothing_runs_before_the_layer_runs_again():
    """x + scale(cast(x · w)): the gradient of the cast is there while the product is computed again."""
    tape = Tape()
    weight = Parameter(1024, 4, None, needs=True, rows=32)

    def layer(x):
        return add(tape, x, scale(tape, cast(tape, linear(tape, cast(tape, x, 4), weight), 2)))

    x = tape.value(4096, 2)
    scale(tape, x)
    x.node = None
    output = checkpointed(tape, layer, wanted(x))
    start = len(tape.log)
    output.node.grads[0] = tape.value(4096, 2)
    tape.backward()
    first = next(entry for entry in tape.log[start + 1 :] if entry > 0)
    assert first >> 9 << 9 == rounded(2 * 4096), "the gradient of the scale comes first, in 16 bits"


def wanted(x):
    x.node, x.needs = Node([], lambda _g: (), [None]), True
    return x


SHAPE = {"hidden": 256, "layers": 4, "head_count": 4, "kv_heads": 4, "head_dim": 64, "ffn": 512, "vocabulary": 1000}


def test_weights_that_no_part_has_are_trained_too():
    plain = training_footprint(DecoderShape(**SHAPE), TrainSetting(optimizer="adamw_foreach"))
    more = training_footprint(DecoderShape(**SHAPE, others=1_000_000), TrainSetting(optimizer="adamw_foreach"))
    steps = [next(p.peak_bytes for p in f.devices[0].phases if p.name == "optimizer step") for f in (plain, more)]
    assert steps[1] - steps[0] == 4 * rounded(2_000_000) * 5, "weight, gradient, two states, and foreach's copy"
