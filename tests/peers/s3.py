"""An S3 server for tests: moto behind a door that fails now and then.

    s3.py serve SHARE      serves on a free port of this machine until standard input ends, and prints the port;
                           SHARE of the requests fail, half of them after they were carried out: a third with 500 or
                           503, a third by a connection that is reset, a third in the middle of the answer
    s3.py careless         serves without conditional PUT, as some clones of S3 do
    s3.py copy PORT A B    copies every object below prefix A to prefix B, those of _clientele first
    s3.py list PORT A      prints the keys below prefix A

The bucket is called shop. On its end the server prints how many requests it answered with which status, as JSON.
"""

import collections
import json
import random
import socket
import struct
import sys
import threading

BUCKET = "shop"


def answer(start, status, text):
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
    return [text]


class Door:
    """Passes requests on to the server behind it, and fails some."""

    def __init__(self, behind, share, has_conditions):
        self.behind, self.share, self.has_conditions = behind, share, has_conditions
        self.random = random.Random(20)
        self.lock = threading.Lock()
        self.statuses = collections.Counter()

    def __call__(self, environ, start):
        with self.lock:
            fails = self.random.random() < self.share
            is_late = self.random.random() < 0.5
            status = self.random.choice(["500 Internal Server Error", "503 Slow Down"])
            kind = self.random.choice(["status", "reset", "cut"])
        if not self.has_conditions:
            environ.pop("HTTP_IF_NONE_MATCH", None)

        def noted(line, headers, info=None):
            self.statuses[line[:3]] += 1
            return start(line, headers, info)

        if not fails:
            return self.behind(environ, noted)
        self.statuses["faults"] += 1
        self.statuses[kind] += 1
        if kind == "cut":
            return self.cut(environ, start)
        code = "SlowDown" if status.startswith("503") else "InternalError"
        text = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        if is_late:
            self.statuses["late faults"] += 1
            for _ in self.behind(environ, lambda *_: lambda data: None):
                pass
        elif length := int(environ.get("CONTENT_LENGTH") or 0):
            environ["wsgi.input"].read(length)
        if kind == "reset":
            reset(environ)
        return answer(noted, status, text)

    def cut(self, environ, start):
        """Carries the request out and answers with half of the answer."""
        head = []
        body = b"".join(self.behind(environ, lambda line, headers, info=None: head.append((line, headers)) or (lambda data: None)))
        line, headers = head[0]
        if len(body) < 2 or environ["REQUEST_METHOD"] == "HEAD":
            self.statuses[line[:3]] += 1
            start(line, headers)
            return [body]
        start(line, [(name, value) for name, value in headers if name.lower() != "content-length"] + [("Content-Length", str(len(body)))])

        def halves():
            yield body[: len(body) // 2]
            reset(environ)

        return halves()


def reset(environ):
    """Ends the connection so that the client is told of a reset."""
    environ["werkzeug.socket"].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise ConnectionResetError


def client(port):
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )


def serve(share, has_conditions):
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_):
            pass

        def connection_dropped(self, *_):
            self.close_connection = True

    door = Door(DomainDispatcherApplication(create_backend_app), 0.0, has_conditions)
    server = make_server("127.0.0.1", 0, door, threaded=True, request_handler=Quiet)
    # Without a word of farewell, which would come before a reset.
    server.shutdown_request = server.close_request
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client(server.port).create_bucket(Bucket=BUCKET)
    door.share = share
    print(server.port, flush=True)
    sys.stdin.read()
    server.shutdown()
    print(json.dumps(door.statuses), flush=True)


def copy(port, source, target):
    s3 = client(port)
    for key in sorted(listed(port, source + "/"), key=lambda key: "/_clientele/" not in key):
        copied = target + key[len(source) :]
        s3.copy_object(Bucket=BUCKET, Key=copied, CopySource={"Bucket": BUCKET, "Key": key})


def listed(port, prefix):
    pages = client(port).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", share]:
            serve(float(share), True)
        case ["careless"]:
            serve(0.0, False)
        case ["copy", port, source, target]:
            copy(int(port), source, target)
        case ["list", port, prefix]:
            print("\n".join(listed(int(port), prefix)))
        case _:
            sys.exit(__doc__)
