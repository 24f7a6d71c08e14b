"""What each engine answers, in its own form: 7 tokens of prompt, 3 of output."""

from __future__ import annotations

from typing import Any

from tests.support.remote_server import Reply, sse

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def chat_reply(text: str, finish: str = "stop", **more: Any) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **more}
    return Reply({"id": "c1", "choices": [choice], "usage": USAGE})


def text_reply(text: str, finish: str = "stop", **more: Any) -> Reply:
    choice = {"index": 0, "text": text, "finish_reason": finish, **more}
    return Reply({"id": "c1", "choices": [choice], "usage": USAGE})


def generate_reply(text: str, finish: Any = None) -> Reply:
    finish = finish or {"type": "stop", "matched": 2}
    meta = {"prompt_tokens": 7, "completion_tokens": 3, "cached_tokens": 4, "finish_reason": finish}
    return Reply({"text": text, "output_ids": [5, 6, 2], "meta_info": meta})


def llama_reply(text: str) -> Reply:
    timings = {"prompt_n": 3}
    return Reply(
        {"content": text, "stop": True, "stop_type": "word", "stopping_word": ".", "tokens_predicted": 3,
         "tokens_evaluated": 7, "timings": timings}
    )  # fmt: skip


def ollama_reply(text: str, key: str) -> Reply:
    said: Any = {"role": "assistant", "content": text} if key == "message" else text
    return Reply({key: said, "done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3})


def tgi_reply(*texts: str, finish: str = "eos_token") -> Reply:
    events: list[Any] = [
        {"index": at, "token": {"id": at, "text": text, "logprob": -0.5, "special": False}, "details": None}
        for at, text in enumerate(texts)
    ]
    details = {"finish_reason": finish, "generated_tokens": 3, "input_length": 7}
    if finish == "eos_token":
        events.append(
            {"token": {"id": 2, "text": "</s>", "logprob": -0.1, "special": True}, "details": details}
        )
    else:
        events[-1]["details"] = details
    return Reply(chunks=[sse(*events, done=False)])


def message_reply(text: str, stop: str = "end_turn") -> Reply:
    usage = {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 3}
    content = [{"type": "text", "text": text}]
    return Reply(
        {"type": "message", "role": "assistant", "content": content, "stop_reason": stop, "usage": usage}
    )
