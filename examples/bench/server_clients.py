"""Clients that others wrote, unmodified, against our server; prints which of their calls work.

    python examples/bench/server_clients.py --python VENV/bin/python [--only langchain ...] [--guidellm ...]

VENV has langchain-openai, instructor and litellm. Load generators: ``--guidellm`` and ``--aiperf`` take the path of the
command, in whatever environment it is; ``--sglang`` the folder of SGLang's unpacked wheel, of which the one module runs
in VENV. What the embedded model answers is not looked at, but all that a schema promises is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

MODEL = "tiny"
QUESTION = "Play some jazz by Miles Davis"
Check = tuple[str, Callable[[], object]]


def langchain(url: str) -> Iterator[Check]:
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
    from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
    from pydantic import BaseModel, Field

    class Song(BaseModel):
        """A song to be played."""

        artist: str = Field(max_length=20)
        stars: int = Field(ge=1, le=5)

    about: Any = {"base_url": f"{url}/v1", "api_key": "none", "model": MODEL}
    model = ChatOpenAI(**about, temperature=0, max_tokens=64)

    def stream() -> None:
        parts = list(model.stream(QUESTION, stream_usage=True))
        assert len(parts) > 2
        whole = parts[0]
        for part in parts[1:]:
            whole += part
        assert whole.usage_metadata is not None and whole.usage_metadata["output_tokens"] > 0

    def tool() -> None:
        called = model.bind_tools([Song], tool_choice="Song").invoke(QUESTION)
        assert isinstance(called, AIMessage) and called.tool_calls[0]["name"] == "Song"
        Song.model_validate(called.tool_calls[0]["args"])
        answer = ToolMessage("done", tool_call_id=called.tool_calls[0]["id"] or "")
        assert isinstance(model.invoke([HumanMessage(QUESTION), called, answer]).content, str)

    def tool_stream() -> None:
        parts = list(model.bind_tools([Song], tool_choice="required").stream(QUESTION))
        whole = parts[0]
        for part in parts[1:]:
            whole += part
        Song.model_validate(whole.tool_calls[0]["args"])  # type: ignore[attr-defined]

    def structured(method: Any) -> None:
        found = model.with_structured_output(Song, method=method).invoke(QUESTION)
        assert isinstance(found, Song)

    async def many() -> None:
        found = await asyncio.gather(
            *(model.ainvoke([SystemMessage("Be brief."), QUESTION]) for _ in range(8))
        )
        assert len({answer.content for answer in found}) == 1

    yield "chat", lambda: model.invoke(QUESTION).content
    yield "stream with usage", stream
    yield "batch of 8, asynchronous", lambda: asyncio.run(many())
    yield "tool call and its result", tool
    yield "tool call, streamed", tool_stream
    yield "structured output, json_schema", lambda: structured("json_schema")
    yield "structured output, function_calling", lambda: structured("function_calling")
    yield (
        "structured output, streamed",
        lambda: list(model.with_structured_output(Song).stream(QUESTION))[-1].stars,
    )
    yield (
        "log-probabilities",
        lambda: model.bind(logprobs=True).invoke(QUESTION).response_metadata["logprobs"]["content"],
    )
    yield "completions", lambda: OpenAI(**about, max_tokens=8).invoke(QUESTION)
    yield (
        "responses",
        lambda: ChatOpenAI(**about, use_responses_api=True, max_tokens=32).invoke(QUESTION).content,
    )
    embeddings = OpenAIEmbeddings(**about, check_embedding_ctx_length=False)
    yield "embeddings", lambda: len(embeddings.embed_documents(["a", "b"])[1])


def instructor(url: str) -> Iterator[Check]:
    import instructor as library
    import openai
    from pydantic import BaseModel, Field

    class Song(BaseModel):
        """A song to be played."""

        artist: str = Field(max_length=20)
        stars: int = Field(ge=1, le=5)

    def ask(mode: Any, **more: Any) -> Song:
        client = library.from_openai(openai.OpenAI(base_url=f"{url}/v1", api_key="none"), mode=mode)
        messages: Any = [{"role": "user", "content": QUESTION}]
        return client.chat.completions.create(  # type: ignore[no-any-return]
            model=MODEL,
            response_model=Song,
            messages=messages,
            temperature=0,
            max_tokens=64,
            max_retries=0,
            **more,
        )

    def partial() -> None:
        client = library.from_openai(openai.OpenAI(base_url=f"{url}/v1", api_key="none"))
        messages: Any = [{"role": "user", "content": QUESTION}]
        parts = list(
            client.chat.completions.create_partial(
                model=MODEL, response_model=Song, messages=messages, max_tokens=64
            )
        )
        assert 1 <= parts[-1].stars <= 5

    yield "tools", lambda: ask(library.Mode.TOOLS)
    yield "tools, strict", lambda: ask(library.Mode.TOOLS_STRICT)
    yield "json_schema", lambda: ask(library.Mode.JSON_SCHEMA)
    yield "partial objects of a stream", partial


def litellm(url: str) -> Iterator[Check]:
    import litellm as library

    library.suppress_debug_info = True
    about: Any = {"api_base": f"{url}/v1", "api_key": "none", "max_tokens": 64}
    messages: Any = [{"role": "user", "content": QUESTION}]
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tool = {"type": "function", "function": {"name": "count", "parameters": schema}}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}

    def chat(**more: Any) -> Any:
        return library.completion(model=f"openai/{MODEL}", messages=messages, **about, **more)

    def stream() -> None:
        parts = list(chat(stream=True, stream_options={"include_usage": True}))
        assert len(parts) > 2 and parts[-1].usage.completion_tokens > 0

    async def many() -> None:
        calls = (library.acompletion(model=f"openai/{MODEL}", messages=messages, **about) for _ in range(8))
        assert len(await asyncio.gather(*calls)) == 8

    def tools() -> None:
        call = chat(tools=[tool], tool_choice="required").choices[0].message.tool_calls[0]
        assert isinstance(json.loads(call.function.arguments)["n"], int)

    yield "chat", lambda: chat().choices[0].message.content
    yield "stream with usage", stream
    yield "batch of 8, asynchronous", lambda: asyncio.run(many())
    yield "tools", tools
    yield "json_schema", lambda: json.loads(chat(response_format=form).choices[0].message.content)["n"]
    yield (
        "completions",
        lambda: library.text_completion(model=f"text-completion-openai/{MODEL}", prompt="a", **about),
    )
    embed: Any = {"api_base": f"{url}/v1", "api_key": "none", "encoding_format": "float"}
    yield (
        "embeddings",
        lambda: library.embedding(model=f"openai/{MODEL}", input=["a"], **embed).data[0]["embedding"],
    )
    anthropic: Any = {"api_base": url, "api_key": "none", "max_tokens": 32, "messages": messages}
    yield "anthropic", lambda: library.completion(model=f"anthropic/{MODEL}", **anthropic).choices[0]
    ollama: Any = {"api_base": url, "messages": messages}
    yield "ollama", lambda: library.completion(model=f"ollama_chat/{MODEL}", **ollama).choices[0]


LIBRARIES: dict[str, Callable[[str], Iterator[Check]]] = {
    "langchain": langchain,
    "instructor": instructor,
    "litellm": litellm,
}


def run_checks(name: str, url: str) -> None:
    """In the other environment: a JSON line for each call."""
    for what, check in LIBRARIES[name](url):
        error = ""
        try:
            check()
        except Exception as problem:
            error = "".join(traceback.format_exception_only(problem)).strip().replace("\n", " ")
        print(json.dumps([what, error]), flush=True)


def run_tool(name: str, command: Sequence[str], environment: dict[str, str], keep: str) -> bool:
    """A load generator: whether it ended well and printed what it should."""
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    good = done.returncode == 0 and keep in done.stdout
    print(done.stdout[-6000:] if not good else "\n".join(done.stdout.splitlines()[-40:]))
    show(name, "load", "" if good else f"exit code {done.returncode}")
    return good


def show(client: str, what: str, error: str) -> None:
    print(f"{'pass' if not error else 'FAIL'}  {client:12} {what:40} {error[:300]}", flush=True)


def load_generators(
    given: argparse.Namespace, url: str, folder: Path
) -> Iterator[tuple[str, list[str], dict[str, str], str]]:
    """Name, command, environment, and what the output of a good run has."""
    from sgl_like.cli.model import EMBEDDED

    tokenizer = str(EMBEDDED)
    if given.guidellm:
        yield (
            "guidellm",
            [
                given.guidellm,
                "run",
                "--backend",
                f"kind=openai_http,target={url},model={MODEL}",
                "--profile",
                "kind=concurrent,streams=8",
                "--constraint",
                "kind=max_requests,count=64",
                "--data",
                "kind=synthetic_text,prompt_tokens=64,output_tokens=16",
                "--tokenizer",
                f"kind=huggingface_auto,model={tokenizer}",
                "--disable-progress",
                "--output",
                f"kind=json,path={folder / 'guidellm.json'}",
            ],
            {"HF_HUB_OFFLINE": "1"},
            "Benchmarking complete",
        )
    if given.aiperf:
        yield (
            "aiperf",
            [
                given.aiperf,
                "profile",
                "--model",
                MODEL,
                "--url",
                url,
                "--endpoint-type",
                "chat",
                "--streaming",
                "--tokenizer",
                tokenizer,
                "--concurrency",
                "8",
                "--request-count",
                "64",
                "--synthetic-input-tokens-mean",
                "64",
                "--output-tokens-mean",
                "16",
                "--ui-type",
                "none",
                "--artifact-dir",
                str(folder / "aiperf"),
            ],
            {},
            "Request Throughput",
        )
    if given.sglang:
        for backend in ("sglang", "sglang-oai", "sglang-oai-chat", "vllm"):
            yield (
                f"sglang {backend}",
                [
                    given.python,
                    "-m",
                    "sglang.bench_serving",
                    "--backend",
                    backend,
                    "--base-url",
                    url,
                    "--model",
                    MODEL,
                    "--tokenizer",
                    tokenizer,
                    "--dataset-name",
                    "random-ids",
                    "--random-input-len",
                    "64",
                    "--random-output-len",
                    "16",
                    "--num-prompts",
                    "64",
                    "--max-concurrency",
                    "8",
                    "--output-file",
                    str(folder / "sglang.jsonl"),
                    "--disable-tqdm",
                ],
                {"PYTHONPATH": str(given.sglang), "HF_HUB_OFFLINE": "1"},
                "Successful requests:                     64",
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--python", required=True, help="of the environment with the clients")
    parser.add_argument("--only", nargs="+", choices=sorted(LIBRARIES), default=sorted(LIBRARIES))
    parser.add_argument("--no-libraries", action="store_true")
    parser.add_argument("--guidellm")
    parser.add_argument("--aiperf")
    parser.add_argument("--sglang", type=Path)
    parser.add_argument("--serve", default="", help="options of the server")
    given = parser.parse_args()
    from sgl_like.cli.bench.launch import launched

    failed = 0
    with launched(given.serve) as url, tempfile.TemporaryDirectory() as folder:
        for name in [] if given.no_libraries else given.only:
            command = [given.python, __file__, "--checks", name, url]
            environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
            for line in done.stdout.splitlines():
                if line.startswith("["):
                    what, error = json.loads(line)
                    show(name, what, error)
                    failed += bool(error)
            if done.returncode:
                show(name, "all of it", f"exit code {done.returncode}")
                failed += 1
        for name, command, added, keep in load_generators(given, url, Path(folder)):
            failed += not run_tool(name, command, added, keep)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--checks"]:
        run_checks(sys.argv[2], sys.argv[3])
    else:
        main()
