#!/usr/bin/env bash
# What can only be seen on a GPU, in one run of under ten minutes:
#
#     bash examples/bench/gpu.sh OUT
#
# The kernels' tests on the GPU itself, the engine's tests with its models there, whole engines in bfloat16, in fp8 and
# with fp8 keys and values, then the numbers of kernel_bench.py. What was printed and kernels.json are left in OUT.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=$1
mkdir -p "$out"
python=${PYTHON:-python3}

part() {
    local name=$1 seconds=$2
    shift 2
    echo "== $name"
    timeout "$seconds" "$@" >"$out/$name.txt" 2>&1
    local code=$?
    tail -n 15 "$out/$name.txt"
    echo "== $name ended with $code"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
part kernels 140 "$python" -m pytest -q -m "not slow" tests/kernels/triton
part engines 60 "$python" examples/bench/gpu_engines.py
part engine-tests 140 "$python" -m pytest -q -m "not slow and not load" tests/runtime/engine tests/runtime/models/test_families.py
part bench 255 "$python" examples/bench/kernel_bench.py --limit 230 -o "$out/kernels.json"
