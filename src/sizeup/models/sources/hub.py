"""The Hub: facts, configurations and headers of a repository, over its HTTP API or from this program's cache.

Endpoints used: `/api/models/{id}/revision/{revision}?blobs=true` (commit, files with sizes, card) and
`/{id}/resolve/{commit}/{file}`, the latter by ranges for weight files. Weights are never downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from sizeup.errors import BadFile, NetworkError, NotFound
from sizeup.models.config import MAX_CONFIG_BYTES, parse_config
from sizeup.models.sources import gguf, safetensors
from sizeup.models.sources.cache import RepositoryCache
from sizeup.models.sources.cursor import FIRST_WINDOW
from sizeup.models.sources.environment import HubSettings
from sizeup.models.sources.found import Facts, is_pickled, template_of
from sizeup.models.sources.header import Header
from sizeup.models.sources.http import Client, Reply, checked_url
from sizeup.models.sources.reference import HubName, hub_name
from sizeup.models.sources.remote import RemoteFile

SAFETENSORS_FIRST = 100_000
MAX_API_BYTES = 2**26
THREADS = 8

Progress = Callable[[int, int, str], None]


class Repository(msgspec.Struct, frozen=True):
    """A repository at one commit: its files with their sizes, and what its card says.

    parameters: the total that the Hub itself counts, also for gated repositories; None when it doesn't say.
    """

    name: str
    commit: str
    files: dict[str, int | None]
    facts: Facts = Facts()
    parameters: int | None = None


class Hub:
    """One Hub, as the settings describe it.

    network: whether it may be asked; without, only the cache answers.
    progress: called with (done, all, what) while headers are fetched.
    """

    def __init__(
        self,
        settings: HubSettings,
        *,
        network: bool,
        client: Client | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.settings = settings
        self.network = network and not settings.offline
        self.progress = progress
        self._client = client or Client(timeout_seconds=settings.timeout_seconds, user_agent=settings.user_agent)
        self._asked = network

    def repository(self, name: HubName) -> Repository:
        """Commit, files and facts. A branch is looked up anew when the network may be asked."""
        cache = self._cache(name.repository)
        known = cache.get(cache.commit(name.revision), "repository", Repository)
        if known and (name.revision == known.commit or not self.network):
            return known
        try:
            found = self._ask_repository(name)
        except NetworkError:
            if known and self.network:
                return known
            raise
        cache.remember_commit(name.revision, found.commit)
        cache.put(found.commit, "repository", found)
        return found

    def config(self, repository: Repository) -> dict[str, Any] | None:
        """The repository's config.json; None when it has none."""
        if "config.json" not in repository.files:
            return None
        origin = f"{repository.name}/config.json"
        return parse_config(self._file(repository, "config.json", MAX_CONFIG_BYTES), origin)

    def safetensors(self, repository: Repository) -> Header | None:
        """The merged header of the repository's safetensors files; None when it has none."""
        cache = self._cache(repository.name)
        header = cache.get(repository.commit, "safetensors.header", Header)
        if header is not None:
            return header
        shards, weight_map = self._shards(repository)
        if not shards:
            return None
        headers = self._headers(repository, shards, safetensors.read_safetensors, SAFETENSORS_FIRST)
        header = headers[0] if len(shards) == 1 else safetensors.merge_shards(shards, headers, weight_map)
        cache.put(repository.commit, "safetensors.header", header)
        return header

    def gguf(self, repository: Repository, file: str) -> Header:
        """The header of a GGUF file, merged over its parts when it is split."""
        cache = self._cache(repository.name)
        header = cache.get(repository.commit, f"{file}.header", Header)
        if header is not None:
            return header
        parts = gguf.part_names(file)
        for part in parts:
            if part not in repository.files:
                raise NotFound(f"{repository.name} has no file {part}", hint="its parts are incomplete")
        header = gguf.merge_parts(self._headers(repository, parts, gguf.read_gguf, FIRST_WINDOW))
        cache.put(repository.commit, f"{file}.header", header)
        return header

    def _ask_repository(self, name: HubName) -> Repository:
        url = self._url(f"/api/models/{quote(name.repository)}/revision/{quote(name.revision, safe='')}?blobs=true")
        reply = self._client.get(url, most=MAX_API_BYTES, token=self.settings.token)
        refuse(reply, str(name), self.settings)
        try:
            data = msgspec.json.decode(reply.body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise _not_json(reply) from None
        if not isinstance(data, dict) or not isinstance(data.get("siblings"), list):
            raise _not_json(reply)
        return repository_of(data, name)

    def _file(self, repository: Repository, file: str, most: int) -> bytes:
        cache = self._cache(repository.name)
        raw = cache.get(repository.commit, file, bytes)
        if raw is None:
            reply = self._client.get(self._resolve(repository, file), most=most, token=self.settings.token)
            refuse(reply, f"{repository.name}/{file}", self.settings, repository)
            _refuse_page(reply)
            raw = reply.body
            cache.put(repository.commit, file, raw)
        return raw

    def _shards(self, repository: Repository) -> tuple[list[str], dict[str, str]]:
        """The safetensors files that make up the model, and where its index puts each tensor, if it has one."""
        names = [name for name in repository.files if name.endswith(".safetensors") and "/" not in name]
        if safetensors.INDEX in repository.files:
            raw = self._file(repository, safetensors.INDEX, safetensors.MAX_HEADER)
            index = safetensors.parse_index(raw, f"{repository.name}/{safetensors.INDEX}")
            missing = [shard for shard in index.shards if shard not in repository.files]
            if missing:
                raise BadFile(
                    f"{repository.name} lacks {missing[0]}, which its index names", hint="its upload is incomplete"
                )
            return index.shards, index.weight_map
        return safetensors.model_files(names), {}

    def _headers(
        self, repository: Repository, files: Sequence[str], read: Callable[[RemoteFile], Header], first: int
    ) -> list[Header]:
        """The headers of several files, a few at a time, in the order of the names."""
        from concurrent.futures import ThreadPoolExecutor, as_completed

        def one(file: str) -> Header:
            what = f"{repository.name}/{file}"

            def check(reply: Reply) -> None:
                refuse(reply, what, self.settings, repository)
                _refuse_page(reply)

            url = self._resolve(repository, file)
            header = read(RemoteFile(self._client, url, first=first, check=check, token=self.settings.token, name=what))
            listed = repository.files.get(file)
            if listed is not None and listed != header.file_bytes:
                raise NetworkError(
                    f"{what} is {header.file_bytes:,} bytes long, and the Hub lists {listed:,}", hint="try again"
                )
            return header

        with ThreadPoolExecutor(min(THREADS, len(files))) as pool:
            running = {pool.submit(one, file): file for file in files}
            try:
                for done, future in enumerate(as_completed(running), 1):
                    future.result()
                    if self.progress:
                        self.progress(done, len(files), running[future])
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in running]

    def _resolve(self, repository: Repository, file: str) -> str:
        return self._url(f"/{quote(repository.name)}/resolve/{quote(repository.commit, safe='')}/{quote(file)}")

    def _url(self, path: str) -> str:
        """The address of a request; NetworkError when none may be sent."""
        if not self.network:
            if self._asked:
                raise NetworkError("offline by HF_HUB_OFFLINE, and not cached", hint="unset HF_HUB_OFFLINE")
            raise NetworkError(
                "not cached, and the network was not to be asked",
                hint="allow the network, or give the path of a local copy",
            )
        return checked_url(f"{self.settings.endpoint}{path}")

    def _cache(self, repository: str) -> RepositoryCache:
        return RepositoryCache(self.settings.own_cache, self.settings.endpoint, repository)


def repository_of(data: dict[str, Any], name: HubName) -> Repository:
    """A repository from the API's answer, every field of which may be absent or of another type."""
    files: dict[str, int | None] = {}
    for sibling in data["siblings"]:
        if isinstance(sibling, dict) and isinstance(file := sibling.get("rfilename"), str):
            files[file] = _count(sibling.get("size"))
    commit = data.get("sha")
    counted = data.get("safetensors")
    return Repository(
        name=_own_name(data.get("id")) or name.repository,
        commit=commit if isinstance(commit, str) and commit else name.revision,
        files=files,
        facts=_facts(data, files),
        parameters=_count(counted.get("total")) if isinstance(counted, dict) else None,
    )


def _own_name(claimed: Any) -> str:
    """The name a renamed repository has now; empty when it isn't a name at all."""
    named = hub_name(claimed) if isinstance(claimed, str) and claimed.count("/") == 1 else None
    return named.repository if named is not None and named.repository == claimed else ""


def _facts(data: dict[str, Any], files: dict[str, int | None]) -> Facts:
    card, config = _object(data.get("cardData")), _object(data.get("config"))
    tokenizer = _object(config.get("tokenizer_config"))
    tags = _texts(data.get("tags"))
    licences = [tag.removeprefix("license:") for tag in tags if tag.startswith("license:")]
    pickled = [size or 0 for file, size in files.items() if is_pickled(file)]
    return Facts(
        licence=next(iter(_texts(card.get("license_name")) or _texts(card.get("license")) or licences), None),
        chat_template=template_of(tokenizer.get("chat_template")) or template_of(config.get("chat_template_jinja")),
        languages=_texts(card.get("language")),
        base_models=_texts(card.get("base_model")),
        tags=tags,
        gated=data.get("gated") not in (None, False, "false"),
        created=data["createdAt"] if isinstance(data.get("createdAt"), str) else None,
        pickled_bytes=sum(pickled) if pickled else None,
    )


def refuse(reply: Reply, what: str, settings: HubSettings, repository: Repository | None = None) -> None:
    """Raise what fits a status that isn't success: NotFound for missing and gated, NetworkError for the rest."""
    if reply.status in {200, 206}:
        return
    code = reply.headers.get("x-error-code", "")
    if code == "GatedRepo":
        counted = (
            f"; the Hub counts {repository.parameters:,} parameters" if repository and repository.parameters else ""
        )
        page = f"{settings.endpoint}/{repository.name if repository else what.partition('@')[0].partition(':')[0]}"
        raise NotFound(
            f"{what} is gated{counted}",
            hint=f"accept its licence at {page}" + ("" if settings.token else ", and set HF_TOKEN"),
        )
    if code == "RevisionNotFound":
        raise NotFound(f"{what}: no such revision", hint="check the part after @")
    if code == "EntryNotFound":
        raise NotFound(f"{what}: no such file", hint="check the name of the file")
    if reply.status in {404, 410} or code == "RepoNotFound":
        raise NotFound(
            f"no model {what} at {settings.endpoint}, or a private one",
            hint="check the name" + ("" if settings.token else "; for a private model set HF_TOKEN"),
        )
    if reply.status in {401, 403}:
        why = reply.headers.get("x-error-message", "")[:200]
        raise NotFound(
            f"{what}: access refused ({reply.status}{': ' if why else ''}{why})",
            hint="check the token in HF_TOKEN" if settings.token else "set HF_TOKEN",
        )
    raise NetworkError(f"{reply.url} answered {reply.status}", hint="try again later, or check HF_ENDPOINT")


def _refuse_page(reply: Reply) -> None:
    if reply.headers.get("content-type", "").startswith("text/html"):
        raise NetworkError(
            f"{reply.url} sent a web page instead of a file", hint="check HF_ENDPOINT, the proxy, or a network login"
        )


def _not_json(reply: Reply) -> NetworkError:
    kind = reply.headers.get("content-type", "nothing known")[:60]
    return NetworkError(
        f"{reply.url} sent {kind} instead of a repository's description",
        hint="check HF_ENDPOINT, the proxy, or a network login",
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
