"""Does every model that ONNX tests its backends with answer as ONNX Runtime does, to the bit?

ONNX has about two thousand of them, several for each operator. Their files are taken as they are. A case whose inputs
are not all rows, as the weights of a convolution are not, is asked with what is no row as a constant in the file, where
an exporter would have left it.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test import loader

from conftest import serve
from onnx_cases import CARRIED, Asker, Case, case, difference, mistakes, width, write

CELLS_MAX = 65_536
# One case of so many is asked each time, and all of them where there is time.
STRIDE = 7
# How many are asked of all, and how many are refused, at least.
ASKED_MIN, REFUSED_MIN = 1390, 820
# Why a case is not asked, before Quern sees it.
NOT_ASKED = {
    "ONNX Runtime does not load it",
    "ONNX Runtime does not run it",
    "an input is a sequence or an optional",
    "no input",
    "no row",
    "of a type that ONNX Runtime's Python lacks",
}
# Why Quern refuses one, and how it says so.
REFUSED = {
    "inputs of different lengths": "the first dimension is the row, and all inputs have as many",
    "a row of no cells, or too many": r"the length of a list must be 1 to 65536|unknown type `list<.*, 0>`",
    "not one row for each row in": "which is not one row for each of the",
}


def all_cases(stride: int, counts: Counter[str]) -> Iterator[tuple[str, onnx.ModelProto, list[Any]]]:
    """ONNX's cases: a name, a file, and its inputs."""
    kinds = ("node", "simple", "pytorch-converted", "pytorch-operator")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [case for kind in kinds for case in loader.load_model_tests(kind=kind)]
    for one in sorted(cases, key=lambda one: (one.kind, one.name))[::stride]:
        counts["found"] += 1
        name = f"{one.kind}_{one.name}".replace("-", "_")
        if one.model is not None:
            yield name, one.model, list(one.data_sets[0][0])
            continue
        folder = Path(one.model_dir)
        files = itertools.takewhile(Path.exists, (folder / f"test_data_set_0/input_{i}.pb" for i in itertools.count()))
        model = onnx.load(folder / "model.onnx")
        given = zip(model.graph.input, files, strict=False)
        yield name, model, [read(port.type, file.read_bytes()) for port, file in given]


def read(kind: onnx.TypeProto, data: bytes) -> Any:
    """A stored tensor; what is none as its bytes."""
    return onnx.TensorProto.FromString(data) if kind.HasField("tensor_type") else data


def array(given: Any) -> Any:
    tensor = numpy_helper.to_array(given) if isinstance(given, onnx.TensorProto) else given
    tensor = np.asarray(tensor) if isinstance(tensor, np.generic) else tensor
    is_text = isinstance(tensor, np.ndarray) and tensor.dtype.kind in "US"
    return tensor.astype(object) if is_text else tensor


def with_constants(model: onnx.ModelProto, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The model, some of whose inputs are constants."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    left = [port for port in model.graph.input if port.name not in constants]
    del fixed.graph.input[:]
    fixed.graph.input.extend(left)
    fixed.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return fixed


def is_asked(name: str, model: onnx.ModelProto, inputs: dict[str, Any]) -> Case | str:
    """The case, or why it is none."""
    if not inputs:
        return "no input"
    if not all(isinstance(tensor, np.ndarray) for tensor in inputs.values()):
        return "an input is a sequence or an optional"
    if any(str(tensor.dtype) not in CARRIED for tensor in inputs.values()):
        return "of a type that ONNX Runtime's Python lacks"
    try:
        return case(name, model.SerializeToString(), inputs)
    except Exception as error:  # ONNX Runtime's exceptions have no base of their own.
        said = str(error)
    if re.search("Numpy", said):
        return "of a type that ONNX Runtime's Python lacks"
    return f"ONNX Runtime does not {'run' if 'running' in said else 'load'} it"


def is_refused(case: Case) -> bool:
    """Whether a case cannot be rows in and as many rows out."""
    tensors = list(case.inputs.values())
    if any(len(tensor) != case.rows or not 1 <= width(tensor) <= CELLS_MAX for tensor in tensors):
        return True
    outputs = [one for said in case.expected.values() for one in (said if isinstance(said, list) else [said])]
    return case.rows > 1 and any(one.ndim == 0 or len(one) != case.rows for one in outputs)


def cases(stride: int, counts: Counter[str]) -> tuple[list[Case], list[Case]]:
    """Cases that Quern answers, and cases that it refuses."""
    good, bad = [], []
    for name, model, given in all_cases(stride, counts):
        initialized = {constant.name for constant in model.graph.initializer}
        named = zip((port.name for port in model.graph.input), map(array, given), strict=False)
        inputs = {name: tensor for name, tensor in named if name not in initialized}
        one = is_asked(name, model, inputs)
        if isinstance(one, str):
            counts[one] += 1
            continue
        lengths = [len(tensor) for tensor in inputs.values() if tensor.ndim > 0]
        if not any(lengths[:1]):
            counts["no row"] += 1
            continue
        constants = {name: tensor for name, tensor in inputs.items() if tensor.ndim == 0 or len(tensor) != lengths[0]}
        if constants:
            if all(tensor.ndim > 0 for tensor in constants.values()):
                bad.append(one)
            rows = {name: tensor for name, tensor in inputs.items() if name not in constants}
            fixed = is_asked(f"{name}_fixed", with_constants(model, constants), rows)
            if isinstance(fixed, str):
                counts[fixed] += 1
                continue
            one = fixed
        (bad if is_refused(one) else good).append(one)
    return good, bad


def kind_of(refusal: str) -> str:
    kinds = [kind for kind, said in REFUSED.items() if re.search(said, refusal)]
    return kinds[0] if kinds else refusal


@contextmanager
def serving(root: Path) -> Iterator[Asker]:
    """A server over a repository without models yet: it loads those of an apply once, and need not start with them."""
    write(root, [])
    assert mistakes(root, "apply") == {}
    with serve(root) as address:
        yield Asker(address)


def differences(asker: Asker, cases: list[Case]) -> dict[str, str]:
    """Which cases are answered otherwise than ONNX Runtime answers them, by either way to ask."""
    said = {case.name: difference(case, asker.by_columns(case)) for case in cases}
    said |= {f"{case.name}, by tensors": difference(case, asker.by_tensors(case)) for case in cases}
    return {name: otherwise for name, otherwise in said.items() if otherwise}


def test_some_answer_as_onnx_runtime_does(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    good, _ = cases(STRIDE, counts)
    assert len(good) >= 200, counts
    with serving(tmp_path) as asker:
        write(tmp_path, good)
        assert mistakes(tmp_path, "apply") == {}
        assert differences(asker, good) == {}


@pytest.mark.heavy
def test_all_answer_as_onnx_runtime_does_or_are_refused(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    good, bad = cases(1, counts)
    assert counts.keys() - {"found"} <= NOT_ASKED, counts
    refused: dict[str, str] = {}
    write(tmp_path, bad)
    # What a file of definitions says is looked at before any model is.
    while found := mistakes(tmp_path):
        refused |= found
        for name in found:
            (tmp_path / f"{name}.yaml").unlink()
    kinds = Counter(map(kind_of, refused.values()))
    print(len(good), kinds, counts)
    assert kinds.keys() <= REFUSED.keys()
    assert len(good) >= ASKED_MIN and len(refused) >= REFUSED_MIN
    for left in {one.name for one in bad} - refused.keys():
        (tmp_path / f"{left}.yaml").unlink()
    with serving(tmp_path) as asker:
        write(tmp_path, good)
        assert mistakes(tmp_path, "apply") == {}
        assert differences(asker, good) == {}
