#!/usr/bin/env bash
# Everything worth knowing on a real GPU, in one call of under ten minutes, on a borrowed machine that reaches no network.
#
#   benches/gpu.sh --pack                 here: builds, and puts all that is needed there into .gpu/gpu.pack
#   OUT=DIR benches/gpu.sh --here [DEVICE]  there: measures, writes DIR/gpu.md and DIR/logs.tar.xz, and ends with 0
#
# There it needs benches/ and .gpu/ beside each other, bash, coreutils and a Vulkan driver: no network, no Node.js, no
# models. DEVICE is by default the first Vulkan device that is no software driver, else that one, with small sizes.
# It ends after SECONDS_IN_ALL (560): each step has the smaller of its own limit and of what is left; gpu.md is whole
# after every step, and names what was not reached. ONLY="devices roofline" runs some of the steps.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,11p' benches/gpu.sh; }

# --- here ----------------------------------------------------------------------------------------------------------

tests=(self_test ops)
# What these tests read, each with its golden: the first three by name, the others have all kinds of ops together.
goldens=(gemma3 llama.Q4_0 llama-w256.Q4_K_M mamba2 gemma4 deepseek2-v3 qwen35moe)
# The Vulkan loader, what NVIDIA's driver is linked with, and what llama.cpp's library is: used where the machine lacks
# them. And what compresses the logs.
packages=(libvulkan1 libegl1 libglvnd0 libopengl0 libgl1 libglx0 libgles2 libx11-6 libxext6 libxcb1 libxau6 libxdmcp6
    libbsd0 libmd0 libstdc++6 libgcc-s1 libgomp1 liblzma5 xz-utils)

pack() {
    local target=${CARGO_TARGET_DIR:-target} work all
    cargo build --release --quiet -p cli
    cargo test --release --quiet -p engine-tests "${tests[@]/#/--test=}" --no-run
    work=$(mktemp -d)
    all=$work/all
    mkdir -p "$all/lib" "$all/goldens/tiny" "$all/peer" .gpu
    strip -o "$all/engine" "$target/release/engine"
    local test name
    for test in "${tests[@]}"; do
        # The newest of the executables of that name.
        strip -o "$all/test-$test" "$(find "$target/release/deps" -maxdepth 1 -type f -perm -u+x -name "$test-*" -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2)"
    done
    for name in "${goldens[@]}"; do
        cp "tests/goldens/tiny/$name.gguf" "tests/goldens/tiny/$name.json" "$all/goldens/tiny/"
    done
    pack_libraries "$work" || echo "left out: Debian's packages (no apt-get, or it fetched nothing)"
    pack_peer "$work" || echo "left out: llama.cpp (no npm, no C compiler, or nothing was fetched)"
    # One file: a line with the length of busybox, busybox, and the archive that it unpacks.
    local busybox=$work/debs/root/bin/busybox length=0
    [ -f "$busybox" ] && length=$(stat -c %s "$busybox") || busybox=/dev/null
    tar -C "$all" --owner=0 --group=0 -cf "$work/all.tar" .
    # As busybox reads it: with this check and no filter.
    xz -9e --check=crc32 "$work/all.tar"
    { echo "gpu.pack $length"; cat "$busybox" "$work/all.tar.xz"; } > .gpu/gpu.pack.part
    find .gpu -mindepth 1 ! -name gpu.pack.part -delete
    mv .gpu/gpu.pack.part .gpu/gpu.pack
    (cd "$all" && du -ak . | sort -rn | head -12)
    rm -r "$work"
    local bytes
    bytes=$(stat -c %s .gpu/gpu.pack)
    echo ".gpu/gpu.pack: $((bytes >> 20)) MiB"
    if [ "$bytes" -gt $((40 << 20)) ]; then
        echo "that is more than 40 MiB" >&2
        exit 1
    fi
    echo "Bring benches/ and .gpu/, and there run: OUT=DIR benches/gpu.sh --here"
}

# Debian's packages, unpacked: libraries and xz; busybox beside them.
pack_libraries() {
    command -v apt-get >/dev/null || return 1
    local debs=$1/debs library
    mkdir -p "$debs/root"
    (cd "$debs" && apt-get download -qq "${packages[@]}" busybox-static 2>/dev/null)
    for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" "$debs/root"; done
    # The names that programs ask for, each a file.
    for library in "$debs"/root/{usr/,}lib/x86_64-linux-gnu/*.so.*; do
        [ -e "$library" ] || continue
        name=$(objdump -p "$library" | sed -n 's/^ *SONAME *//p')
        [ -z "$name" ] || cp -L "$library" "$1/all/lib/$name"
    done
    cp "$debs/root/usr/bin/xz" "$1/all/xz"
}

# llama.cpp's prebuilt Vulkan library, and a program of ours over it.
pack_peer() {
    local here=benches/peer-llama modules=benches/peer-llama/node_modules from
    command -v cc >/dev/null || return 1
    if [ ! -d "$modules/node-llama-cpp" ]; then
        npm install --prefix "$here" --no-package-lock --ignore-scripts --no-audit --no-fund --silent >&2 || return 1
    fi
    from=$modules/@node-llama-cpp/linux-x64-vulkan/bins/linux-x64-vulkan
    cp "$from"/libllama.vulkan*.so "$from"/libggml.vulkan*.so "$from"/libggml-base.so "$from"/libggml-vulkan.so "$1/all/peer/"
    # Of its CPU libraries those that any machine with a graphics card can use.
    for name in x64 haswell skylakex zen4; do cp "$from/libggml-cpu-$name.so" "$1/all/peer/"; done
    # The headers of that very version lie in the package as a repository.
    git clone --quiet --no-checkout "$modules/node-llama-cpp/llama/gitRelease.bundle" "$1/llama" 2>/dev/null || return 1
    (cd "$1/llama" && git checkout --quiet "$(git rev-list --all -n1)" -- include ggml/include) || return 1
    cc -O2 -o "$1/all/peer/peer" $here/peer.c -I"$1/llama/include" -I"$1/llama/ggml/include" \
        "$1"/all/peer/libllama.vulkan*.so "$1"/all/peer/libggml.vulkan*.so "$1/all/peer/libggml-base.so" \
        -Wl,-rpath,"\$ORIGIN" -Wl,--allow-shlib-undefined -lm || return 1
    strip "$1/all/peer/peer"
    pack_cuda "$1" || echo "left out: llama.cpp's CUDA (no python3, or it was not fetched)"
}

# Its prebuilt CUDA library, with machine code of one architecture, which takes minutes the first time; CUDA's own
# libraries must be there already.
pack_cuda() {
    local from=benches/peer-llama/node_modules/@node-llama-cpp/linux-x64-cuda/bins/linux-x64-cuda/libggml-cuda.so
    local kept=benches/peer-llama/node_modules/.cubins tools
    [ -f "$from" ] && command -v python3 >/dev/null || return 1
    if [ ! -x "$kept/tools/nvidia/cu13/bin/ptxas" ]; then
        rm -rf "$kept/tools"
        python3 -m pip install --quiet --no-deps --target "$kept/tools" zstandard "nvidia-cuda-nvcc==13.0.*" >&2 || return 1
        chmod +x "$kept"/tools/nvidia/cu13/bin/*
    fi
    tools=$kept/tools/nvidia/cu13/bin
    if PYTHONPATH=$kept/tools python3 benches/peer-llama/assemble_cuda.py "$from" "$1/libggml-cuda.so" "$tools" "$kept"; then
        mkdir -p "$1/all/peer-cuda"
        mv "$1/libggml-cuda.so" "$1/all/peer-cuda/"
    else
        return 1
    fi
}

case "${1:-}" in
    --pack) pack; exit ;;
    --here) shift ;;
    *) usage; exit 2 ;;
esac

# --- there ---------------------------------------------------------------------------------------------------------

all_seconds=${SECONDS_IN_ALL:-560}
# Some are kept back for the archive of the logs.
last=$((all_seconds - 8))
wanted_device=${1:-}
out=${OUT:-benches/results}
mkdir -p "$out"
out=$(cd "$out" && pwd)
store=${ENGINE_GPU_STORE:-$(mktemp -d)}
logs=$store/logs
mkdir -p "$store/all" "$logs" "$store/home" "$store/runtime"
export ENGINE_HOME=$store/home XDG_RUNTIME_DIR=$store/runtime HOME=${HOME:-$store}
engine=$store/all/engine
rows=$store/rows sections=$store/sections
: > "$rows"; : > "$sections"
started=$(date -u +%Y-%m-%dT%H:%MZ)
device="" name="" software="" tuned=""

# --- the report ----------------------------------------------------------------------------------------------------

row() { printf '| %s | %s | %s | %s | %s |\n' "$1" "$2" "$3" "$4" "$SECONDS" >> "$rows"; }
section() { printf '\n## %s\n\n' "$1" >> "$sections"; cat >> "$sections"; }

# Writes gpu.md whole, from what there is.
report() {
    local step
    {
        echo "# GPU measurements, $started"
        echo
        echo "Device: ${name:-none yet}${device:+ ($device)}${software:+, a software driver: small models and sizes, of which no speed says anything}. After $SECONDS of $all_seconds s."
        echo
        echo "| program | model | test | tok/s, or what came of it | at s |"
        echo "|---|---|---|---:|---:|"
        cat "$rows"
        if [ ${#waiting[@]} -gt 0 ]; then
            echo
            echo "Not reached: ${waiting[*]%%|*}."
        fi
        cat "$sections"
    } > "$out/gpu.md.part"
    mv "$out/gpu.md.part" "$out/gpu.md"
}

# logged NAME SECONDS COMMAND...: runs it within its time and what is left, into $logs/NAME.log; answers its exit code.
logged() {
    local log=$logs/$1.log seconds=$2 left=$((last - SECONDS)) status=0
    shift 2
    [ "$left" -ge 1 ] || { echo "no time left" > "$log"; return 124; }
    [ "$seconds" -le "$left" ] || seconds=$left
    echo "$ $*" > "$log"
    timeout -k 3 "$seconds" "$@" >> "$log" 2>&1 < /dev/null || status=$?
    echo "exit $status" >> "$log"
    return "$status"
}

# why LOG STATUS: what went wrong, in a line.
why() {
    local line first=""
    [ "$2" = 124 ] || [ "$2" = 137 ] && { echo "over its time"; return; }
    while IFS= read -r line; do
        case "$line" in
            error*|*panicked*|*"failed to"*|peer:*|*"cannot open"*|*"not found"*) first=$line; break ;;
        esac
    done < "$1"
    first=${first//|/\/}
    first=${first:0:160}
    echo "exit $2: ${first:-see the log}"
}

# speeds NAME PROGRAM MODEL: rows of a table of tests in $logs/NAME.log; fails if there is none.
speeds() {
    local line cells count found=1
    while IFS= read -r line; do
        case "$line" in
            "|"*" ± "*)
                IFS='|' read -ra cells <<< "$line"
                count=${#cells[@]}
                row "$2" "$3" "$(echo ${cells[count - 2]})" "$(echo ${cells[count - 1]})"
                found=0 ;;
        esac
    done < "$logs/$1.log"
    return $found
}

# --- what is measured ----------------------------------------------------------------------------------------------

# speeds_of NAME MODEL LIMIT SIZES OPTION...: engine's speeds; SIZES are words in one argument.
speeds_of() {
    local name=$1 model status=0 limit=$3 sizes=$4
    model=$(sized "$2")
    shift 4
    # shellcheck disable=SC2086 # words
    logged "$name" "$limit" "$engine" bench --synthetic "$model" --device "$device" $sizes "$@" || status=$?
    speeds "$name" "engine$tuned${*:+ $*}" "$model" || true
    [ $status = 0 ] || row "engine$tuned${*:+ $*}" "$model" "" "$(why "$logs/$name.log" $status)"
}

# A model's name; for a software driver a far smaller one's of the same formats and ops.
sized() {
    case "${software:+$1}" in
        "") echo "$1" ;;
        llama-*) echo "smollm2-135m/2:${1#*:}" ;;
        *) echo "${1/:/\/1:}" ;;
    esac
}

# for_software OF_A_CARD OF_SOFTWARE: one of the two.
for_software() { if [ -n "$software" ]; then echo "$2"; else echo "$1"; fi; }

# bench NAME MODEL LIMIT OPTION...
bench() { speeds_of "$1" "$2" "$3" "$(for_software "-p 512 -n 128 -r 3" "-p 16 -n 4 -r 1")" "${@:4}"; }

# depths NAME MODEL LIMIT: the same behind 480 and 4,096 positions.
depths() { speeds_of "$1" "$2" "$3" "$(for_software "-p 512 -n 32 -r 2" "-p 8 -n 2 -r 1")" -d "$(for_software 480,4096 64)"; }

# peer NAME MODEL LIMIT: llama.cpp's Vulkan, and its CUDA where that can run, on a file of the same made-up model.
peer() {
    local name=$1 model limit=$3 file=$store/model.gguf status=0 backend
    model=$(sized "$2")
    if [ ! -x "$store/all/peer/peer" ]; then
        row llama.cpp "$model" "" "was not brought"
        return
    fi
    if logged "$name-file" 60 "$engine" synth "$file" "$model"; then
        for backend in vulkan cuda; do
            status=0
            [ $backend = vulkan ] || can_cuda || continue
            peer_run "$name-$backend" $backend "$limit" $(for_software "512 128 3" "16 4 1") || status=$?
            # Its shaders for that take a software driver minutes.
            [ $status != 0 ] || [ -n "$software" ] || peer_run "$name-$backend-depth" $backend "$limit" 512 32 2 480 || true
            [ $status != 0 ] || [ -n "$software" ] || [ "$name" != peer-8b ] || peer_run "$name-$backend-depth4096" $backend "$limit" 512 32 2 4096 || true
        done
    else
        row llama.cpp "$model" "" "$(why "$logs/$name-file.log" $?)"
    fi
    rm -f "$file"
}

# peer_run NAME BACKEND LIMIT NUMBER...: of the file that lies there, into the rows; `model` is its name.
peer_run() {
    local name=$1 backend=$2 limit=$3 status=0 folder=$store/all/peer
    shift 3
    [ "$backend" = vulkan ] || folder=$store/all/peer-cuda
    logged "$name" "$limit" env GGML_VK_VISIBLE_DEVICES="${device#vulkan:}" CUDA_CACHE_PATH="$store/cuda" LD_LIBRARY_PATH="$store/all/peer:$LD_LIBRARY_PATH${cuda_folder:+:$cuda_folder}" "$store/all/peer/peer" "$folder" "$file" "$@" || status=$?
    speeds "$name" "llama.cpp $backend" "$model" || true
    [ $status = 0 ] || row "llama.cpp $backend" "$model" "" "$(why "$logs/$name.log" $status)"
    return $status
}

# Whether llama.cpp's CUDA was brought and CUDA's libraries are here; finds their folder once.
cuda_folder="" cuda_sought=""
can_cuda() {
    [ -f "$store/all/peer-cuda/libggml-cuda.so" ] && [ -z "$software" ] || return 1
    if [ -z "$cuda_sought" ]; then
        cuda_sought=yes
        local runtime folders=""
        for runtime in cublas cudart; do
            runtime=$(timeout 20 find / \( -path /proc -o -path /sys \) -prune -o -name "lib$runtime.so.13" -not -path "*/stubs/*" -print -quit 2>/dev/null || true)
            [ -n "$runtime" ] || { row "llama.cpp cuda" "" "" "CUDA 13's libraries are not here"; return 1; }
            case ":$folders:" in *":${runtime%/*}:"*) ;; *) folders+=${folders:+:}${runtime%/*} ;; esac
        done
        cuda_folder=$folders
        # Its own libraries beside the CPU's of the other folder.
        ln -sf "$store"/all/peer/libggml-cpu-*.so "$store/all/peer-cuda/"
    fi
    [ -n "$cuda_folder" ]
}

# profile NAME MODEL LIMIT PROMPT OPTION...: what each kernel takes; the tables go into the report.
profile() {
    local name=$1 model limit=$3 prompt=$4 status=0
    model=$(sized "$2")
    shift 4
    [ -z "$software" ] || [ "$prompt" = 0 ] || prompt=16
    logged "$name" "$limit" "$engine" bench --synthetic "$model" --device "$device" --profile -p "$prompt" -r "$(for_software 5 2)" "$@" || status=$?
    if [ $status = 0 ]; then
        row "engine --profile${*:+ $*}" "$model" "" "see below"
        tail -n +2 "$logs/$name.log" | head -n -1 | section "Kernels of $model${*:+, $*}"
    else
        row "engine --profile${*:+ $*}" "$model" "" "$(why "$logs/$name.log" $status)"
    fi
}

step_devices() {
    find_device
    { echo '```'; cat "$logs/devices.log"; echo '```'; } | section "Devices"
    [ -n "$device" ] || return 0
    row "engine" "" "device" "${name}"
    if command -v nvidia-smi >/dev/null; then
        logged clocks 10 nvidia-smi --query-gpu=name,driver_version,pci.bus_id,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit --format=csv || true
        { echo '```'; cat "$logs/clocks.log"; echo '```'; } | section "Clocks"
    fi
}

# of_test NAME LIMIT ARGUMENT...: a test program against the reference.
of_test() {
    local name=$1 limit=$2 status=0 line passed=0 failed=() result threads
    shift 2
    threads=$(nproc)
    if [ "$threads" -gt 8 ]; then threads=8; fi
    logged "test-$name" "$limit" env ENGINE_TEST_DEVICE="$device" ENGINE_TEST_GOLDENS="$store/all/goldens" "$store/all/test-$name" --test-threads="$threads" "$@" || status=$?
    while IFS= read -r line; do
        case "$line" in
            "test "*" ... ok") passed=$((passed + 1)) ;;
            "test "*" ... FAILED") line=${line#test }; failed+=("${line%% *}") ;;
        esac
    done < "$logs/test-$name.log"
    result="$passed passed, ${#failed[@]} failed${failed:+: ${failed[*]}}"
    if [ $status = 124 ] || [ $status = 137 ]; then
        result+="; over its time"
    elif [ $status != 0 ] && [ ${#failed[@]} = 0 ]; then
        result+="; $(why "$logs/test-$name.log" $status)"
    fi
    row "test $name" "tiny models" "" "$result"
}
step_self_test() { of_test self_test "$(for_software 60 30)"; }
step_ops() { of_test ops "$(for_software 75 30)"; }

step_roofline() {
    local status=0
    logged roofline 30 "$engine" bench --roofline --device "$device" || status=$?
    if [ $status = 0 ]; then
        row "engine --roofline" "" "" "see below"
        tail -n +2 "$logs/roofline.log" | head -n -1 | section Roofline
    else
        row "engine --roofline" "" "" "$(why "$logs/roofline.log" $status)"
    fi
}

step_tune() {
    local model status
    for model in llama-8b:q4_k_m llama-1b:q4_k_m; do
        status=0
        logged "tune-$model" 40 "$engine" tune --synthetic "$(sized "$model")" --device "$device" --seconds "$([ -n "$software" ] && echo 5 || echo 18)" --verbose || status=$?
        row "engine tune" "$(sized "$model")" "" "$([ $status = 0 ] && echo "see the log" || why "$logs/tune-$model.log" $status)"
    done
    # What is measured from here on is measured with what was found.
    tuned=", tuned"
}

# Each: its name, and the command. In the order of what is worth most.
plan=(
    "devices|step_devices"
    "self_test|step_self_test"
    "ops|step_ops"
    "roofline|step_roofline"
    "8b|bench 8b llama-8b:q4_k_m 60"
    "8b-int8|bench 8b-int8 llama-8b:q4_k_m 45 --precision int8"
    "8b-f32|bench 8b-f32 llama-8b:q4_k_m 45 --precision f32"
    "1b|bench 1b llama-1b:q4_k_m 30"
    "smollm2|bench smollm2 smollm2-135m:q4_1 30"
    "8b-q8_0|bench 8b-q8_0 llama-8b:q8_0 45"
    "gemma3-4b|bench gemma3-4b gemma3-4b:q4_k_m 45"
    "gpt-oss|bench gpt-oss gpt-oss-20b:mxfp4_moe 60"
    "8b-depth|depths 8b-depth llama-8b:q4_k_m 60"
    "1b-depth|depths 1b-depth llama-1b:q4_k_m 30"
    "profile-8b|profile profile-8b llama-8b:q4_k_m 40 512"
    "profile-8b-f32|profile profile-8b-f32 llama-8b:q4_k_m 40 512 --precision f32"
    "profile-8b-480|profile profile-8b-480 llama-8b:q4_k_m 40 0 -d 480"
    "profile-1b|profile profile-1b llama-1b:q4_k_m 30 512"
    "peer-8b|peer peer-8b llama-8b:q4_k_m 60"
    "peer-1b|peer peer-1b llama-1b:q4_k_m 30"
    "profile-8b-int8|profile profile-8b-int8 llama-8b:q4_k_m 40 512 --precision int8"
    "tune|step_tune"
    "8b-tuned|bench 8b-tuned llama-8b:q4_k_m 45"
    "1b-tuned|bench 1b-tuned llama-1b:q4_k_m 30"
    "peer-gpt-oss|peer peer-gpt-oss gpt-oss-20b:mxfp4_moe 60"
    "profile-gpt-oss|profile profile-gpt-oss gpt-oss-20b:mxfp4_moe 45 512"
)

# --- getting ready -------------------------------------------------------------------------------------------------

# Takes the archive out of the pack, by busybox where the machine has no tar or xz.
unpack() {
    local pack=.gpu/gpu.pack head length offset
    [ -f "$pack" ] || { echo "benches/gpu.sh: $pack is not there; make it by benches/gpu.sh --pack" >&2; exit 1; }
    IFS= read -r head < "$pack"
    length=${head##* }
    offset=$((${#head} + 2))
    busybox=""
    if [ "$length" -gt 0 ]; then
        busybox=$store/busybox
        head -c $((offset - 1 + length)) "$pack" | tail -c "$length" > "$busybox"
        chmod +x "$busybox"
    fi
    if [ -n "$busybox" ]; then
        tail -c +$((offset + length)) "$pack" | "$busybox" unxz | "$busybox" tar -x -C "$store/all" -f -
    else
        tail -c +$((offset + length)) "$pack" | tar -xJ -C "$store/all" -f -
    fi
}

# Lends the programs those of our libraries that the machine has not.
use_libraries() {
    local library name folder has
    mkdir -p "$store/lib"
    local known=""
    if command -v ldconfig >/dev/null; then known=$(ldconfig -p 2>/dev/null || true); fi
    for library in "$store"/all/lib/*.so*; do
        [ -e "$library" ] || continue
        name=${library##*/}
        has=""
        case "$known" in *"$name ("*) has=yes ;; esac
        for folder in /lib /usr/lib /lib64 /usr/lib64 /lib/x86_64-linux-gnu /usr/lib/x86_64-linux-gnu; do
            if [ -e "$folder/$name" ]; then has=yes; fi
        done
        [ -n "$has" ] || ln -sf "$library" "$store/lib/$name"
    done
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$store/lib
    # Where containers get NVIDIA's driver.
    if [ -d /usr/local/nvidia/lib64 ]; then LD_LIBRARY_PATH+=:/usr/local/nvidia/lib64; fi
    ls "$store/lib" > "$logs/libraries-lent.log"
}

# The first real Vulkan device, else the first software driver; of `engine devices`.
choose_device() {
    local line id rest best="" any=""
    device="" name="" software=""
    while IFS= read -r line; do
        case "$line" in
            vulkan:*)
                id=${line%% *}
                rest=${line#"$id"}
                rest=$(echo $rest)
                if [ -n "$wanted_device" ] && [ "$id" != "$wanted_device" ]; then continue; fi
                if [[ $rest == *"(software)" ]]; then
                    [ -n "$any" ] || any=$id any_name=$rest
                elif [ -z "$best" ]; then
                    best=$id best_name=$rest
                fi ;;
        esac
    done < "$logs/devices.log"
    if [ -n "$best" ]; then
        device=$best name=$best_name
    elif [ -n "$any" ]; then
        device=$any name=$any_name software=yes
    fi
}

# Finds a device; where there is no real one looks for drivers that the loader does not see.
find_device() {
    local file library
    logged devices 20 "$engine" devices || true
    choose_device
    [ -z "$device" ] || [ -n "$software" ] || return 0
    for file in /usr/local/nvidia/share/vulkan/icd.d/*.json /usr/local/nvidia/{,lib64/,lib/}nvidia_icd*.json \
        {/usr/local/share,/usr/share,/etc}/vulkan/icd.d/nvidia_icd*.json /usr/share/nvidia/nvidia_icd*.json; do
        if [ -f "$file" ] && try_driver "$file"; then return 0; fi
    done
    # A driver's library without its description.
    for library in /usr/local/nvidia/lib64/lib{EGL,GLX}_nvidia.so.0 /usr/lib/x86_64-linux-gnu/lib{EGL,GLX}_nvidia.so.0 \
        /usr/lib64/lib{EGL,GLX}_nvidia.so.0; do
        [ -e "$library" ] || continue
        file=$store/icd-${library##*/}.json
        echo "{\"file_format_version\": \"1.0.0\", \"ICD\": {\"library_path\": \"$library\", \"api_version\": \"1.3.0\"}}" > "$file"
        if try_driver "$file"; then return 0; fi
    done
    logged devices 20 "$engine" devices || true
    choose_device
}

# Whether a driver's description brings a real device; if so it stays in use.
try_driver() {
    local before=${VK_DRIVER_FILES:-}
    export VK_DRIVER_FILES=$1
    logged devices 20 "$engine" devices || true
    choose_device
    if [ -n "$device" ] && [ -z "$software" ]; then return 0; fi
    if [ -n "$before" ]; then VK_DRIVER_FILES=$before; else unset VK_DRIVER_FILES; fi
    return 1
}

# One archive of the logs: by xz, the machine's or ours.
keep_logs() {
    local xz=xz tar=(tar)
    command -v xz >/dev/null || xz=$store/all/xz
    command -v tar >/dev/null || tar=("$busybox" tar)
    "${tar[@]}" -C "$store" -cf "$store/logs.tar" logs && "$xz" -6 -c "$store/logs.tar" > "$out/logs.tar.xz"
}

# --- the run -------------------------------------------------------------------------------------------------------

waiting=("${plan[@]}")
unpack
use_libraries
status=0
for entry in "${plan[@]}"; do
    waiting=("${waiting[@]:1}")
    step=${entry%%|*}
    if [ -n "${ONLY:-}" ] && [[ " devices $ONLY " != *" $step "* ]]; then continue; fi
    if [ $((last - SECONDS)) -lt 3 ]; then
        waiting=("$entry" "${waiting[@]}")
        break
    fi
    echo "$SECONDS s: $step" >&2
    # shellcheck disable=SC2086 # a command and its words
    ${entry#*|} || row "benches/gpu.sh" "" "$step" "the step itself failed"
    report
    if [ "$step" = devices ] && [ -z "$device" ]; then
        row "benches/gpu.sh" "" "devices" "there is no Vulkan device: see devices.log"
        status=1
        break
    fi
done
report
keep_logs || { echo "benches/gpu.sh: the logs could not be packed; they lie in $logs" >&2; status=1; }
cat "$out/gpu.md"
[ -n "${ENGINE_GPU_STORE:-}" ] || rm -rf "$store"
exit $status
