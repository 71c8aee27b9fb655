"""What tests of several rooms share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from forks import Forks

sys.path.insert(0, str(Path(__file__).parent))  # tests may import `servers`

for _number in (signal.SIGINT, signal.SIGHUP):
    # A shell runs `pytest &` with SIGINT ignored, nohup with SIGHUP, and what is ignored stays so in every child: the
    # tests that send it would wait for ever. A child forgets a handler.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Runs of llmctl that need no interpreter of their own."""
    from forks import Forks

    with Forks() as running:
        yield running


@pytest.fixture(scope="session")
def weights_dir(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the embedded model's weights: what is there already, else pulled once into pytest's cache."""
    pytest.importorskip("xllamacpp")
    from llmctl.config.places import places
    from llmctl.run import weights

    model = weights.DEFAULT
    named = os.environ.get("LLMCTL_TEST_WEIGHTS")
    if named:
        assert weights.verify(model, Path(named)), f"LLMCTL_TEST_WEIGHTS={named} does not hold {model}"
        return Path(named)
    users = places(os.environ).weights
    if weights.verify(model, users):
        return users
    cache = pytestconfig.cache
    directory = cache.mkdir("weights") if cache is not None else tmp_path_factory.mktemp("weights")
    weights.pull(model, directory)
    return directory


LLAMA_CPP = """
import os, sys, xllamacpp
model, key, template = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path, params.model_alias = model, {"smollm2"}
params.n_ctx, params.n_parallel, params.n_threads_http = 1024, 1, 2
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.warmup = params.fit_params = params.ui = False
params.verbosity = -1
params.cache_prompt, params.cache_ram_mib = False, 0  # the same request, the same batches, the same words
if template:
    params.chat_template = template
params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [key]
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""


@pytest.fixture(scope="session")
def llama_cpp(weights_dir: Path) -> Callable[..., AbstractContextManager[str]]:
    """Starts llama.cpp's own server, which nobody here wrote: a context whose value is its address."""
    from llmctl.run import weights

    path = weights.find(weights.DEFAULT, weights_dir)

    @contextmanager
    def served(key: str, template: str = "") -> Iterator[str]:
        """In a process of its own, which leaves when its stdin ends; it answers to `key` alone."""
        command = [sys.executable, "-c", LLAMA_CPP, str(path), key, template]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
            assert process.stdin is not None
            process.stdin.close()

    return served


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A throw-away certificate authority and what it signed; see `servers.certificates`."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    from servers import certificates

    return certificates(tmp_path_factory.mktemp("tls"))
