"""A run of the command: a server, a warm-up, one load after another, and the results."""

from __future__ import annotations

import asyncio
import json
import resource
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop
from rich.console import Console

from sgl_like.cli.bench.datasets import Dataset
from sgl_like.cli.bench.dialects import Endpoint, Sampling
from sgl_like.cli.bench.launch import launched
from sgl_like.cli.bench.load import Level, Load, Target
from sgl_like.cli.bench.report import check_plot, load_name, plot, print_results, write_json
from sgl_like.cli.bench.summary import Measure, Summary, summarize
from sgl_like.cli.report import say
from sgl_like.errors import EngineError

WARMUP_CONCURRENCY = 8


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure. See the command's options.

    Args:
        levels: loads, one after another.
        dataset: what is sent.
        url: of the server, if none is started.
        serve: arguments of the server that is started; ``None``: none is.
        endpoint: of the server.
        model: its name there; ``None``: the first that it lists.
        api_key: of the API.
        sampling: what all requests ask for.
        abort_share: of the requests.
        timeout: of each, in seconds.
        warmup: number of requests before.
        slo: most seconds by measure.
        out: file for the numbers.
        plot: file for a picture.
    """

    levels: Sequence[Level]
    dataset: Dataset
    url: str
    serve: str | None
    endpoint: Endpoint
    model: str | None
    api_key: str | None
    sampling: Sampling
    abort_share: float
    timeout: float
    warmup: int
    slo: Mapping[Measure, float]
    out: Path | None
    plot: Path | None


def run(plan: Plan, console: Console) -> list[Summary]:
    """Do it; the table goes to standard output.

    Raises:
        EngineError: the server does not answer, or could not be started.
    """
    if plan.plot is not None:
        check_plot()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection is a file
    with nullcontext(plan.url.rstrip("/")) if plan.serve is None else launched(plan.serve) as url:
        model = plan.model
        if model is None and plan.endpoint != "generate":
            model = first_model(url, plan.api_key)
        target = Target(
            url=url,
            endpoint=plan.endpoint,
            api_key=plan.api_key,
            sampling=plan.sampling._replace(model=model),
            timeout=plan.timeout,
            abort_share=plan.abort_share,
        )
        summaries = uvloop.run(_measure(plan, target, console))
    print_results(Console(), summaries)
    about = {
        "url": url,
        "endpoint": plan.endpoint,
        "model": model,
        "abort_share": plan.abort_share,
        "slo": dict(plan.slo),
    }
    if plan.out is not None:
        write_json(plan.out, summaries, about)
    if plan.plot is not None:
        plot(plan.plot, summaries, f"{model or plan.endpoint} at {url}")
    return summaries


async def _measure(plan: Plan, target: Target, console: Console) -> list[Summary]:
    load = Load(target, plan.dataset)
    try:
        if plan.warmup:
            calm = Load(replace(target, abort_share=0.0), plan.dataset)
            first = plan.levels[0]
            await calm.run(Level(concurrency=WARMUP_CONCURRENCY, requests=plan.warmup, seed=first.seed - 1))
            calm.close()
        summaries = []
        for level in plan.levels:
            summaries.append(summarize(await load.run(level), plan.slo))
            done = summaries[-1]
            say(console, f"{load_name(level)}: {done.requests_per_s:,.1f} requests/s in {done.seconds:.1f} s")
            await asyncio.sleep(0)
        return summaries
    finally:
        load.close()


def first_model(url: str, api_key: str | None) -> str:
    """The name of the first model that a server lists.

    Raises:
        EngineError: it does not answer, or lists none.
    """
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url + "/v1/models", headers=headers), timeout=30
        ) as answer:
            return str(json.load(answer)["data"][0]["id"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise EngineError(
            f"{url} does not say which models it has ({error}); is it running? else give --model"
        ) from None
