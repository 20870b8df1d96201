"""What a model's layers are built with: weights as the method and the precision have them, and the step's sizes.

A layer asks for `linear`, `norm`, `weight`; whether a weight trains, is packed to four bits or carries an adapter is
decided here, so that a layer reads like its module in transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from sizeup.estimate.training.basic import add, cast
from sizeup.estimate.training.eight_bit import eight_bit
from sizeup.estimate.training.linear import Adapter, adapted, adapted_table, four_bit, gptq, linear
from sizeup.estimate.training.norms import fp32_layer_norm, layer_norm, rms_norm
from sizeup.estimate.training.tape import Node, Parameter, Tape, Value, rounded

FOUR_BIT_BLOCK, SCALE_BLOCK, GPTQ_GROUP = 64, 256, 128


class Weight(msgspec.Struct, frozen=True, array_like=True):
    """One weight tensor.

    sizes: the allocations it is stored in. rows: outputs of a matrix; copies: matrices in a stack.
    kind: matrix, transposed (a matrix of `Conv1D`), vector, embedding, head, adapter, experts.
    """

    name: str
    kind: str
    n: int
    item: int
    sizes: tuple[int, ...]
    trains: bool
    rows: int = 0
    copies: int = 1


class Method(msgspec.Struct, frozen=True):
    """How weights are held and which of them train.

    item: bytes of a weight. train: whether the model's own weights do. four_bit: linear weights are packed.
    double_quantization: the scales are packed too. wide_results: what a packed layer computes takes its input's type,
    and is copied before an adapter adds to it (bitsandbytes, peft). gptq: they are packed as GPTQ does. half: the
    16-bit type is fp16. saved: of the tables at both ends, those of which a trained copy is used beside the frozen one
    (peft's `modules_to_save`). rank: of the adapters (0: none). targets: names of the modules adapted; empty means
    every linear module but the head. adapter_item: bytes of an adapter's weight.
    """

    item: int
    train: bool = True
    four_bit: bool = False
    double_quantization: bool = True
    wide_results: bool = False
    gptq: bool = False
    half: bool = False
    saved: tuple[str, ...] = ()
    rank: int = 0
    targets: tuple[str, ...] = ()
    adapter_item: int = 4
    adapter_dropout: float = 0.0
    dora: bool = False
    train_embeddings: bool = True


class Build:
    """The tape, the step's sizes, and the weights of the segment that is being built.

    transposed: linear modules are `Conv1D`. input_gradients: what frozen tables give is made to want a gradient. idle:
    what is made now gets no gradient, though it would train (an index that runs without). unpacked: linear modules made
    now aren't packed (layers share them, and transformers leaves what is tied). source, target: tokens of
    what an encoder reads and of what its decoder writes; `sequence` is that of the stack at hand.
    """

    def __init__(self, tape: Tape, method: Method, batch: int, sequence: int, target: int = 0) -> None:
        self.tape = tape
        self.method = method
        self.batch = batch
        self.sequence = self.source = sequence
        self.target = target or sequence
        self.weights: list[Weight] = []
        self.parameters: list[Parameter] = []
        self.made: dict[str, Parameter] = {}
        self.scope = ""
        self.unadapted: frozenset[str] = frozenset()
        self.transposed = self.input_gradients = False
        self.idle = self.unpacked = False
        self.modules: dict[str, Adapter | None] = {}

    @contextmanager
    def without_gradients(self) -> Iterator[None]:
        """No graph is made, and what is made gets no gradient, though it would train."""
        before = self.tape.grad, self.idle
        self.tape.grad, self.idle = False, True
        yield
        self.tape.grad, self.idle = before

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.batch * self.sequence

    def weight(
        self, name: str, n: int, rows: int = 0, kind: str = "vector", copies: int = 1, *, item: int = 0
    ) -> Parameter:
        """A weight of n elements; rows: outputs of a matrix. Made once under its name and scope.

        item: bytes of an element that the model keeps whatever the others have.
        """
        key = self.scope + name
        found = self.made.get(key)
        if found is not None:
            return found
        method = self.method
        trains = method.train and (kind != "embedding" or method.train_embeddings)
        item = item or method.item
        if name in method.saved:
            self.made[f"{key}.original"] = frozen = Parameter(n, item, None, rows=rows)
            self._keep(f"{key}.original", frozen, name, kind, (n * item,), copies)
            trains = True
        parameter = Parameter(n, item, None, needs=trains, rows=rows)
        self._keep(key, parameter, name, kind, (n * item,), copies)
        return parameter

    def copied(self, name: str, original: Parameter) -> Parameter:
        """A trained copy of a frozen weight, under a name of its own."""
        found = self.made.get(self.scope + name)
        if found is None:
            n, item = original.n, original.item
            found = Parameter(n, item, None, needs=True, rows=original.rows)
            self._keep(self.scope + name, found, name, "head", (n * item,))
        return found

    def frozen(self, name: str, n: int, *, item: int = 0) -> None:
        """A weight that never trains and that nothing is multiplied with (a table of sines).

        item: bytes of an element where they aren't those of the weights that aren't packed.
        """
        if self.scope + name not in self.made:
            item = item or self.method.item
            self._keep(self.scope + name, Parameter(n, item, None), name, "embedding", (n * item,))

    def linear(
        self, name: str, x: Value, inputs: int, outputs: int, *, bias: bool = False, apart: bool = False,
        wide: bool = False,
    ) -> Value:  # fmt: skip
        """A linear module of that name, with its adapter if it is a target.

        apart: its bias is added afterwards. wide: it is kept in fp32, and not packed where others are.
        """
        method = self.method
        if bias and apart and not method.four_bit:
            result = self.linear(name, x, inputs, outputs)
            return add(self.tape, result, self.weight(f"{name}.bias", outputs))
        if method.gptq:
            result = gptq(self.tape, x, self._packed(name, inputs, outputs))
            offset = self._bias(name, outputs, bias)
            result = result if offset is None else add(self.tape, result, offset)
        elif method.four_bit and not (wide or self.unpacked):
            packed, offset = self._packed(name, inputs, outputs), self._bias(name, outputs, bias)
            result = four_bit(self.tape, x, packed, offset, saves=not method.wide_results)
            result = cast(self.tape, result, x.item) if method.wide_results else result
        else:
            kind = "transposed" if self.transposed else "matrix"
            matrix = self.weight(name, inputs * outputs, outputs, kind)
            product = eight_bit if self.tape.eight_bit and not self.transposed else linear
            result = product(self.tape, x, matrix, self._bias(name, outputs, bias))
        key = self.scope + name
        if key not in self.modules:
            self.modules[key] = self.adapter_of(name, inputs, outputs, biased=bias)
        adapter = self.modules[key]
        if adapter is None:
            return result
        return adapted(self.tape, x, result, adapter, cloned=method.four_bit and method.wide_results)

    def unused_linear(self, name: str, inputs: int, outputs: int) -> None:
        """A linear module whose output nothing takes: it gets no gradient."""
        before, self.idle = self.idle, True
        self.weight(name, inputs * outputs, outputs, "matrix")
        self.weight(f"{name}.bias", outputs)
        self.idle = before

    def head_linear(self, name: str, x: Value, inputs: int, outputs: int, *, bias: bool = False) -> Value:
        """A linear module of a head of labels. With adapters it isn't adapted, but trains as a copy of the frozen one.

        Source: peft 0.21, `ModulesToSaveWrapper`.
        """
        if not self.method.rank:
            return self.linear(name, x, inputs, outputs, bias=bias)
        self.weight(name, inputs * outputs, outputs, "matrix")
        self._bias(name, outputs, bias)
        before, self.method = self.method, msgspec.structs.replace(self.method, train=True)
        matrix = self.weight(f"{name}.saved", inputs * outputs, outputs, "matrix")
        offset = self._bias(f"{name}.saved", outputs, bias)
        self.method = before
        return linear(self.tape, x, matrix, offset)

    def _bias(self, name: str, outputs: int, wanted: bool) -> Parameter | None:
        return self.weight(f"{name}.bias", outputs) if wanted else None

    def targeted(self, name: str) -> bool:
        """Whether adapters are asked for on the module of that name."""
        targets = self.method.targets
        if not targets:
            return name.rpartition(".")[2] not in self.unadapted
        return any(name == target or name.endswith("." + target) for target in targets)

    def _packed(self, name: str, inputs: int, outputs: int) -> Parameter:
        found = self.made.get(self.scope + name)
        if found is not None:
            return found
        n = inputs * outputs
        parameter = Parameter(n, 2, None, rows=outputs)
        double = self.method.double_quantization
        sizes = gptq_sizes(inputs, outputs) if self.method.gptq else packed_sizes(n, double)
        self._keep(self.scope + name, parameter, name, "matrix", sizes)
        return parameter

    def adapter_of(self, name: str, inputs: int, outputs: int, *, biased: bool) -> Adapter | None:
        """The adapter of a module, if it is a target."""
        rank = self.method.rank
        if not rank or not self.targeted(name):
            return None
        down = self.adapter_half(f"{name}.lora_A", inputs * rank, rank)
        up = self.adapter_half(f"{name}.lora_B", rank * outputs, outputs)
        magnitude = self.adapter_half(f"{name}.magnitude", outputs) if self.method.dora else None
        base = 2 if self.method.four_bit else self.method.item
        offset = self.method.item if biased else 0
        return Adapter(down, up, self.method.adapter_dropout, magnitude, base, offset, transposed=self.transposed)

    def unused_adapter(self, name: str, inputs: int, outputs: int) -> None:
        """The adapter of a module whose weight is used without calling it: it is there, and never gets a gradient."""
        before, self.idle = self.idle, True
        self.adapter_of(name, inputs, outputs, biased=False)
        self.idle = before

    def adapter_half(self, name: str, n: int, rows: int = 0) -> Parameter:
        """One matrix (or vector) of an adapter: in fp32, or in the type of the weights that aren't packed."""
        item = max(self.method.adapter_item, self.method.item)
        found = self.made.get(self.scope + name)
        if found is None:
            found = Parameter(n, item, None, needs=True, rows=rows)
            self._keep(self.scope + name, found, name, "adapter", (n * item,))
        return found

    def _keep(
        self, key: str, parameter: Parameter, name: str, kind: str, sizes: tuple[int, ...], copies: int = 1
    ) -> None:
        self.made[key] = parameter
        self.parameters.append(parameter)
        record = Weight(
            name, kind, parameter.n, parameter.item, sizes, parameter.needs and not self.idle, parameter.rows, copies
        )
        self.weights.append(record)

    def rms(
        self,
        name: str,
        x: Value,
        width: int,
        *,
        in_fp32: bool = False,
        wide: bool = False,
        offset: bool = False,
        power: bool = False,
    ) -> Value:
        """An RMS norm of that name; wide: the weight is cast to fp32 first."""
        weight: Value = self.weight(name, width)
        if wide:
            weight = cast(self.tape, weight, 4)
        return rms_norm(self.tape, x, weight, width, weight_in_fp32=in_fp32, offset=offset, power=power)

    def layer_norm(self, name: str, x: Value, width: int, *, bias: bool = True, affine: bool = True) -> Value:
        """`nn.LayerNorm` of that name."""
        weight = self.weight(name, width) if affine else None
        return layer_norm(self.tape, x, weight, self.weight(f"{name}.bias", width) if bias and affine else None, width)

    def wide_norm(self, name: str, x: Value, width: int, elements: int) -> Value:
        """Cohere's layer norm, written out in fp32."""
        return fp32_layer_norm(self.tape, x, self.weight(name, elements), width)

    def embedding(
        self, name: str, rows: int, width: int, tokens: int, *, ways: int = 1, ids: Value | None = None
    ) -> Value:
        """A table looked up for `tokens` tokens; its gradient is a whole table.

        ids: what it is looked up by, where that isn't among the step's inputs.

        ways: ranks that split the rows. The gradient is that of all rows, of which a rank sees its own
        (torch 2.13, `distributed/tensor/_ops/_embedding_ops.py`).
        """
        table = self.weight(name, rows * width, rows, "embedding")
        tape, n, item = self.tape, rows * width, table.item

        def backward(_g: Value, _keep: object = ids) -> list[Value | None]:
            whole = tape.value(n * ways, item)
            tape.transient(*[8 * tokens] * 5)
            return [Value(n, item, whole.storage)]

        found = tape.result(tokens * width, item, (table,), backward)
        rank = self.method.rank
        if not rank or not self.method.targets or not self.targeted(name):
            return found
        if self.input_gradients:
            found = wants_gradient(self, found)
        down = self.adapter_half(f"{name}.lora_embedding_A", rows * rank, rank)
        up = self.adapter_half(f"{name}.lora_embedding_B", rank * width, width)
        return adapted_table(tape, found, down, up, tokens)

    def add(self, a: Value, b: Value) -> Value:
        """A + b."""
        return add(self.tape, a, b)

    def cast(self, x: Value, item: int) -> Value:
        """X in another type."""
        return cast(self.tape, x, item)


def packed_sizes(n: int, double_quantization: bool) -> tuple[int, ...]:
    """Allocations of n weights in NF4: half a byte each, and a scale for each 64.

    Scales are of one byte with an fp32 scale for each 256 of them (double quantization), or in fp32.
    Source: Dettmers et al. 2023; bitsandbytes 0.49.
    """
    blocks = -(-n // FOUR_BIT_BLOCK)
    if double_quantization:
        return ((n + 1) // 2, blocks, 4 * -(-blocks // SCALE_BLOCK))
    return ((n + 1) // 2, 4 * blocks)


def gptq_sizes(inputs: int, outputs: int) -> tuple[int, ...]:
    """Allocations of a matrix in GPTQ: half a byte a weight, a scale in fp16 and a zero in 4 bits for each 128 of them.

    And the number of each input's group. Source: Frantar et al. 2023; AutoGPTQ 0.7, `nn_modules/qlinear`.
    """
    groups = -(-inputs // GPTQ_GROUP)
    return (inputs * outputs // 2, 2 * groups * outputs, groups * outputs // 2, 4 * inputs)


def stored_bytes(weights: list[Weight]) -> int:
    """Bytes of weights as the allocator holds them."""
    return sum(rounded(size) for weight in weights for size in weight.sizes)


def wants_gradient(build: Build, x: Value) -> Value:
    """`enable_input_require_grads`: the frozen embedding's output becomes a leaf whose gradient is kept."""
    output = Value(x.n, x.item, x.storage)
    output.node, output.needs = Node([], lambda _g, _kept=x.storage: (), [None]), build.tape.grad
    return output
