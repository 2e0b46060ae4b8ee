#!/usr/bin/env python3
"""Makes of llama.cpp's CUDA library one with machine code of a single GPU, which is small enough to be carried.

    assemble_cuda.py IN.so OUT.so TOOLS CACHE [ARCHITECTURE]

The library holds each file's kernels for several GPUs ("fat binaries"). A fat binary is a header (magic 0xBA55ED50,
version u16, its length u16, the entries' length u64) and entries: kind u16 (1 PTX, 2 machine code), version u16, the
entry's header's length u32, its payload's length u64, and at 28 its architecture (u32, 90 for sm_90). For a GPU of 90 it
has no machine code, and its PTX only drivers compile that are as new as the toolkit that wrote it. So the PTX is
assembled here, by TOOLS' ptxas, and a fat binary of nothing but that, by TOOLS' fatbinary, takes the place of the old
one, with zeros behind it: nothing moves, and what compresses the file takes the zeros away. Of fat binaries that the
measured models have no use for the entries are filled with zeros after their headers; their kernels fail where they are
used. What was assembled is kept in CACHE.
"""
import concurrent.futures
import hashlib
import os
import threading
import re
import struct
import subprocess
import sys

import zstandard

MAGIC = struct.pack("<I", 0xBA55ED50)
ZSTD = b"\x28\xb5\x2f\xfd"
# What benches/gpu.sh measures: Q4_0, Q4_1, Q8_0, Q4_K, Q5_K, Q6_K, MXFP4.
FORMATS = {2, 3, 8, 12, 13, 14, 39}
# The lengths of its models' heads, and the type of their keys: f16.
HEADS = {64, 128, 256}
KEYS = 1
# What CUDA 13.0 assembles every driver of 13 loads; code of later ones has attributes that it does not know. Where the
# PTX says a later version but has nothing of it, that is all that 13.0's ptxas has against it.
VERSION = b".version 9.0"
# Each is a process of ptxas.
AT_ONCE = 2


def is_of_no_use(text: bytes) -> bool:
    """Whether PTX is of products or attention that nothing measured would have computed: each file has one kind."""

    def numbers(pattern: bytes) -> set[int]:
        return {int(number) for number in re.findall(rb"\.entry\s+_Z\d+" + pattern, text)}

    formats = numbers(rb"mul_mat_qIL9ggml_type(\d+)E")
    heads = numbers(rb"flash_attn_ext_f16ILi(\d+)E")
    keys = numbers(rb"flash_attn_ext_vecILi\d+ELi\d+EL9ggml_type(\d+)E")
    # By tiles without tensor cores, and products of floats for up to 16 tokens.
    others = re.search(rb"\.entry\s+_Z\d+(flash_attn_tile|mul_mat_f)I", text) and not heads and not keys
    wrong = [formats and not FORMATS & formats, heads and not HEADS & heads, keys and KEYS not in keys]
    return bool(others or any(wrong))


def assembled(text: bytes, architecture: int, tools: str, cache: str, room: int) -> bytes:
    """A fat binary of PTX's machine code that fits into `room`."""
    options = [f"-arch=sm_{architecture}", "-O3"]
    text = re.sub(rb"^\.version 9\.\d+", VERSION, text, count=1, flags=re.MULTILINE)
    by = subprocess.run([f"{tools}/ptxas", "--version"], check=True, capture_output=True).stdout
    name = os.path.join(cache, hashlib.sha256(by + repr(options).encode() + text).hexdigest()[:24])
    cubin, part, fat = name + ".cubin", f"{name}.{threading.get_ident()}.part", f"{name}.{threading.get_ident()}.fatbin"
    if not os.path.exists(cubin):
        with open(name + ".ptx", "wb") as file:
            file.write(text)
        subprocess.run(["nice", f"{tools}/ptxas", *options, "-o", part, name + ".ptx"], check=True)
        os.remove(name + ".ptx")
        os.rename(part, cubin)
    image = f"--image3=kind=elf,sm={architecture},file={cubin}"
    # What is not compressed compresses better with the rest.
    for compress in ("--compress-mode=none", "--compress-all"):
        subprocess.run([f"{tools}/fatbinary", "-64", compress, f"--create={fat}", image], check=True)
        with open(fat, "rb") as file:
            binary = file.read()
        os.remove(fat)
        if len(binary) <= room:
            return binary
    sys.exit(f"{cubin} does not fit into {room} bytes")


def main() -> None:
    source, target, tools, cache = sys.argv[1:5]
    architecture = int(sys.argv[5]) if len(sys.argv) > 5 else 90
    os.makedirs(cache, exist_ok=True)
    data = bytearray(open(source, "rb").read())
    kept = dropped = 0
    jobs = {}
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        at = data.find(MAGIC)
        while at >= 0:
            _, _, header, length = struct.unpack_from("<IHHQ", data, at)
            entry, end = at + header, at + header + length
            if header != 16 or end > len(data):
                # The number by chance, in code.
                at = data.find(MAGIC, at + 4)
                continue
            text = None
            while entry < end:
                kind, _, entry_header, payload = struct.unpack_from("<HHIQ", data, entry)
                of = struct.unpack_from("<I", data, entry + 28)[0]
                first = entry + entry_header
                if kind == 1 and of == architecture:
                    packed = bytes(data[first : first + payload])
                    packed = packed[packed.find(ZSTD) :]
                    text = zstandard.ZstdDecompressor().decompressobj().decompress(packed).rstrip(b"\0")
                data[first : first + payload] = bytes(payload)
                entry += entry_header + payload
            if text is None or is_of_no_use(text):
                dropped += 1
            else:
                room = end - at
                jobs[at, room] = pool.submit(assembled, text, architecture, tools, cache, room)
            at = data.find(MAGIC, end)
        for (at, room), job in jobs.items():
            binary = job.result()
            data[at : at + room] = binary.ljust(room, b"\0")
            kept += len(binary)
    if not jobs:
        sys.exit(f"{source} has no PTX for sm_{architecture}")
    open(target, "wb").write(data)
    print(f"{len(jobs)} files' kernels assembled, {kept >> 20} MiB; {dropped} files' left out", file=sys.stderr)


main()
