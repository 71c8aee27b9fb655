"""A token of Microsoft Entra for Azure OpenAI, given by a command: `auth = "bearer"`, from the command to the answer.

Both servers are stand-ins on loopback. The identity service is a stub: it gives a token for a client's secret as
https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow says (read 2026-11-20), and checks
nothing else; no real Entra was asked.
"""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
from servers import Exchange, FaultServer, completion

from llmctl import Client
from llmctl.core.errors import Unauthorized
from llmctl.testing import MemoryLedger

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "canary-7f3a9c2e51d84b06"
ASK = (  # what a user's own command does, such as `az account get-access-token --query accessToken -o tsv`
    "import json, sys, urllib.parse as p, urllib.request as r; "
    "form = {'grant_type': 'client_credentials', 'client_id': 'app', 'client_secret': sys.argv[2], "
    "'scope': 'https://cognitiveservices.azure.com/.default'}; "
    "print(json.load(r.urlopen(sys.argv[1], p.urlencode(form).encode()))['access_token'])"
)


class Azure:
    """Who was let in, and with which token; `valid` is the only one that is."""

    def __init__(self) -> None:
        self.given = 0
        self.valid = ""

    async def identity(self, exchange: Exchange) -> None:
        """The stub of Entra: one token after the other, the newest is valid."""
        form = parse_qs(exchange.request.body.decode())
        assert exchange.request.path == "/tenant/oauth2/v2.0/token"
        assert form["client_secret"] == [SECRET]
        assert form["scope"] == ["https://cognitiveservices.azure.com/.default"]
        self.given += 1
        self.valid = f"eyJ0eXAiOiJKV1Qi.token-number-{self.given}.c2ln"
        token = {"token_type": "Bearer", "expires_in": 3599, "access_token": self.valid}
        await exchange.respond(200, json.dumps(token).encode())

    async def model(self, exchange: Exchange) -> None:
        """The resource: it answers whoever shows the valid token, and names the one it refuses."""
        shown = exchange.request.headers.get("authorization", "nothing")
        if shown == f"Bearer {self.valid}" and "api-key" not in exchange.request.headers:
            await exchange.respond(200, completion("hi"))
            return
        error = {"error": {"code": "401", "message": f"Access token is invalid or expired: {shown}"}}
        await exchange.respond(401, json.dumps(error).encode())


@pytest.fixture
def azure() -> Iterator[tuple[Azure, FaultServer, FaultServer, Client]]:
    state = Azure()
    with FaultServer(state.identity) as entra, FaultServer(state.model) as resource:
        command = shlex.join([sys.executable, "-c", ASK, f"{entra.url}/tenant/oauth2/v2.0/token", SECRET])
        row: dict[str, Any] = {
            "model": "azure/my-deployment",
            "api_base": resource.url,
            "api_key": f"cmd:{command}",
            "auth": "bearer",
        }
        with Client({"models": {"m": row}}, environ={}, ledger=MemoryLedger()) as client:
            yield state, entra, resource, client


def test_a_token_of_a_command_is_shown_as_a_bearer_and_used_again(
    azure: tuple[Azure, FaultServer, FaultServer, Client],
) -> None:
    state, _, resource, client = azure
    assert [client.complete("hi", model="m").text for _ in range(2)] == ["hi", "hi"]
    assert state.given == 1
    sent = resource.requests[-1]
    assert sent.path == "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"
    assert sent.headers["authorization"] == f"Bearer {state.valid}"
    assert "api-key" not in sent.headers


def test_a_token_that_was_refused_is_asked_for_anew_and_never_shown(
    azure: tuple[Azure, FaultServer, FaultServer, Client],
) -> None:
    state, _, _, client = azure
    assert client.complete("hi", model="m").text == "hi"
    refused, state.valid = state.valid, "revoked"
    with pytest.raises(Unauthorized) as caught:
        client.complete("hi", model="m")
    assert "Access token is invalid" in caught.value.message
    assert isinstance(client.ledger, MemoryLedger)
    assert len(client.ledger.rows) == 2
    for secret in (refused, SECRET):
        assert secret not in f"{caught.value} {caught.value.hint} {client.ledger.rows}"
    assert client.complete("hi", model="m").text == "hi"
    assert state.given == 2
