"""The embedded model: llama.cpp (xllamacpp) in this process, behind the interface of any other transport.

A worker thread owns the model and answers one request after the other; it speaks the OpenAI chat wire, so that the same
encoder and decoder serve it as every other provider. All facts below were measured with xllamacpp 2026.10.

- It computes without the GIL (timers and signals stay prompt: the loop is late by 3 ms at most), but loads with it
  (0.13 to 0.3 s with the file cached), and leaves the handlers of SIGINT and SIGTERM alone.
- Its `Server` always opens a listener. Ours is a unix socket in a private directory, and the name is removed as soon as
  the model is loaded: from then on nobody can connect to it, and not even `kill -9` leaves anything behind.
- A second thread makes it up to a hundred times slower on a small machine (its pool spins), hence one.
- Generation stops when a callback returns True. It calls back for each batch of the prompt and for each token, so with
  a small batch (128: no slower than 2048) cancelling takes 1.4 s at worst, at the end of a full context.
- Destroying a `Server` whose main loop has not begun hangs for ever, so a throwaway request precedes every destruction.

Leaving the process: a daemon thread that comes back from C++ during interpreter shutdown may abort it, so an ordinary
exit waits (`atexit`) until the worker has stopped. A command has no time for that: it flushes its streams and calls
`os._exit`, which is always safe here, because nothing of ours is left to be cleaned.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import ConfigInvalid
from llmctl.run import extras, weights
from llmctl.run.local_job import Job, Refused, TooLong

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

    from llmctl.core.catalog import Deployment
    from llmctl.run.weights import Model
    from llmctl.wire.base import HttpRequest

_BATCH = 128
_CONTEXT_STEP = 256
_SOCKET_PATH_MAX = 100  # sun_path holds 108 bytes on Linux, 104 on macOS, with the final zero
_PROMPT_TOKENS_PER_S = 212.0
_ATTENTION_S = 5.5e-7
_SLOW_MACHINE = 4.0
_LOAD_S = 2.0
_LEAVE_S = 30.0
_STALE_S = 600.0

_workers: set[_Worker] = set()


def first_token_s(prompt_tokens: int) -> float:
    """The seconds within which a first token must be expected: load and prompt, on a machine four times slower.

    No clock for the first token should be shorter than this, and a total should be longer by it. Measured on 2 cores of
    a VM, one used: 212 tokens a second, plus attention, which grows with the square (2.0 s for 531 tokens, 9.4 s for
    2,031 and 43 s for 6,031).
    """
    return _LOAD_S + _SLOW_MACHINE * (prompt_tokens / _PROMPT_TOKENS_PER_S + _ATTENTION_S * prompt_tokens**2)


class LocalTransport:
    """The transport of `local/...` deployments: loads a model at its first request and keeps it until `aclose`."""

    def __init__(self, weights_dir: Path) -> None:
        """`weights_dir` is where `models pull` puts weights."""
        self._weights_dir = weights_dir
        self._own: dict[str, _Worker] = {}
        self._lock = threading.Lock()

    @asynccontextmanager
    async def send(self, request: HttpRequest, deployment: Deployment, *, connect_s: float) -> AsyncIterator[_Response]:
        """The answer to an OpenAI chat request; `connect_s` is not used, for there is nothing to connect to.

        Leaving the context stops the generation. Raises ConfigInvalid when the runtime or the weights are not there.
        """
        del connect_s
        job = _job(request.body, deployment.model)
        if isinstance(job, Refused):
            yield _Response(job.status, _JSON, lambda: _once(job.body))
            return
        with self._lock:  # so that no job follows a worker's end; held for some system calls at most
            self._worker(deployment.model).submit(job)
        try:
            status = await job.status()
            yield _Response(status, _SSE if status == 200 else _JSON, job.chunks)
        finally:
            job.cancel()

    def _worker(self, model: str) -> _Worker:
        if model not in self._own or not self._own[model].alive:  # a forked child has the worker without its thread
            if not extras.installed("local"):
                raise extras.missing("local", f"the embedded model {model}")
            self._own[model] = _Worker(weights.MODELS[model], weights.require(model, self._weights_dir))
        return self._own[model]

    async def aclose(self) -> None:
        """Stop what is being generated and let the models go; does not wait for the last batch to end."""
        with self._lock:
            while self._own:
                self._own.popitem()[1].close()


_SSE = {"content-type": "text/event-stream"}
_JSON = {"content-type": "application/json"}


@dataclass(slots=True)
class _Response:
    """What `send` yields: see `ports.Response`. The chunks come as they are generated."""

    status: int
    headers: Mapping[str, str]
    chunks: Callable[[], AsyncGenerator[bytes, None]]


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def _job(body: bytes, model: str) -> Job | Refused:
    if model not in weights.MODELS:
        known = ", ".join(weights.MODELS)
        return Refused(404, f"there is no embedded model {model!r}; there is: {known}", "model_not_found")
    try:
        return Job(body, asyncio.get_running_loop(), weights.MODELS[model].context)
    except TooLong as error:
        return Refused(400, str(error), "context_length_exceeded")
    except ValueError as error:
        return Refused(400, f"the request body is not usable: {error}")


class _Worker:
    """A thread that owns one model, loads it when first needed, and answers jobs in turn."""

    def __init__(self, model: Model, path: Path) -> None:
        self._model = model
        self._path = path
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._current: Job | None = None
        self._closing = False
        self._server: Any = None
        self._n_ctx = 0
        self._thread = threading.Thread(target=self._run, name=f"llmctl-local-{model.name}", daemon=True)
        if not _workers:
            atexit.register(_leave)
        _workers.add(self)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs, and so perhaps holds a model."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Answer `job` after those before it."""
        self._jobs.put(job)

    def close(self) -> None:
        """Stop soon: after the batch or the token that is being computed."""
        self._closing = True
        if self._current is not None:
            self._current.cancel()
        self._jobs.put(None)

    def join(self) -> None:
        """Wait for the end that `close` asked for."""
        self._thread.join(_LEAVE_S)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._current = job
            if self._closing:
                job.cancel()
            try:
                self._answer(job)
            except Exception as error:  # noqa: BLE001 - the wall of a thread: its caller would wait for ever
                job.fail(error)
        self._unload()
        _workers.discard(self)

    def _answer(self, job: Job) -> None:
        """Generate; once more with a larger context when the model counts more tokens than were estimated."""
        while not job.cancelled:
            need = -(-job.tokens // _CONTEXT_STEP) * _CONTEXT_STEP
            if need > self._n_ctx:
                self._load(min(need, self._model.context))
            job.begin(self._n_ctx)
            try:
                self._server.handle_chat_completions(job.body, job.heard)
            except (ValueError, RuntimeError) as error:  # how it refuses bodies it cannot parse
                job.refuse(Refused(400, f"the request body is not usable: {error}"))
            if job.end():
                return
        job.end()

    def _load(self, n_ctx: int) -> None:
        try:
            import xllamacpp
        except ImportError as error:  # installed, and yet not loadable: a wheel for another processor
            raise extras.missing("local", f"the embedded model {self._model.name}") from error
        self._unload()
        with _private_socket() as address:
            try:
                self._server = xllamacpp.Server(_params(xllamacpp, self._path, self._model.name, n_ctx, address))
            except RuntimeError as error:
                raise ConfigInvalid(
                    f"the model {self._path} could not be loaded: {error}",
                    hint="`llmctl models pull local` checks the file and fetches it again if it is damaged",
                ) from error
        self._n_ctx = n_ctx

    def _unload(self) -> None:
        if self._server is not None:
            # Its answer proves that the main loop runs; only then may the server be destroyed.
            self._server.handle_completions(b'{"prompt":"a","n_predict":0}', _stop)
            self._server = None
            self._n_ctx = 0


def _stop(_chunk: bytes) -> bool:
    return True


def _leave() -> None:
    """At an ordinary exit: stop every worker, and wait for it."""
    stopping = list(_workers)
    for worker in stopping:
        worker.close()
    for worker in stopping:
        worker.join()


def _params(xllamacpp: Any, path: Path, alias: str, n_ctx: int, address: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {alias}
    params.n_ctx = n_ctx
    params.n_parallel = 1
    params.n_batch = _BATCH
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_threads_http = 1
    params.warmup = False
    params.fit_params = False
    params.verbosity = -1
    params.ui = False
    # No prompt cache: with one, the same request could be computed in other batches and answered in other words.
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.hostnames = [address]
    params.api_keys = [os.urandom(16).hex()]
    return params


def _sweep(base: str) -> None:
    """Remove the directories that our own killed processes left in `base` in the middle of a load."""
    with suppress(OSError), os.scandir(base) as entries:
        for entry in entries:
            if not entry.name.startswith("llmctl-") or not entry.is_dir(follow_symlinks=False):
                continue
            found = entry.stat(follow_symlinks=False)
            if found.st_uid == os.geteuid() and time.time() - found.st_mtime > _STALE_S:
                with suppress(OSError):
                    os.unlink(f"{entry.path}/s.sock")
                with suppress(OSError):  # what holds anything else is none of ours
                    os.rmdir(entry.path)


@contextmanager
def _private_socket() -> Iterator[str]:
    """The path of a socket to be, in a directory of its own that is gone when the context ends."""
    for base in (os.environ.get("TMPDIR", ""), "/tmp"):  # noqa: S108 - the directory made in it is ours alone
        directory = f"{base}/llmctl-{os.urandom(6).hex()}"
        if not base or len(os.fsencode(directory)) + 2 > _SOCKET_PATH_MAX:
            continue
        _sweep(base)
        with suppress(OSError):
            os.mkdir(directory, 0o700)
            break
    else:
        raise ConfigInvalid("no directory for a temporary socket", hint="set TMPDIR to a writable directory")
    address = f"{directory}/s.sock"
    try:
        yield address
    finally:
        with suppress(FileNotFoundError):
            os.unlink(address)
        os.rmdir(directory)
