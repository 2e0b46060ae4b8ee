"""Makes goldens/cases/widths: what llama.cpp computes of the models that tests/widths.rs makes from seeds.

ORACLE names a program over llama.cpp's library that answers `ORACLE MODEL logits IDS K` with lines "ID LOG-PROBABILITY", the most
likely first, and `ORACLE MODEL embed IDS` with the pooled vector in a line; both with a cache of F32 and without flash attention.

    ORACLE=path python3 tests/make/widths.py
"""

import json
import os
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/goldens/cases/widths"
IDS = [5, 270, 274, 280, 37, 5, 99, 301, 12]


def ask(model, *words):
    run = subprocess.run([os.environ["ORACLE"], model, *words], capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{model}: {run.stdout[-300:]} {run.stderr[-2000:]}")
    return run.stdout


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    ids = ",".join(map(str, IDS))
    with tempfile.TemporaryDirectory() as folder:
        run = os.environ.get("CARGO", "cargo").split() + ["test", "--release", "-p", "engine-tests", "--test", "widths"]
        subprocess.run(run, check=True, cwd=ROOT, env={**os.environ, "ENGINE_TEST_WRITE_MADE": folder})
        for path in sorted(pathlib.Path(folder).glob("*.gguf")):
            name = path.stem
            embeds = "bert" in name or (name.startswith("all-") and not name.endswith("logits"))
            golden = {"ids": IDS, "logits": [], "vector": []}
            if embeds:
                golden["vector"] = [float(x) for x in ask(path, "embed", ids).split()]
            else:
                rows = [line.split() for line in ask(path, "logits", ids, "512").splitlines()]
                golden["logits"] = [float(p) for _, p in sorted((int(i), p) for i, p in rows)]
            (OUT / f"{name}.json").write_text(json.dumps(golden) + "\n")
            print(name, len(golden["logits"]), len(golden["vector"]))


main()
