"""The table of wires."""

from __future__ import annotations

import pytest

from llmctl.core.errors import ConfigInvalid
from llmctl.wire import PROTOCOLS
from llmctl.wire.base import load


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_of_the_table_has_the_three_functions(protocol: str):
    wire = load(protocol)
    assert all(callable(function) for function in (wire.encode, wire.decoder, wire.classify))


def test_an_unknown_protocol_is_a_configuration_error_that_names_the_known_ones():
    with pytest.raises(ConfigInvalid, match="'telex'") as caught:
        load("telex")
    assert "openai" in caught.value.hint
