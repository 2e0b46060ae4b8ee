#!/usr/bin/env python3
"""Keeps of llama.cpp's CUDA library the code of one architecture, so that it is small enough to be carried.

    only_ptx.py IN.so OUT.so [ARCHITECTURE]

The library holds each file's kernels for several GPUs ("fat binaries"). A fat binary is a header (magic 0xBA55ED50,
version u16, its length u16, the entries' length u64) and entries: kind u16 (1 PTX, 2 machine code), version u16, the
entry's header's length u32, its payload's length u64, and at 28 its architecture (u32, 90 for sm_90). Entries of others
are filled with zeros after their headers, in place: nothing moves, and what compresses the file takes the zeros away.
The default is PTX of 90, which the driver compiles for any newer GPU. Of a fat binary for prompts in one format (its
kernels are named mul_mat_q and the format's number in ggml) only those of FORMATS stay.
"""
import re
import struct
import sys

import zstandard

MAGIC = struct.pack("<I", 0xBA55ED50)
ZSTD = b"\x28\xb5\x2f\xfd"
# What benches/gpu.sh measures: Q4_0, Q4_1, Q8_0, Q4_K, Q5_K, Q6_K, MXFP4.
FORMATS = {2, 3, 8, 12, 13, 14, 39}


def is_of_no_use(payload: bytes) -> bool:
    """Whether all that is in a PTX entry is products of a format that is not measured."""
    text = zstandard.ZstdDecompressor().decompressobj().decompress(payload[payload.find(ZSTD) :])
    formats = re.findall(rb"\.entry\s+_Z9mul_mat_qIL9ggml_type(\d+)E", text)
    return bool(formats) and not FORMATS & {int(number) for number in formats}


def main() -> None:
    source, target = sys.argv[1:3]
    architecture = int(sys.argv[3]) if len(sys.argv) > 3 else 90
    data = bytearray(open(source, "rb").read())
    kept = dropped = 0
    at = data.find(MAGIC)
    while at >= 0:
        _, _, header, length = struct.unpack_from("<IHHQ", data, at)
        entry, end = at + header, at + header + length
        if header != 16 or end > len(data):
            # The number by chance, in code.
            at = data.find(MAGIC, at + 4)
            continue
        while entry < end:
            kind, _, entry_header, payload = struct.unpack_from("<HHIQ", data, entry)
            of = struct.unpack_from("<I", data, entry + 28)[0]
            first = entry + entry_header
            if kind == 1 and of == architecture and not is_of_no_use(bytes(data[first : first + payload])):
                kept += payload
            else:
                data[first : first + payload] = bytes(payload)
                dropped += payload
            entry += entry_header + payload
        at = data.find(MAGIC, end)
    if not kept:
        sys.exit(f"{source} has no PTX for sm_{architecture}")
    open(target, "wb").write(data)
    print(f"{kept >> 20} MiB of kernels kept, {dropped >> 20} MiB dropped", file=sys.stderr)


main()
