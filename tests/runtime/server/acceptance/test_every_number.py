"""Where each acceptance test (section 2) and load test (3.2) of serving.md is: a table that cannot go stale unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[3]
HERE = "runtime/server/acceptance"
ACCEPTANCE = {
    1: f"{HERE}/test_values.py::test_1_prompt_tokens_that_do_not_exist",
    2: f"{HERE}/test_values.py::test_2_huge_n",
    3: f"{HERE}/test_values.py::test_3_logprob_bombs",
    4: f"{HERE}/test_values.py::test_4_fields_of_token_ids",
    5: f"{HERE}/test_constraints.py::test_5_wrong_constraints_disturb_nobody",
    7: "runtime/server/chat/test_reading.py::test_little_is_held_back_so_long_outputs_take_time_in_proportion",
    8: "runtime/tokenizer/test_conversation.py::test_templates_cannot_take_much",
    9: "runtime/server/process/test_isolation.py::test_nothing_is_pickled",
    10: f"{HERE}/test_outside.py::test_12_the_server_connects_to_nobody",
    11: f"{HERE}/test_outside.py::test_11_code_that_a_model_brings_along_is_never_executed",
    12: f"{HERE}/test_outside.py::test_12_the_server_connects_to_nobody",
    13: "runtime/server/http/test_auth.py::test_without_a_key_nothing_is_open_but_health",
    14: f"{HERE}/test_tenancy.py::test_14_no_key_finds_prefixes_of_another",
    15: f"{HERE}/test_load.py::test_t2_15_a_storm_of_aborts_leaves_nothing",
    16: "runtime/engine/test_aborts.py::test_aborts_at_any_stage",
    17: f"{HERE}/test_values.py::test_17_what_can_never_fit_is_refused_at_once",
    18: f"{HERE}/test_load.py::test_18_memory_does_not_grow_with_requests",
    19: "runtime/server/http/test_connection.py::test_a_million_chunks_of_a_byte_are_cut_off",
    20: f"{HERE}/test_values.py::test_20_the_edges_of_every_field",
    21: "runtime/server/process/test_drain.py::test_what_runs_ends_within_the_grace_and_nothing_new_is_taken",
    22: f"{HERE}/test_load.py::test_t13_22_clients_that_do_not_read_cost_nobody_anything",
    23: "runtime/server/http/test_errors.py::test_what_went_wrong_inside_is_told_to_nobody_but_the_log",
}
LOAD = {
    1: f"{HERE}/test_load.py::test_t1_many_streams_at_once",
    2: f"{HERE}/test_load.py::test_t2_15_a_storm_of_aborts_leaves_nothing",
    3: f"{HERE}/test_load.py::test_t3_overload_is_refused_and_what_is_taken_is_done",
    4: "runtime/server/process/test_engine_death.py::test_two_hundred_streams_twenty_times",
    5: "runtime/server/process/test_engine_death.py::test_a_stopped_engine_is_given_up_and_replaced",
    6: "runtime/server/process/test_drain.py::test_what_takes_longer_than_the_grace_is_cut_cleanly",
    7: "runtime/server/process/test_drain.py::test_an_engine_does_not_outlive_its_front",
    8: "runtime/engine/test_pressure.py::test_200_in_and_200_out_on_64_pages",
    9: "runtime/cache/test_radix_cache.py::",
    10: "runtime/server/test_openapi.py::test_schemathesis_finds_nothing",
    11: "runtime/server/http/test_bodies.py::test_what_is_not_json_is_an_error_everywhere",
    12: f"{HERE}/test_load.py::test_t12_slow_clients_are_closed_and_others_are_served",
    13: f"{HERE}/test_load.py::test_t13_22_clients_that_do_not_read_cost_nobody_anything",
    15: "runtime/constrain/::",
    18: f"{HERE}/test_load.py::test_t18_the_limit_follows_from_the_files_there_are",
    19: "runtime/engine/test_aborts.py::test_an_engine_survives_failed_allocations",
    21: f"{HERE}/test_tenancy.py::test_t21_a_key_that_floods_does_not_stand_in_the_way_of_another",
    23: f"{HERE}/test_load.py::test_t23_a_prompt_alone_and_among_many_gets_the_same",
}


@pytest.mark.parametrize("where", sorted({*ACCEPTANCE.values(), *LOAD.values()}))
def test_it_is_there(where: str) -> None:
    path, _, name = where.partition("::")
    assert (TESTS / path).exists()
    if name:
        assert f"def {name}(" in (TESTS / path).read_text()
