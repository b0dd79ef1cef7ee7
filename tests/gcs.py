"""An emulator of Google Cloud Storage on this machine, for gcsfs and TensorStore.

It cannot show two writers at once (it ignores ifGenerationMatch, so no create or replace is exclusive), permissions,
throttling or latency.
"""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

# Adds to the emulator's downloads a header that TensorStore reads, and ranges counted from the end.
SERVER = """
import re, sys
from http import HTTPStatus
from gcp_storage_emulator.handlers import objects

download = objects.download

def as_the_service(request, response, storage, *args, **kwargs):
    download(request, response, storage, *args, **kwargs)
    if response.status == HTTPStatus.NOT_FOUND:
        return
    object_ = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
    response["x-goog-generation"] = object_["generation"]
    if suffix := re.fullmatch(r"bytes=-([0-9]+)", request.get_header("range", "") or ""):
        content = response._content
        n = min(int(suffix[1]), len(content))
        response["Content-Range"] = f"bytes {len(content) - n}-{len(content) - 1}/{len(content)}"
        response.status, response._content = HTTPStatus.PARTIAL_CONTENT, content[len(content) - n :]

objects.download = as_the_service
from gcp_storage_emulator import server  # its routes take what objects.download is now
server.create_server("localhost", int(sys.argv[1]), in_memory=True, default_bucket="bucket").run()
"""


@contextlib.contextmanager
def emulator() -> Iterator[dict[str, str]]:
    """Starts the emulator; yields the environment variables of a process that uses it. Its bucket is `bucket`."""
    for package in ("gcp_storage_emulator", "gcsfs"):
        pytest.importorskip(package)
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(port)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as s:
                if s.connect_ex(("localhost", port)) == 0:
                    break
            time.sleep(0.05)
        url = f"http://localhost:{port}"
        yield {
            "TENSORSTORE_GCS_HTTP_URL": url, "STORAGE_EMULATOR_HOST": url, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }  # fmt: skip
    finally:
        server.kill()
        server.wait()
