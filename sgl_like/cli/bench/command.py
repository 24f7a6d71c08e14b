"""The command's options. What does the work is imported when it is called."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sgl_like.cli.failures import one_line_errors
from sgl_like.errors import DataError

SWEEP = "1,2,4,8,16,32,64,128,256,512"


class EndpointName(StrEnum):
    """Values of `--endpoint`."""

    completions = "completions"
    chat = "chat"
    generate = "generate"


def bench(
    url: Annotated[str, typer.Option(help="Server to measure.")] = "http://127.0.0.1:30000",
    serve: Annotated[bool, typer.Option("--serve", help="Start `sgl-like serve` and measure that.")] = False,
    serve_args: Annotated[str, typer.Option(metavar="ARGS", help="With --serve: options of it.")] = "",
    endpoint: Annotated[EndpointName, typer.Option(help="Where to.")] = EndpointName.completions,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: the first that the server lists.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="SGL_LIKE_API_KEY", help="Key of the API.")] = None,
    concurrency: Annotated[str, typer.Option(metavar="N,N,...", help="Requests at a time.")] = SWEEP,
    rate: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Requests a second, at random times, instead.")
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=1, help="Of each load. Default: 4 for each at a time, at least 32.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Begin no request after so long, for each load.")
    ] = None,
    input_len: Annotated[int, typer.Option(min=1, help="Random tokens of a prompt.")] = 128,
    output_len: Annotated[int, typer.Option(min=1, help="Tokens of an output.")] = 32,
    length_spread: Annotated[
        float, typer.Option(min=0, max=1, help="Draw both lengths from this share of them up.")
    ] = 1.0,
    prefix_len: Annotated[int, typer.Option(min=0, help="Tokens that prompts of a group share.")] = 0,
    groups: Annotated[int, typer.Option(min=1, help="Groups of prompts with a shared prefix.")] = 1,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl", help="Lines with `prompt` or `messages`, instead of random tokens."
        ),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Ask for streams.")] = True,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos/--no-ignore-eos", help="Outputs as long as asked for.")
    ] = True,
    extra_body: Annotated[str, typer.Option(metavar="JSON", help="More fields for every body.")] = "{}",
    abort_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests that are left at a random point.")
    ] = 0.0,
    slo: Annotated[
        list[str] | None,
        typer.Option(metavar="ttft|itl|e2e=SECONDS", help="What counts as good; may be given several times."),
    ] = None,
    warmup: Annotated[int, typer.Option(min=0, help="Requests before, which do not count.")] = 8,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds after which a request is given up.")
    ] = 600,
    seed: Annotated[int, typer.Option(help="Decides prompts, arrivals and aborts.")] = 0,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="OUT.json", help="All numbers.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="OUT.png", help="A picture of them.")] = None,
) -> None:
    """Put load on a server with an OpenAI-compatible API (or SGLang's) and measure it.

    By default that is random prompts at 1, 2, 4 ... 512 requests at a time. Exit code 1: no request was answered.
    """
    console = Console(stderr=True)
    with one_line_errors(console):
        from sgl_like.cli.bench import options, session

        if prompts is not None and (prefix_len or groups > 1):
            raise DataError("--prompts cannot be given together with --prefix-len and --groups")
        if serve_args and not serve:
            raise DataError("--serve-args goes with --serve")
        plan = session.Plan(
            levels=options.levels(concurrency, rate, requests, seconds, seed),
            dataset=options.dataset(
                prompts,
                input_len=input_len,
                output_len=output_len,
                spread=length_spread,
                groups=groups,
                prefix_len=prefix_len,
                as_text=endpoint is EndpointName.chat,
            ),
            url=url,
            serve=serve_args if serve else None,
            endpoint=endpoint.value,
            model=model,
            api_key=api_key,
            sampling=options.sampling(temperature, ignore_eos, stream, extra_body),
            abort_share=abort_share,
            timeout=timeout,
            warmup=warmup,
            slo=options.objectives(slo or []),
            out=out,
            plot=plot,
        )
        summaries = session.run(plan, console)
    if not any(summary.completed for summary in summaries):
        raise typer.Exit(1)
