"""Checks by hand that the cache is shared with huggingface_hub: what one fetches the other finds, from a stand-in for the hub.

    ENGINE=path/to/engine python3 tests/make/hub_shared.py

Needs huggingface_hub (2.4 passed); says what was checked, or fails at an assertion.
"""

import hashlib
import http.server
import json
import os
import subprocess
import tempfile
import threading
import urllib.parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "my model-Q4_K_M.gguf": b"one",
    "sub/größe #1?+&-Q8_0.gguf": b"two",
    "100%~x(1)[a]-Q2_K.gguf": b"three",
    "README.md": b"hello",
}
log = []


class Hub(http.server.BaseHTTPRequestHandler):
    """u/r, which was once called old/name."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self):
        log.append(self.path)
        path = urllib.parse.urlparse(self.path).path
        if "old/name" in path:
            return self.send(307, b"moved", {"Location": path.replace("old/name", "u/r")})
        if path.startswith("/api/"):
            answer = {"sha": COMMIT, "siblings": [{"rfilename": file} for file in FILES]}
            return self.send(200, json.dumps(answer).encode(), {})
        body = FILES[urllib.parse.unquote(path.split("/resolve/")[1].split("/", 1)[1])]
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        linked = {"X-Linked-Etag": etag, "X-Linked-Size": str(len(body)), "X-Repo-Commit": COMMIT}
        return self.send(200, body, {"ETag": etag} | linked)

    do_HEAD = do_GET


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ |= {
    "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
    "HF_HOME": tempfile.mkdtemp(),
    "HF_HUB_DISABLE_XET": "1",
}

from huggingface_hub import hf_hub_download, scan_cache_dir, try_to_load_from_cache  # noqa: E402, after the variables


def pull(name):
    """The path that `engine pull` prints, and what was asked for."""
    before = len(log)
    done = subprocess.run([os.environ["ENGINE"], "pull", name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), log[before:]


for repo in ["u/r", "old/name"]:
    for file in [file for file in FILES if file.endswith(".gguf")]:
        # Ours first.
        path, asked = pull(f"{repo}:{file}")
        assert try_to_load_from_cache(repo, file) == path, file
        assert hf_hub_download(repo, file, local_files_only=True) == path, file
        assert open(path, "rb").read() == FILES[file]
        # Theirs first, in another folder.
        folder = tempfile.mkdtemp()
        before = len(log)
        hf_hub_download(repo, file, cache_dir=folder)
        theirs = {path for path in log[before:] if "/resolve/" in path}
        os.environ["HF_HUB_CACHE"] = folder
        _, again = pull(f"{repo}:{file}")
        del os.environ["HF_HUB_CACHE"]
        assert not again, again
        scan = scan_cache_dir(folder)
        assert not scan.warnings and [found.repo_id for found in scan.repos] == [repo], scan
        # Both write the file's address alike.
        ours = {path.replace(COMMIT, "main") for path in asked if "/resolve/" in path}
        assert ours == theirs, (ours, theirs)
        print("shared:", repo, file)
