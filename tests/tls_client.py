"""A TLS client by Python's ssl, for tests/tls_clients.rs:
tls_client.py CASE AUTHORITY ADDRESS, where ADDRESS is a port of 127.0.0.1 or the path of a socket.
A case that finds what it should not ends with a traceback."""

import select
import socket
import ssl
import sys

LARGE = 3_000_001
PATIENCE = 20


class Client:
    """One connection, by memory BIOs: so that it can close half of it, and see how it ends."""

    def __init__(self, address, context, session=None):
        if address.startswith("/"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(("127.0.0.1", int(address)))
        self.socket.settimeout(PATIENCE)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_hostname="localhost", session=session
        )
        self.drive(self.tls.do_handshake)

    def drive(self, step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.flush()
                got = self.socket.recv(1 << 16)
                if got:
                    self.incoming.write(got)
                else:
                    self.incoming.write_eof()
            finally:
                self.flush()

    def flush(self):
        if sealed := self.outgoing.read():
            self.socket.sendall(sealed)

    def ask(self, target):
        self.say(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def say(self, text):
        self.tls.write(text.encode())
        self.flush()

    def read(self, most):
        """Nothing at close_notify; an end without it is an SSLEOFError."""
        try:
            return self.drive(lambda: self.tls.read(most))
        except ssl.SSLZeroReturnError:
            return b""

    def answer(self, status=200):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.some(1)
        assert head.startswith(b"HTTP/1.1 %d " % status), head
        fields = [line.partition(b": ") for line in head.lower().split(b"\r\n")]
        left = next(int(value) for name, _, value in fields if name == b"content-length")
        body = b""
        while len(body) < left:
            body += self.some(left - len(body))
        return body

    def some(self, most):
        got = self.read(most)
        assert got, "the connection ended within an answer"
        return got

    def assert_silent(self, seconds):
        readable, _, _ = select.select([self.socket], [], [], seconds)
        assert not readable, self.socket.recv(100)


def context_of(authority, version=None):
    context = ssl.create_default_context(cafile=authority)
    if version:
        context.minimum_version = context.maximum_version = version
    return context


def resume(authority, address):
    for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
        context, session = context_of(authority, version), None
        for resumed in False, True, True:
            client = Client(address, context, session)
            client.ask(f"/small?{version.name}")
            assert client.answer() == b"content"
            assert client.tls.session_reused == resumed, (version, resumed)
            session = client.tls.session


def half_close(authority, address):
    """Says that nothing follows, and only then reads: the whole answer, and an orderly end."""
    for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
        client = Client(address, context_of(authority, version))
        client.ask("/large?half")
        try:
            client.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        client.flush()
        client.socket.shutdown(socket.SHUT_WR)
        assert len(client.answer()) == LARGE
        assert client.read(1) == b""


def unread(authority, address):
    """Goes away in the middle of an answer."""
    client = Client(address, context_of(authority))
    client.ask("/huge")
    client.some(1)
    client.socket.close()


def parked(authority, address):
    for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
        client = Client(address, context_of(authority, version))
        for pause in 0, 3, 0:
            client.assert_silent(pause) if pause else None
            client.ask(f"/small?{version.name}")
            assert client.answer() == b"content"
        # Parked with more of a head than is looked at first.
        head = f"GET /small?{version.name} HTTP/1.1\r\nHost: localhost\r\nX-Long: {'x' * 2200}\r\n"
        head += f"Range: bytes=0-2\r\nX-Longer: {'x' * 1000}\r\n\r\n"
        client.say(head[:2900])
        client.assert_silent(3)
        client.say(head[2900:])
        assert client.answer(206) == b"con"
        client.assert_silent(0.2)


def whole(authority, address):
    client = Client(address, context_of(authority))
    client.ask("/large?unix")
    assert len(client.answer()) == LARGE


if __name__ == "__main__":
    cases = dict(resume=resume, half_close=half_close, unread=unread, parked=parked, whole=whole)
    cases[sys.argv[1]](*sys.argv[2:])
