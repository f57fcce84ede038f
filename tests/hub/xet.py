"""The Xet storage behind the stand-in Hub, which huggingface_hub uses for weights if hf_xet is installed.

A client cuts files into chunks, sends them packed (a *xorb*) and then lists the chunks of each file (a *shard*).
Files are reassembled here and compared with the client's SHA-256, so that tests see in a repository exactly the
transferred content. The newer of the protocol's two variants (grants, streamed shards) is answered with 404, and
clients fall back to the older one.
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

TOKEN = "xet-token"
HEADER, ENTRY = 48, 48
"""Bytes of a shard's header, and of each of its entries."""
LAST = b"\xff" * 32
VERIFIED, DESCRIBED = 1 << 31, 1 << 30
"""Flags of a file in a shard: it has verification entries, it has its SHA-256."""


@dataclass
class Segment:
    """Chunks `start` to `end` (not included) of a xorb."""

    xorb: str
    size: int
    start: int
    end: int


@dataclass
class XetStore:
    """Xorbs and files by hash; `hashes` are the files' Xet hashes by SHA-256."""

    xorbs: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, list[Segment]] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)

    def content(self, segments: list[Segment]) -> bytes:
        return b"".join(b"".join(chunks(self.xorbs[part.xorb])[part.start : part.end]) for part in segments)


def chunks(xorb: bytes) -> list[bytes]:
    return [unpack(kind, xorb[start:end], size) for start, end, kind, size in places(xorb)]


def places(xorb: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Position, packing and length of each chunk."""
    at = 0
    while at < len(xorb) and xorb[at] == 0:  # a chunk's version; clients may omit the data after the chunks
        packed, size = (int.from_bytes(xorb[at + offset : at + offset + 3], "little") for offset in (1, 5))
        yield at + 8, at + 8 + packed, xorb[at + 4], size
        at += 8 + packed


def unpack(kind: int, data: bytes, size: int) -> bytes:
    """A chunk unpacked: stored, LZ4, or LZ4 with bytes grouped by their position in four-byte words."""
    if kind == 0:
        return data
    data = lz4_frame(data)
    assert kind in (1, 2) and len(data) == size
    if kind == 1:
        return data
    whole, at = bytearray(size), 0
    for place in range(4):
        count = len(range(place, size, 4))
        whole[place::4] = data[at : at + count]
        at += count
    return bytes(whole)


def lz4_frame(data: bytes) -> bytes:
    """An LZ4 frame's content (blocks may refer to those before them; checksums are not checked)."""
    assert data[:4] == b"\x04\x22\x4d\x18"
    flags, at, whole = data[4], 7 + (8 if data[4] & 8 else 0), bytearray()
    while size := int.from_bytes(data[at : at + 4], "little"):
        length = size & 0x7FFFFFFF
        block = data[at + 4 : at + 4 + length]
        if size >> 31:
            whole += block
        else:
            lz4_block(block, whole)
        at += 4 + length + (4 if flags & 16 else 0)
    return bytes(whole)


def lz4_block(block: bytes, whole: bytearray) -> None:
    at = 0

    def count(nibble: int) -> int:
        nonlocal at
        total = nibble
        while nibble == 15:
            total += block[at]
            at += 1
            if block[at - 1] != 255:
                break
        return total

    while at < len(block):
        token = block[at]
        at += 1
        literals = count(token >> 4)
        whole += block[at : at + literals]
        at += literals
        if at >= len(block):  # the last sequence has no match
            return
        distance = int.from_bytes(block[at : at + 2], "little")
        at += 2
        length = count(token & 15) + 4
        if distance >= length:
            whole += whole[-distance : len(whole) - distance + length]
        else:
            whole += (whole[-distance:] * (length // distance + 1))[:length]


def hash_text(digest: bytes) -> str:
    """A hash in the protocol's notation: four little-endian numbers in hexadecimal."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))


def files_of(shard: bytes) -> Iterator[tuple[str, str, list[Segment]]]:
    """Xet hash, SHA-256 and segments of each file in a shard."""
    at = HEADER
    while (digest := shard[at : at + 32]) != LAST:
        flags, count = struct.unpack_from("<2I", shard, at + 32)
        entries = [shard[at + ENTRY * (1 + number) :][:ENTRY] for number in range(count)]
        at += ENTRY * (1 + count * (2 if flags & VERIFIED else 1))
        sha256 = ""
        if flags & DESCRIBED:
            sha256 = hash_text(shard[at : at + 32])
            at += ENTRY
        segments = [Segment(hash_text(entry[:32]), *struct.unpack_from("<3I", entry, 36)) for entry in entries]
        yield hash_text(digest), sha256, segments


class XetRoutes:
    """The stand-in's handler for the storage address and for token requests."""

    stand_in: Any
    body: bytes
    headers: Any
    path: str
    _answer: Callable[..., None]
    _json: Callable[..., None]
    _error: Callable[..., None]
    _writer: Callable[[], bool]

    def xet_token(self, repo_id: str, kind: str, revision: str) -> None:
        if kind == "write" and not self._writer():
            return
        address, end = f"{self.stand_in.url}/xet", int(time.time()) + 3600
        headers = {"X_Xet_Cas_Url": address, "X_Xet_Access_Token": TOKEN, "X_Xet_Token_Expiration": str(end)}
        content = json.dumps({"casUrl": address, "accessToken": TOKEN, "exp": end}).encode()
        self._answer(200, content, Content_Type="application/json", **headers)

    def _may(self) -> bool:
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if not allowed:
            self._error(401, "Invalid storage token")
        return allowed

    def xet_unknown(self, *_: str) -> None:
        """No chunk is known from elsewhere, and the newer variant isn't supported."""
        self._error(404, "not found")

    def xet_xorb(self, digest: str) -> None:
        if self._may():
            known = digest in self.stand_in.xet.xorbs
            self.stand_in.xet.xorbs[digest] = self.body
            self._json({"was_inserted": not known})

    def xet_shard(self) -> None:
        if not self._may():
            return
        store = self.stand_in.xet
        for digest, sha256, segments in files_of(self.body):
            content = store.content(segments)
            if hashlib.sha256(content).hexdigest() != sha256:
                self._error(400, "the content is not what its name says")
                return
            store.files[digest], store.hashes[sha256] = segments, digest
            self.stand_in.stored[sha256] = content
        self._json({"result": 1})

    def xet_reconstruction(self, digest: str) -> None:
        if not self._may():
            return
        terms, sources = [], {}
        for part in self.stand_in.xet.files[digest]:
            spots = list(places(self.stand_in.xet.xorbs[part.xorb]))[part.start : part.end]
            chosen = {"start": part.start, "end": part.end}
            terms.append({"hash": part.xorb, "unpacked_length": part.size, "range": chosen})
            bytes_ = {"start": spots[0][0] - 8, "end": spots[-1][1] - 1}
            address = f"{self.stand_in.url}/xet/data/{part.xorb}"
            sources.setdefault(part.xorb, []).append({"range": chosen, "url": address, "url_range": bytes_})
        self._json({"offset_into_first_range": 0, "terms": terms, "fetch_info": sources})

    def xet_data(self, digest: str) -> None:
        start, end = (int(number) for number in self.headers["Range"].removeprefix("bytes=").split("-"))
        self._answer(206, self.stand_in.xet.xorbs[digest][start : end + 1])


_HASH = r"([0-9a-f]{64})"
ROUTES: list[tuple[tuple[str, ...], str, Callable[..., None]]] = [
    (("GET",), r"/api/models/([^/]+/[^/]+)/xet-(read|write)-token/([^/]+)", XetRoutes.xet_token),
    (("GET",), r"/xet/v1/chunks/.*", XetRoutes.xet_unknown),
    (("POST",), rf"/xet/v1/xorbs/default/{_HASH}", XetRoutes.xet_xorb),
    (("POST",), r"/xet/v1/shards", XetRoutes.xet_shard),
    (("GET",), rf"/xet/v1/reconstructions/{_HASH}", XetRoutes.xet_reconstruction),
    (("GET",), rf"/xet/data/{_HASH}", XetRoutes.xet_data),
]
