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
(
    for file in tests/kernels/triton/test_*.py; do  # most of it is compiling: a process for each file
        timeout 200 "$python" -m pytest -q -m "not slow" "$file" >"$out/$(basename "$file" .py).txt" 2>&1 &
    done
    wait
)
tail -qn 1 "$out"/test_*.txt
part engines 60 "$python" examples/bench/gpu_engines.py --only formats
part engine-tests 100 "$python" -m pytest -q -m "not slow and not load" tests/runtime/engine/test_{core,constrained,sampling,logprobs}.py
part bench 170 "$python" examples/bench/kernel_bench.py --quick --limit 150 -o "$out/kernels.json"
part steps 60 "$python" examples/bench/gpu_engines.py --only steps
