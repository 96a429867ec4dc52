"""An S3 server for tests: moto behind a door that fails now and then.

    s3.py serve SHARE      serves on a free port of this machine until standard input ends, and prints the port;
                           SHARE of the requests fail, half of them after they were carried out
    s3.py careless         serves without conditional PUT, as some clones of S3 do
    s3.py copy PORT A B    copies every object below prefix A to prefix B, those of _clientele first

The bucket is called shop. On its end the server prints how many requests it answered with which status, as JSON.
"""

import collections
import json
import random
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
        if not self.has_conditions:
            environ.pop("HTTP_IF_NONE_MATCH", None)

        def noted(line, headers, info=None):
            self.statuses[line[:3]] += 1
            return start(line, headers, info)

        if not fails:
            return self.behind(environ, noted)
        self.statuses["faults"] += 1
        code = "SlowDown" if status.startswith("503") else "InternalError"
        text = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        if is_late:
            self.statuses["late faults"] += 1
            for _ in self.behind(environ, lambda *_: lambda data: None):
                pass
        elif length := int(environ.get("CONTENT_LENGTH") or 0):
            environ["wsgi.input"].read(length)
        return answer(noted, status, text)


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

    door = Door(DomainDispatcherApplication(create_backend_app), 0.0, has_conditions)
    server = make_server("127.0.0.1", 0, door, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client(server.port).create_bucket(Bucket=BUCKET)
    door.share = share
    print(server.port, flush=True)
    sys.stdin.read()
    server.shutdown()
    print(json.dumps(door.statuses), flush=True)


def copy(port, source, target):
    s3 = client(port)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=source + "/")
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    for key in sorted(keys, key=lambda key: "/_clientele/" not in key):
        copied = target + key[len(source) :]
        s3.copy_object(Bucket=BUCKET, Key=copied, CopySource={"Bucket": BUCKET, "Key": key})


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", share]:
            serve(float(share), True)
        case ["careless"]:
            serve(0.0, False)
        case ["copy", port, source, target]:
            copy(int(port), source, target)
        case _:
            sys.exit(__doc__)
