"""One file behind a URL of any host: a GGUF, a safetensors or a config.json, read by ranges and without a token."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from sizeup.errors import NetworkError, NotFound
from sizeup.models.config import MAX_CONFIG_BYTES, parse_config
from sizeup.models.sources import gguf, safetensors
from sizeup.models.sources.cursor import FIRST_WINDOW
from sizeup.models.sources.environment import HubSettings
from sizeup.models.sources.found import Found, facts_of_gguf
from sizeup.models.sources.http import Client, Reply, checked_url
from sizeup.models.sources.remote import RemoteFile

SAFETENSORS_FIRST = 100_000


def read_url(url: str, settings: HubSettings, client: Client | None = None) -> Found:
    """The file behind a URL; of a split GGUF, all parts. Raises NotFound, NetworkError or BadFile."""
    client = client or Client(timeout_seconds=settings.timeout_seconds, user_agent=settings.user_agent)
    checked_url(url)
    path = unquote(urlsplit(url).path)
    stem = path.rpartition("/")[2].rpartition(".")[0]
    if path.lower().endswith(".gguf"):
        bare, question, query = url.partition("?")
        parts = [f"{part}{question}{query}" for part in gguf.part_names(bare)]
        header = gguf.merge_parts([gguf.read_gguf(_remote(client, part, FIRST_WINDOW)) for part in parts])
        return Found(url, "gguf", url, stem, header=header, facts=facts_of_gguf(header))
    if path.lower().endswith(".safetensors"):
        header = safetensors.read_safetensors(_remote(client, url, SAFETENSORS_FIRST))
        return Found(url, "safetensors", url, stem, header=header)
    reply = client.get(url, most=MAX_CONFIG_BYTES)
    _refuse(reply)
    return Found(url, "config", url, stem, config=parse_config(reply.body, url))


def _remote(client: Client, url: str, first: int) -> RemoteFile:
    return RemoteFile(client, url, first=first, check=_refuse)


def _refuse(reply: Reply) -> None:
    if reply.status in {401, 403, 404, 410}:
        raise NotFound(
            f"{reply.url} answered {reply.status}", hint="check the address; no token is sent to other hosts"
        )
    if reply.status not in {200, 206}:
        raise NetworkError(f"{reply.url} answered {reply.status}", hint="try again later")
    if reply.headers.get("content-type", "").startswith("text/html"):
        raise NetworkError(f"{reply.url} sent a web page instead of a file", hint="check the address")
