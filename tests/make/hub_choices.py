"""Writes tests/goldens/cases/hub-choices.jsonl: lists of files as repositories have them, tags, and the file that llama.cpp takes.

    HUB_PLAN=path/to/hub_plan python3 tests/make/hub_choices.py > tests/goldens/cases/hub-choices.jsonl

HUB_PLAN is hub_plan.cpp beside this script, built against llama.cpp (0.5.0 made the data). It asks a stand-in for the
hub on loopback, so nothing leaves the machine. A line is {"files": [...], "tag": "..." or null, "chosen": "..." or null,
"parts": [...]}.
"""

import http.server
import json
import os
import random
import subprocess
import tempfile
import threading
import urllib.parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"
QUANTS = [
    "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "Q5_0", "Q5_K_M", "Q6_K", "Q8_0",
    "F16", "BF16", "F32", "IQ1_S", "IQ2_XXS", "IQ3_M", "IQ4_XS", "IQ4_NL", "Q4_0_4_4", "Q4_0_8_8", "UD-Q2_K_XL",
    "UD-Q4_K_XL", "UD-IQ1_M", "MXFP4", "MXFP4_MOE", "TQ1_0", "i1-Q4_K_M", "i1-IQ3_XXS", "Q8_K_XL",
]
NAMES = ["model", "Llama-3.2-1B-Instruct", "qwen2.5-vl-3b", "gemma-3-4b-it", "tiny_llm", "zephyr", "GLM-4.5-Air"]
SIDECARS = ["mmproj-", "mtp-", "eagle3-", "dflash-", "dspark-"]
OTHERS = [
    "README.md", ".gitattributes", "config.json", "imatrix.gguf", "imatrix.dat", "model.safetensors", "tokenizer.json",
    "LICENSE", "images/a.png", "mmproj-F16.gguf", "mmproj-model-f16.gguf", "model-imatrix.gguf", "model.gguf",
]


def file_of(draw, name, quant):
    """Names of the files of one quantization, as one of the ways of writing them has it."""
    separator = draw.choice("--..__")
    case = draw.choice([str, str, str, str.lower, str.upper])
    stem = name + separator + case(quant)
    if draw.random() < 0.15:
        stem += draw.choice(["-v2", ".i1", "-imat", "_new", "-mlx", ".1"])
    folder = draw.choice(["", "", "", quant + "/", "gguf/", name + "/" + quant + "/"])
    if draw.random() < 0.2:
        count = draw.choice([2, 3])
        first = 2 if draw.random() < 0.1 else 1
        return [f"{folder}{stem}-{part:05}-of-{count:05}.gguf" for part in range(first, count + 1)]
    return [f"{folder}{stem}.gguf"]


def repository(draw):
    """A list of files, in the hub's order."""
    name = draw.choice(NAMES)
    files = []
    for quant in draw.sample(QUANTS, draw.randint(0, 7)):
        files += file_of(draw, name, quant)
    for sidecar in draw.sample(SIDECARS, draw.randint(0, 2)):
        files += file_of(draw, draw.choice([sidecar + name, name + "-" + sidecar + "x"]), draw.choice(QUANTS))
    files += draw.sample(OTHERS, draw.randint(0, 4))
    return sorted(set(files))


def tag_of(draw, files):
    """What a person may ask a list of files for; mostly something that is there."""
    kind = draw.random()
    if kind < 0.3:
        return None
    models = [file for file in files if file.endswith(".gguf")]
    if kind < 0.4 and models:
        return draw.choice(models).rsplit("/", 1)[-1].removesuffix(".gguf").split("-0000")[0]
    present = [quant for quant in QUANTS if any(quant.lower() in file.lower() for file in models)]
    quant = draw.choice(present if present and kind < 0.85 else QUANTS)
    return draw.choice([str, str, str.lower, str.upper, lambda q: q.removeprefix("UD-")])(quant)


class Hub(http.server.BaseHTTPRequestHandler):
    """The two answers of the hub that llama.cpp asks for; gen/N is the N-th list."""

    lists = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        parts = urllib.parse.urlparse(self.path).path.split("/")
        if parts[5] == "refs":
            answer = {"branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": COMMIT}]}
        else:
            answer = [{"type": "file", "path": file, "oid": "0" * 40} for file in self.lists[int(parts[4])]]
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    draw = random.Random(14)
    cases = []
    while len(cases) < 520:
        files = repository(draw)
        cases.append((files, tag_of(draw, files)))
    Hub.lists = [files for files, _ in cases]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    lines = "".join(f"gen/{at}" + (f":{tag}" if tag else "") + "\n" for at, (_, tag) in enumerate(cases))
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "MODEL_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "LLAMA_CACHE": cache,
        }
        done = subprocess.run(
            [os.environ["HUB_PLAN"]], input=lines, capture_output=True, text=True, env=environment, check=True
        )
    answers = done.stdout.splitlines()
    assert len(answers) == len(cases), (len(answers), done.stderr[-500:])
    for (files, tag), answer in zip(cases, answers):
        chosen, *parts = answer.split("\t")
        print(json.dumps({"files": files, "tag": tag, "chosen": chosen or None, "parts": parts}, separators=(",", ":")))


main()
