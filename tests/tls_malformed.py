"""Handshakes that are wrong, by tlslite-ng, for tests/tls_clients.rs: tls_malformed.py PORT sends
each on a connection of its own and prints its name and the alerts that came back; the server has
to end the connection."""

import socket
import sys

from tlslite.constants import CipherSuite, ExtensionType, GroupName, SignatureScheme
from tlslite.extensions import ClientKeyShareExtension, KeyShareEntry, SupportedGroupsExtension
from tlslite.extensions import SignatureAlgorithmsExtension, SupportedVersionsExtension
from tlslite.messages import ClientHello

HANDSHAKE, ALERT, DATA = 22, 21, 23
TLS12 = [CipherSuite.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]
TLS13 = [CipherSuite.TLS_AES_128_GCM_SHA256]


def record(payload, kind=HANDSHAKE, version=(3, 1), length=None):
    length = len(payload) if length is None else length
    return bytes([kind, *version]) + length.to_bytes(2, "big") + bytes(payload)


def extensions(versions):
    share = KeyShareEntry().create(GroupName.x25519, bytearray([9] * 32))
    return [
        SupportedGroupsExtension().create([GroupName.x25519]),
        SignatureAlgorithmsExtension().create([SignatureScheme.ecdsa_secp256r1_sha256]),
        SupportedVersionsExtension().create(versions),
        ClientKeyShareExtension().create([share]),
    ]


def hello(version=(3, 3), ciphers=TLS13, versions=((3, 4),), more=(), compression=(0,)):
    message = ClientHello()
    message.create(
        version, bytearray(32), bytearray(0), list(ciphers),
        extensions=extensions(list(versions)) + list(more) if versions else list(more) or None,
    )
    message.compression_methods = list(compression)
    return message.write()


def cut(message, less):
    """Shorter than what is in it says."""
    body = message[4 : len(message) - less]
    return message[:1] + len(body).to_bytes(3, "big") + body


good = hello()
groups = [extensions([(3, 4)])[0]]
CASES = {
    "record version 5.1": record(good, version=(5, 1)),
    "40 records of nothing": record(b"") * 40 + record(good),
    "record of 65535 bytes": record(good, length=65535) + bytes(70_000),
    "unknown alert": record(bytes([2, 222]), ALERT),
    "alert of one byte": record(bytes([2]), ALERT),
    "data first": record(b"GET / HTTP/1.1\r\n\r\n", DATA),
    "ServerHello first": record(b"\x02" + good[1:]),
    "unknown message": record(b"\x63" + good[1:]),
    "message of 16 MiB": record(b"\x01\xff\xff\xff" + bytes(16_000)) + record(bytes(16_000)) * 6,
    "hello that is cut": record(cut(good, 5)),
    "hello with more behind it": record(cut(good + bytes(3), 0)),
    "extension twice": record(hello(more=groups)),
    "no common cipher": record(hello(ciphers=[CipherSuite.TLS_RSA_WITH_RC4_128_SHA])),
    "no cipher": record(hello(ciphers=[])),
    "only compressed": record(hello(compression=(1,))),
    "TLS 1.1": record(hello(version=(3, 2), ciphers=TLS12, versions=())),
    "SSLv3": record(hello(version=(3, 0), ciphers=TLS12, versions=()), version=(3, 0)),
    "SSLv2": bytes([0x80, 0x2E, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10]) + bytes(37),
    "version to come only": record(hello(versions=[(3, 9)])),
    "garbage behind the hello": record(good) + record(b"\x2a" * 100, DATA, (3, 3)),
    "another hello behind it": record(good) + record(good),
}


def alerts(answer):
    """The records of an answer that are alerts in the clear, and the kinds of all of them."""
    found = []
    while len(answer) >= 5:
        end = 5 + int.from_bytes(answer[3:5], "big")
        if answer[0] == ALERT and end == 7:
            found.append(answer[6])
        elif answer[0] == DATA:
            found.append("sealed")
        answer = answer[end:]
    return found


def answered(port, raw):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        answer = b""
        try:
            peer.sendall(raw)
            while got := peer.recv(1 << 16):
                answer += got
        except (ConnectionResetError, BrokenPipeError):
            pass
        return answer


for name, raw in CASES.items():
    found = alerts(answered(int(sys.argv[1]), raw))
    print(name, *(found or ["nothing"]), sep=": " if len(found) < 2 else " ")
