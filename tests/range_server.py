"""A web server of byte ranges, as stores of COGs are: `python range_server.py FOLDER`.

It prints its port, counts the bytes of rasters that it sends (GET /sent), and never answers
/stalled. It is a process of its own because GDAL holds Python's lock while it opens a file.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Ranges(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sent = 0

    def do_GET(self):
        if self.path == "/sent":
            self.answer(200, str(Ranges.sent).encode())
            return
        if self.path.startswith("/stalled"):
            time.sleep(60)
            return
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        asked = self.headers.get("Range")
        if asked is None:
            body, headers = data, {}
        else:
            low, _, high = asked.removeprefix("bytes=").partition("-")
            body = data[int(low) : int(high) + 1 if high else None]
            last = int(low) + len(body) - 1
            headers = {"Content-Range": f"bytes {low}-{last}/{len(data)}"}
        Ranges.sent += len(body)
        self.answer(206 if asked else 200, body, headers)

    def answer(self, status, body, headers=None):
        self.send_response(status)
        for name, value in {**(headers or {}), "Accept-Ranges": "bytes"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    handler = partial(Ranges, directory=sys.argv[1])
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()
