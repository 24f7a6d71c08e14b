"""Far more work than KV slots: everything ends, by retraction, with the output that it has with plenty of room."""

from __future__ import annotations

import random
from pathlib import Path

from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.engine_harness import Harness
from tests.support.interpreted import fewer
from tests.support.small_model import make_model

COUNT = fewer(100)
PATIENCE = 1000
"""Steps without coming further than ever before after which a running request counts as stuck."""


def test_200_in_and_200_out_on_64_pages(tmp_path: Path) -> None:
    folder = make_model(tmp_path, max_position_embeddings=512)
    params = SamplingParams.from_dict({"max_new_tokens": 200, "temperature": 0.0, "ignore_eos": True})
    rng = random.Random(1)
    requests = [GenerateRequest(rng.choices(range(256), k=200), params, rid=str(i)) for i in range(COUNT)]
    free = Harness(folder, slots=512 * COUNT, running=COUNT, budget=2048)
    for request in requests:
        free.add(request)
    while free.core.has_work:
        free.core.step()
    harness = Harness(folder, slots=64 * 16, running=64, budget=512, page_size=16)
    for request in requests:
        harness.add(request)
    furthest = {request.rid: (0, 0) for request in requests}  # tokens, and the step in which it had so many
    step = 0
    while harness.core.has_work:
        harness.core.step()
        if step % 20 == 0:
            harness.core.check_invariants()
        for running in harness.scheduler.running:
            if running.computed > furthest[running.rid][0]:
                furthest[running.rid] = (running.computed, step)
            assert step - furthest[running.rid][1] <= PATIENCE
        step += 1
    assert harness.scheduler.retracted_total > 0
    for request in requests:
        result, expected = harness.results[request.rid], free.results[request.rid]
        assert len(result.token_ids) == 200 and result.token_ids == expected.token_ids
    assert harness.core.flush_cache() and harness.memory.allocator.free_count == 64 * 16
