"""llmctl: an ORM for large language models, on the command line and as a library.

    import llmctl
    r = llmctl.complete("hello", model="local")
    print(r.text, r.served_by, r.cost_usd)

Names are imported when they are first used, so that `import llmctl` costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing.TYPE_CHECKING without the import of typing: 5 ms on every start
if TYPE_CHECKING:
    from llmctl._version import __version__
    from llmctl.client import Client, complete, embed, stream
    from llmctl.core import errors
    from llmctl.core.record import Answer
    from llmctl.core.types import Event
    from llmctl.run.embedding import Embeddings

__all__ = ["Answer", "Client", "Embeddings", "Event", "__version__", "complete", "embed", "errors", "stream"]

_HOMES = {
    "Answer": "llmctl.core.record",
    "Client": "llmctl.client",
    "Embeddings": "llmctl.run.embedding",
    "Event": "llmctl.core.types",
    "__version__": "llmctl._version",
    "complete": "llmctl.client",
    "embed": "llmctl.client",
    "stream": "llmctl.client",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "errors":
        return import_module("llmctl.core.errors")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'llmctl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
