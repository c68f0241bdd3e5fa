"""Kernels are compiled by numba at first use, and cached on disk.

Each index of a `parallel_for` writes to its own places, so results don't depend on the number of threads. No fastmath:
with it, freshly compiled code and the same code from the cache differed in the last bit, so that a program's second
start didn't repeat its first. Without it, NaN and infinity propagate as in torch.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
from numba.core import event
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.runtime.nrt import rtsys

from cnn.ops import capture, compiling
from cnn.ops.cpu.codegen.emitter import REGISTERS, VECTOR_BYTES
from cnn.ops.cpu.codegen.parallel import start_threads

SOURCES = "cnn.ops.cpu."
"""The modules that kernels are compiled from."""


@functools.cache
def _fingerprint(module: ModuleType) -> str:
    """A hash of a module's source and of those that it imports from, within the backend."""
    used = {inspect.getmodule(value) for value in vars(module).values()} - {module}
    ours = [other for other in used if other and other.__name__.startswith(SOURCES)]
    others = [_fingerprint(other) for other in sorted(ours, key=lambda other: other.__name__)]
    return hashlib.sha256("\n".join([inspect.getsource(module), *others]).encode()).hexdigest()


def _constants(function: Any) -> Iterator[int]:
    """The numbers that a kernel and the helpers made with it are compiled for."""
    for cell in function.__closure__ or ():
        value = cell.cell_contents
        if isinstance(value, int):
            yield value
        else:
            yield from _constants(value.py_func)


class _Files(IndexDataCacheFile):
    """A file for each key, named by its hashes.

    numba numbers the files of a function and keeps an index of them, from which two processes that compile at the same
    time take the same number for different code.
    """

    def save(self, key: Any, data: Any) -> None:
        path = Path(self._data_path(self._name(key)))  # type: ignore[no-untyped-call]
        kept = path.name.rsplit(".", 2)[0]
        for other in path.parent.glob(f"{self._function}.*"):
            if not other.name.startswith(kept):  # of sources that have changed since
                other.unlink(missing_ok=True)
        self._save_data(path.name, data)  # type: ignore[no-untyped-call]

    def load(self, key: Any) -> Any:
        with suppress(FileNotFoundError):
            return self._load_data(self._name(key))  # type: ignore[no-untyped-call]

    @property
    def _function(self) -> str:
        return self._index_name.removesuffix(".nbi")

    def _name(self, key: Any) -> str:
        *_, sources = key
        digest = hashlib.sha256(repr((key, self._version)).encode()).hexdigest()
        return f"{self._function}.{sources[:16]}.{digest[:16]}.nbc"


class _Cache(FunctionCache):
    """Recompiles kernels when any of their sources has changed: numba only looks at a kernel's own file."""

    def __init__(self, function: Any) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._module = inspect.getmodule(function)
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, None)  # type: ignore[no-untyped-call]

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        assert self._module
        # numba's key includes the processor, unless it is set to a generic one
        machine = REGISTERS, VECTOR_BYTES
        return signature, codegen.magic_tuple(), machine, (*_constants(self._py_func),), _fingerprint(self._module)

    def load_overload(self, *args: Any) -> Any:
        """The cached code, or None, also if the files are truncated or damaged."""
        try:
            start_threads()
            rtsys.initialize(args[1])  # what cached code needs of `refresh`, which imports scipy and all of numba
            with self._guard_against_spurious_io_errors():
                return self._load_overload(*args)  # type: ignore[no-untyped-call]
        except Exception:
            return None


class Kernel:
    """A compiled function that is called from Python and may use several threads. Its calls can be recorded."""

    def __init__(self, function: Any) -> None:
        self.compiled: Any = numba.njit(**_OPTIONS)(_named_apart(function))
        try:
            self.compiled._cache = _Cache(function)
        except RuntimeError:  # no writable folder: every process compiles for itself
            compiling.kept = False

    def __call__(self, *arguments: Any) -> None:
        self._run(arguments)
        capture.note_kernel(self.compiled, arguments)

    def check(self, fault: Callable[[int], Exception], *arguments: Any) -> None:
        """Call a kernel that returns a code, and raise the fault for one that isn't 0."""
        code = self._run(arguments)
        if code:
            raise fault(code)
        capture.note_kernel(self.compiled, arguments, fault)

    def _run(self, arguments: tuple[Any, ...]) -> Any:
        if compiling.needed is None:
            return self.compiled(*arguments)
        types = tuple(self.compiled.typeof_pyval(argument) for argument in arguments)
        compiling.needed[self, types] = lambda: self.compiled.compile(types)
        return None


kernel = Kernel


def helper(function: Any) -> Any:
    """A compiled function that only kernels call, and into which it is inlined: it gets no machine code of its own."""
    return numba.njit(**_OPTIONS | {"no_cpython_wrapper": True, "pipeline_class": _HelperCompiler})(
        _named_apart(function)
    )


class _Inlined(JITCodeLibrary):
    """The code of a helper as it was written: it is optimised in the kernel, once, and not at each level of calls."""

    def add_llvm_module(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout
        self._final_module.link_in(module)

    def finalize(self) -> None:
        for library in dict.fromkeys(self._linking_libraries):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalize_dynamic_globals()  # type: ignore[no-untyped-call]
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()  # type: ignore[no-untyped-call]
        return 0

    @property
    def codegen(self) -> Any:
        """Numba sets the environment of a function's machine code through this: there is no machine code here."""
        return _NoMachineCode


class _NoMachineCode:
    @staticmethod
    def set_env(name: str, environment: Any) -> None:
        """Nothing to set."""


class _HelperCompiler(CompilerBase):
    def define_pipelines(self) -> list[Any]:
        state = self.state
        state.library = _Inlined(state.targetctx.codegen(), state.func_id.func_qualname)  # type: ignore[no-untyped-call]
        state.library.enable_object_caching()
        return [DefaultPassBuilder.define_nopython_pipeline(state)]  # type: ignore[no-untyped-call]


_OPTIONS: Any = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}


def _named_apart(function: Any) -> Any:
    """Put the numbers that a function is made for into its name.

    Code from the cache is linked by names, in which a count of this process is all that tells functions of one name and
    signature apart: another process may have given the same count to a function for other numbers.
    """
    numbers = [cell.cell_contents for cell in function.__closure__ or () if _is_number(cell)]
    function.__qualname__ = "_".join(map(str, [function.__qualname__, *numbers]))
    return function


def _is_number(cell: Any) -> bool:
    with suppress(ValueError):  # still empty: a function that is defined later
        return isinstance(cell.cell_contents, int)
    return False


class _Compiling(event.Listener):
    """Passes the start and the end of a compilation on."""

    def on_start(self, event: Any) -> None:
        compiling.started()

    def on_end(self, event: Any) -> None:
        compiling.ended()


event.register("numba:compile", _Compiling())  # type: ignore[no-untyped-call]
