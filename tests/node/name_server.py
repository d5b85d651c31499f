"""The cluster's name server, as far as anything here needs it: name_server.py ADDRESS NAME TARGET, over UDP.

It answers for one name, with and without `cluster.local`, and says of every other that it does not exist. Pods find the
API server by it, as they do in a cluster with a DNS of its own.
"""

from __future__ import annotations

import socket
import struct
import sys

PORT = 53
_HEADER = struct.Struct("!6H")
_QUESTION = struct.Struct("!2H")
_ADDRESS_TYPE = 1
_ANSWERED, _NO_SUCH_NAME = 0x8400, 0x8403  # a response, with authority
_TTL_SECONDS = 30


def answer(query: bytes, name: str, target: str) -> bytes:
    """The response to one query of one question."""
    identity = _HEADER.unpack_from(query)[0]
    labels: list[str] = []
    at = _HEADER.size
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    question = query[_HEADER.size : at + 1 + _QUESTION.size]
    kind, _ = _QUESTION.unpack_from(query, at + 1)
    if ".".join(labels).lower() not in {name, f"{name}.cluster.local"}:
        return _HEADER.pack(identity, _NO_SUCH_NAME, 1, 0, 0, 0) + question
    if kind != _ADDRESS_TYPE:
        return _HEADER.pack(identity, _ANSWERED, 1, 0, 0, 0) + question
    # The name by a pointer to the question, address, Internet, seconds, four bytes.
    record = struct.pack("!3HIH", 0xC00C, _ADDRESS_TYPE, 1, _TTL_SECONDS, 4) + socket.inet_aton(target)
    return _HEADER.pack(identity, _ANSWERED, 1, 1, 0, 0) + question + record


def main(address: str, name: str, target: str) -> None:
    """Until killed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, PORT))
        while True:
            query, client = server.recvfrom(4096)
            server.sendto(answer(query, name, target), client)


if __name__ == "__main__":
    main(*sys.argv[1:])
