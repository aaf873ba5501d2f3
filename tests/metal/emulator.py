"""Runs the Metal kernels where there is no Metal: a `Launch` that puts a body between `shim.hpp`
and a `main`, as MLX puts it into a Metal function, compiles it with the C++ compiler of the machine
and runs it in a process of its own, so that a fault in a kernel is an error here and no crash.
"""

import hashlib
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

HERE = Path(__file__).resolve().parent
TYPES = {mx.float32: "float", mx.bfloat16: "bfloat16_t", mx.int32: "int"}
# As MLX writes them into the signature where a body names them.
IDS = {
    "threadgroup_position_in_grid": ("uint3", "machine.group"),
    "thread_index_in_threadgroup": ("uint", "machine.now"),
    "thread_index_in_simdgroup": ("uint", "machine.now % 32"),
    "simdgroup_index_in_threadgroup": ("uint", "machine.now / 32"),
}
FLAGS = ("-std=c++17", "-O1", "-Wall", "-Werror", "-Wno-unused-variable", "-I", str(HERE))
CHECKS = ("-fsanitize=undefined", "-fno-sanitize-recover=all")
MOST_BUFFERS, THREADGROUP_BYTES = 31, 32768  # Metal's limits


def compiler() -> str | None:
    """The C++ compiler of this machine, if any."""
    return next(
        (found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None
    )


class Emulator:
    """A `Launch`. `order` is the one in which the threads of a group take turns."""

    def __init__(self, directory: Path, order: int = 0) -> None:
        self.directory, self.order = directory, order
        self.launched: list[str] = []

    def ordered(self, order: int) -> "Emulator":
        """The same with another order, and the same compiled kernels."""
        return Emulator(self.directory, order)

    def __call__(
        self,
        source,
        inputs: Sequence[mx.array],
        results,
        *,
        template: Mapping[str, int | bool | mx.Dtype],
        groups: tuple[int, int],
        threads: int,
    ) -> list[mx.array]:
        template = {"THREADS": threads, **template}
        binary = self._compiled(program(source, inputs, results, template))
        sizes = [int(np.prod(result.shape)) for result in results]
        head = struct.pack("4I", *groups, threads, self.order)
        head += struct.pack(f"{len(sizes)}q", *sizes)
        done = subprocess.run(
            [binary], input=head + b"".join(map(packed, inputs)), capture_output=True
        )
        if done.returncode:
            raise RuntimeError(f"{source.name}: {done.stderr.decode()}")
        self.launched.append(source.name)
        outputs, start = [], 0
        for result in results:
            stop = start + int(np.prod(result.shape)) * result.dtype.size
            outputs.append(unpacked(done.stdout[start:stop], result.dtype, result.shape))
            start = stop
        assert start == len(done.stdout)
        return outputs

    def _compiled(self, text: str) -> Path:
        binary = self.directory / hashlib.sha256(text.encode()).hexdigest()[:16]
        if not binary.exists():
            path = binary.with_suffix(".cpp")
            path.write_text(text)
            command = [compiler(), *FLAGS, str(path), "-o", str(binary)]
            done = subprocess.run([*command, *CHECKS], capture_output=True, text=True)
            if done.returncode and "ubsan" in done.stderr:  # its library is not installed
                done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"a kernel does not compile: {done.stderr}")
        return binary


def program(source, inputs, results, template) -> str:
    """C++ that reads the inputs, runs the body for every thread and writes the outputs."""
    kinds = [TYPES[x.dtype] for x in inputs]
    shaped = [f"{name}_shape" in source.body for name in source.inputs]
    assert len(inputs) + sum(shaped) + len(results) <= MOST_BUFFERS
    parameters, arguments, reads = [], [], []
    for name, kind, wants_shape in zip(source.inputs, kinds, shaped, strict=True):
        reads.append(f"int shape_{name}[8]; Buffer<const {kind}> in_{name};")
        parameters.append(f"Buffer<const {kind}> {name}")
        arguments.append(f"in_{name}")
        if wants_shape:
            parameters.append(f"const int* {name}_shape")
            arguments.append(f"shape_{name}")
    for name, result in zip(source.outputs, results, strict=True):
        kind = TYPES[result.dtype]
        reads.append(f"Buffer<{kind}> out_{name};")
        parameters.append(f"Buffer<{kind}> {name}")
        arguments.append(f"out_{name}")
    for name, (kind, value) in IDS.items():
        if name in source.body:
            parameters.append(f"{kind} {name}")
            arguments.append(value)
    declared = ", ".join(f"{constant_kind(value)} {name}" for name, value in template.items())
    given = ", ".join(constant(value) for value in template.values())
    loads = "".join(
        f'{{ auto read = read_buffer<{kind}>("{name}", shape_{name});'
        f" in_{name} = {{read.data, read.size, read.name}}; }}\n"
        for name, kind in zip(source.inputs, kinds, strict=True)
    )
    makes = "".join(
        f'out_{name} = new_buffer<{TYPES[result.dtype]}>("{name}", sizes[{number}]);\n'
        for number, (name, result) in enumerate(zip(source.outputs, results, strict=True))
    )
    writes = "".join(f"write_buffer(out_{name});\n" for name in source.outputs)
    return "\n".join([
        '#include "shim.hpp"',
        f"template <{declared}> void kernel({', '.join(parameters)}) {{\n{source.body}\n}}",
        *reads,
        f"void one_thread() {{ kernel<{given}>({', '.join(arguments)}); }}",
        "int main() {",
        "uint head[4]; read_all(head, sizeof head);",
        f"int64_t sizes[{len(results)}]; read_all(sizes, sizeof sizes);",
        loads + makes + "run_grid(head[0], head[1], head[2], head[3], one_thread);",
        writes + "}",
    ])  # fmt: skip


def constant_kind(value) -> str:
    if isinstance(value, mx.Dtype):
        return "typename"
    return "bool" if isinstance(value, bool) else "int"


def constant(value) -> str:
    return TYPES[value] if isinstance(value, mx.Dtype) else str(int(value))


def packed(x: mx.array) -> bytes:
    """Rank, shape and elements."""
    data = np.array(x.view(mx.uint16) if x.dtype == mx.bfloat16 else x)
    return struct.pack(f"{1 + x.ndim}i", x.ndim, *x.shape) + np.ascontiguousarray(data).tobytes()


def unpacked(data: bytes, dtype: mx.Dtype, shape: tuple[int, ...]) -> mx.array:
    if dtype == mx.bfloat16:
        return mx.array(np.frombuffer(data, np.uint16).reshape(shape)).view(mx.bfloat16)
    kind = {mx.float32: np.float32, mx.int32: np.int32}[dtype]
    return mx.array(np.frombuffer(data, kind).reshape(shape))
