"""What tests of several rooms share."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

sys.path.insert(0, str(Path(__file__).parent))  # tests may import `servers`

for _number in (signal.SIGINT, signal.SIGHUP):
    # A shell runs `pytest &` with SIGINT ignored, nohup with SIGHUP, and what is ignored stays so in every child: the
    # tests that send it would wait for ever. A child forgets a handler.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A throw-away certificate authority and what it signed; see `servers.certificates`."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    from servers import certificates

    return certificates(tmp_path_factory.mktemp("tls"))
