"""The compilers of kernels, of which another version may change the last bits of results."""

from __future__ import annotations


def compiler_versions(device: str) -> dict[str, str]:
    """The compiler of the kernels for a kind of device, with its version; empty if there is none.

    Only this one is imported.
    """
    if device == "cpu":
        import numba

        return {"numba": numba.__version__}
    if device == "cuda":
        try:
            import triton
        except ImportError:  # plain torch operations are used instead
            return {}
        return {"triton": triton.__version__}
    return {}
