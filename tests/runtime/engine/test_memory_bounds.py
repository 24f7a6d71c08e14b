"""What a request may take in memory beyond its KV slots."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.interpreted import only_cpu
from tests.support.small_model import make_model

PROGRAM = """
import sys
from pathlib import Path
from sgl_like.runtime.engine.engine import Engine

def kilobytes(name):
    status = Path("/proc/self/status").read_text()
    return int(status.split(name + ":")[1].split()[0])

with Engine(sys.argv[1], dtype="float32", threads=1) as engine:
    ids = [i % 251 for i in range(4096)]
    wanted = {"return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 20}
    engine.generate(input_ids=ids, sampling_params={"max_new_tokens": 1})
    engine.generate(input_ids=ids[:20], sampling_params={"max_new_tokens": 1}, **wanted)
    engine.flush_cache()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = kilobytes("VmRSS")
    out = engine.generate(input_ids=ids, sampling_params={"max_new_tokens": 1}, **wanted)
    assert len(out["meta_info"]["input_top_logprobs"]) == 4096
    print(kilobytes("VmHWM") - before)
"""


@only_cpu("logits are not in the process's memory on a GPU")
def test_logprobs_of_a_long_prompt_are_computed_in_pieces(tmp_path: Path) -> None:
    """All at once, 4,096 rows of 150,000 logits would take 2.4 GB."""
    folder = make_model(tmp_path, vocab_size=150_000, max_position_embeddings=8192)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50 * 1024, f"{int(done.stdout) / 1024:.0f} MB"
