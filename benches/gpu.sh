#!/usr/bin/env bash
# Everything worth knowing on a real GPU, in one call of under 9 minutes, on a machine that reaches no network.
#
#   benches/gpu.sh --pack [MODEL...]  here: builds, and lays out what to bring under .gpu/, in trips that
#                              are at most 62 MiB with the repository itself
#   benches/gpu.sh --unpack N  there: takes in trip N from .gpu/trip-N
#   benches/gpu.sh [DEVICE]    there: measures (default: vulkan:0), writes OUT/gpu.md and OUT/*.log
#
# What is not there is left out and named: without the models' pieces the goldens of real models, without Node.js
# and benches/peer-llama/node_modules llama.cpp. The far side needs a Vulkan loader and driver, nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
store=${ENGINE_GPU_STORE:-/tmp/engine-gpu}
target=${CARGO_TARGET_DIR:-target}
tests=(ops tiny_gpu real self_test)
models=(SmolLM2-135M-Instruct.Q4_1.gguf gemma-3-270m-q4_k_m.gguf)

pack() {
    cargo build --release --quiet
    cargo test --release -p engine-tests --no-run --quiet
    rm -rf .gpu && mkdir -p .gpu/all
    strip -o .gpu/all/engine "$target/release/engine"
    for test in "${tests[@]}"; do
        # The newest of the executables of that name.
        strip -o ".gpu/all/test-$test" "$(find "$target/release/deps" -maxdepth 1 -type f -perm -u+x -name "$test-*" -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2)"
    done
    local cache=${ENGINE_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/engine}
    for model in "${models[@]}"; do
        if [ -f "$cache/models/$model" ]; then
            ln -s "$cache/models/$model" ".gpu/all/$model"
        else
            echo "left out: $model is not in $cache/models (engine pull brings it)"
        fi
    done
    # Everything goes as one stream, cut into trips: the repository travels with each.
    local tracked room
    tracked=$(git ls-files -z | du --files0-from=- -cb | tail -1 | cut -f1)
    room=$(((62 << 20) - tracked))
    if [ "$room" -lt $((4 << 20)) ]; then
        echo "the repository alone has $((tracked >> 20)) MiB: trips of 62 MiB leave no room" >&2
        exit 1
    fi
    tar -C .gpu/all -chf - . | split -b "$room" -d --numeric-suffixes=1 -a 2 - .gpu/part-
    for file in .gpu/part-*; do
        mkdir ".gpu/trip-${file##*-}" && mv "$file" ".gpu/trip-${file##*-}/"
    done
    rm -r .gpu/all
    for file in .gpu/trip-*; do
        echo "$file: $(du -sm "$file" | cut -f1) MiB: $(ls "$file" | tr '\n' ' ')"
    done
    echo "Bring each trip, with the repository, and there run: benches/gpu.sh --unpack N; after the last: benches/gpu.sh"
}

unpack() {
    mkdir -p "$store/parts"
    cp ".gpu/trip-$(printf %02d "$((10#$1))")"/* "$store/parts/"
}

case "${1:-}" in
    --pack) shift; [ $# = 0 ] || models=("$@"); pack; exit ;;
    --unpack) unpack "$2"; exit ;;
    --*) sed -n '2,9p' "$0"; exit 2 ;;
esac

device=${1:-vulkan:0}
out=${OUT:-benches/results}
report=$out/gpu.md
mkdir -p "$out" "$store/home/models"
started=$SECONDS
export ENGINE_HOME=$store/home ENGINE_TEST_DEVICE=$device ENGINE_TEST_GOLDENS=$PWD/tests/goldens XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$(mktemp -d)}
if [ -d "$store/parts" ]; then
    cat "$store"/parts/part-* | tar -C "$store" -xf -
    rm -r "$store/parts"
    for model in "${models[@]}"; do
        [ ! -f "$store/$model" ] || mv "$store/$model" "$store/home/models/"
    done
fi
engine=$store/engine
[ -x "$engine" ] || engine=$target/release/engine
: > "$report"
say() { echo "$*" | tee -a "$report"; }
# step TITLE SECONDS COMMAND...: runs it within its time; the end of its output goes to the report.
step() {
    local title=$1 seconds=$2 name status=0
    shift 2
    name=$(echo "$title" | tr -c 'a-z0-9\n' -)
    say ""; say "## $title"; say '```'
    timeout "$seconds" "$@" > "$out/$name.log" 2>&1 || status=$?
    tail -n "${LINES_KEPT:-30}" "$out/$name.log" | tee -a "$report"
    say '```'
    say "exit $status, $((SECONDS - started)) s so far"
}

say "# GPU measurements, $(date -u +%Y-%m-%d)"
step "devices" 20 "$engine" devices
command -v nvidia-smi >/dev/null && step "clocks" 10 nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem --format=csv
for test in self_test ops tiny_gpu real; do
    if [ -x "$store/test-$test" ]; then
        LINES_KEPT=12 step "$test against the reference" 90 "$store/test-$test" --nocapture --test-threads=2
    else
        say "left out: test $test was not brought"
    fi
done
for model in llama-8b:q4_k_m llama-1b:q4_k_m smollm2-135m:q4_1; do
    LINES_KEPT=200 step "kernels of $model" 40 "$engine" tune --synthetic "$model" --device "$device" --seconds 18 --verbose
done
step "synthetic models" 120 "$engine" bench --synthetic smollm2-135m:q4_1 llama-1b:q4_k_m llama-8b:q4_k_m llama-8b:q8_0 --device "$device" -r 3
for model in "${models[@]}"; do
    file=$store/home/models/$model
    [ -f "$file" ] || { say "left out: $model was not brought"; continue; }
    step "$model" 40 "$engine" bench "$file" --device "$device" -r 3
    if command -v node >/dev/null && [ -d benches/peer-llama/node_modules ]; then
        step "$model beside llama.cpp" 60 benches/peer "$file" --device "$device" --engine "$engine" -r 3
    else
        say "left out: llama.cpp (no Node.js or no benches/peer-llama/node_modules)"
    fi
done
say ""; say "$((SECONDS - started)) s in all"
