#!/usr/bin/env python3
"""What NVIDIA's compiler makes of kernels, without its card: instructions a weight in the loop of a product.

    cargo run --release -p shaders --example cuda -- VARIANT... | checks/nvrtc/slots.py [sm_89]

naga writes a kernel in Metal's language, metal.cuh makes CUDA of it, NVRTC compiles that, nvdisasm prints its assembly
(pip install -r checks/nvrtc/requirements.txt). The same optimiser and assembler serve NVIDIA's Vulkan driver, but not the
same front end: robust access to buffers, for one, adds a few instructions a load there.

Slots are what a scheduler issues: an instruction a clock; those of the half-rate pipe (integers, comparisons, conversions) every
second clock, so that a loop takes the larger of all instructions and twice these.
"""
import ctypes
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CHIP = sys.argv[1] if len(sys.argv) > 1 else "sm_89"
# Instructions of the pipe that takes a warp every clock, of the memory units, and of branches; the others are half-rate.
FULL_RATE = ("FFMA", "FMUL", "FADD", "HFMA2", "HADD2", "HMUL2", "IMAD", "IDP")
ELSEWHERE = ("LD", "ST", "BRA", "BAR", "SHFL", "MUFU", "S2R", "EXIT", "BSSY", "BSYNC", "NOP", "U", "R2UR", "CS2R", "WARPSYNC")
MULTIPLIES = {"FFMA": 1, "FMUL": 1, "HFMA2": 2, "HMUL2": 2, "IDP": 4}


def package_file(name):
    """A file of the wheels, wherever they are installed."""
    for folder in importlib.util.find_spec("nvidia").submodule_search_locations:
        for path in Path(folder).rglob(name):
            return path
    sys.exit(f"{name} is not there: pip install -r {HERE}/requirements.txt")


NVRTC = ctypes.CDLL(str(package_file("libnvrtc.so.12")))
NVDISASM = package_file("nvdisasm")


def compile_cuda(source):
    program = ctypes.c_void_p()
    NVRTC.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    options = [f"--gpu-architecture={CHIP}".encode(), b"--std=c++17", b"-default-device", b"--fmad=true", b"-w"]
    failed = NVRTC.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    if failed:
        NVRTC.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        NVRTC.nvrtcGetProgramLog(program, log)
        raise RuntimeError(log.value.decode())
    NVRTC.nvrtcGetCUBINSize(program, ctypes.byref(size))
    cubin = ctypes.create_string_buffer(size.value)
    NVRTC.nvrtcGetCUBIN(program, cubin)
    NVRTC.nvrtcDestroyProgram(ctypes.byref(program))
    return cubin.raw


# What Metal hands to a kernel, in CUDA.
BUILT_IN = {
    "threadgroup_position_in_grid": "metal::uint3(blockIdx.x, blockIdx.y, blockIdx.z)",
    "threadgroups_per_grid": "metal::uint3(gridDim.x, gridDim.y, gridDim.z)",
    "thread_index_in_threadgroup": "threadIdx.x",
    "simdgroup_index_in_threadgroup": "threadIdx.x / 32u",
    "simdgroups_per_threadgroup": "blockDim.x / 32u",
    "thread_index_in_simdgroup": "threadIdx.x % 32u",
}


def cuda_of(name_of_variant, metal):
    """naga's text in CUDA: the kernel becomes a function, called by one that takes pointers."""
    # A turn stays a turn: the loops that should be unrolled are, in the WGSL; but for those inside a tile's turn.
    loop = r"^(    )while" if name_of_variant.startswith("matmul") else r"^( +)while"
    metal = re.sub(loop, r"#pragma unroll 1\n\1while", metal, flags=re.M)
    text = re.sub(r"#include <.*>|using metal::uint;", "", metal)
    text = re.sub(r"(?<![\w:])(uint|int|float|bool)([234])\b", r"metal::\1\2", text)
    # Metal's numbers are floats.
    text = re.sub(r"(?<![\w.])(\d+\.\d*(?:e[+-]?\d+)?)(?![\w.])", r"\1f", text)
    head = re.search(r"\[\[max_total_threads_per_threadgroup\((\d+)\)\]\] kernel void (\w+)\((.*?)\n\) \{", text, re.S)
    lanes, name, parameters = head.groups()
    outer, inner, shared = [], [], []
    for parameter in re.split(r"\n, |\n  ", parameters):
        if not parameter.strip():
            continue
        built_in = re.search(r"\[\[(\w+)\]\]", parameter)
        plain = re.sub(r"\s*\[\[.*?\]\]", "", parameter).strip()
        if built_in and built_in.group(1) in BUILT_IN:
            inner.append(BUILT_IN[built_in.group(1)])
            continue
        variable = plain.split()[-1]
        kind = re.sub(r"\b(device|constant|threadgroup|const)\b|&", "", plain.rsplit(" ", 1)[0]).strip()
        if plain.startswith("threadgroup"):
            shared.append(f"    __shared__ {kind} {variable};")
            inner.append(variable)
        elif plain.startswith("constant"):
            # By value: parameters lie in the constant bank, as uniforms do.
            outer.append(f"const {kind} {variable}")
            inner.append(variable)
        else:
            read_only = "const " if "const" in plain else ""
            outer.append(f"{read_only}{kind}* __restrict__ {variable}")
            inner.append(f"*{variable}")
    signature = ", ".join(re.sub(r"\s*\[\[.*?\]\]", "", p).strip() for p in re.split(r"\n, |\n  ", parameters) if p.strip())
    text = text.replace(head.group(0), f"FN void {name}({signature}) {{")
    # Constants of vectors have constructors, which CUDA runs for none.
    text = re.sub(r"^constant (?:\S+) (\w+) = (.*);$", r"#define \1 (\2)", text, flags=re.M)
    text = re.sub(r"\bconstant\b", "const", text)
    text = re.sub(r"\b(device|threadgroup|thread) (?=\w)", "", text)
    # dot4I8Packed and pack2x16float, as naga writes them for Metal.
    text = re.sub(r"\( \+ (\w+)\[0\] \* (\w+)\[0\](?: \+ \1\[\d\] \* \2\[\d\]){3}\)", r"dot4(\1, \2)", text)
    text = re.sub(r"\bhalf2\((?=\w)", "metal::to_halves(", text)
    entry = (
        f'extern "C" __global__ void __launch_bounds__({lanes}) entry({", ".join(outer)}) {{\n'
        + "\n".join(shared)
        + f"\n    {name}({', '.join(inner)});\n}}\n"
    )
    return (HERE / "metal.cuh").read_text() + text + entry


def loops_of(assembly):
    """The loops: from, to, names of instructions; the shortest first."""
    labels, code = {}, []
    for line in assembly.splitlines():
        label = re.match(r"\s*(\.L_\w+):", line)
        if label:
            labels[label.group(1)] = len(code)
        instruction = re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_]+)(\S*)\s*(.*?);", line)
        if instruction:
            code.append((instruction.group(1), instruction.group(3)))
    loops = []
    for index, (name, operands) in enumerate(code):
        target = re.search(r"\.L_\w+", operands)
        if name == "BRA" and target and labels.get(target.group(0), len(code)) < index:
            loops.append((labels[target.group(0)], index + 1))
    return sorted(((first, end, [name for name, _ in code[first:end]]) for first, end in loops), key=lambda l: len(l[2]))


def products_of(loop):
    return sum(MULTIPLIES.get(name, 0) for name in loop)


def costs(loop):
    """Instructions, and those of the half-rate pipe."""
    half_rate = [n for n in loop if not n.startswith(FULL_RATE) and not n.startswith(ELSEWHERE)]
    return len(loop), len(half_rate)


def slots_of(loops, products):
    """Instructions and slots a product, by the rule of tests/src/compilers/slots.rs: the smallest loop that holds a turn's products;
    or the one with most, as often as they take, and what is around it."""
    for _, _, loop in loops:
        if products_of(loop) >= products:
            total, half = costs(loop)
            break
    else:
        innermost = [(f, e, l) for f, e, l in loops if not any(f <= g and h <= e and (f, e) != (g, h) for g, h, _ in loops)]
        first, end, inner = max(innermost, key=lambda l: products_of(l[2]), default=(0, 0, []))
        if not products_of(inner):
            return None
        turns = products / products_of(inner)
        around = next((l for f, e, l in loops if f <= first and end <= e and (f, e) != (first, end)), inner)
        total, half = (outer - one + one * turns for outer, one in zip(costs(around), costs(inner)))
    return total / products, max(total, 2 * half) / products


def main():
    print(f"{CHIP}: instructions and slots a weight")
    for line in sys.stdin:
        kernel = json.loads(line)
        try:
            cubin = compile_cuda(cuda_of(kernel["name"], kernel["text"]))
        except RuntimeError as why:
            print(f"{kernel['name']}: not compiled: {str(why)[:1500]}")
            continue
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(cubin)
            file.flush()
            assembly = subprocess.run([NVDISASM, "-c", file.name], capture_output=True, text=True, check=True).stdout
        if os.environ.get("SASS"):
            print(assembly)
        slots = kernel["products"] and slots_of(loops_of(assembly), kernel["products"])
        print(f"{kernel['name']}: " + (f"{slots[0]:.2f} {slots[1]:.2f}" if slots else "no loop of products"), flush=True)


main()
