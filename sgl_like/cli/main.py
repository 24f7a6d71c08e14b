"""The `sgl-like` command: options, and errors as one line.

Exit codes: 0 done, even if single rows failed; 1 the run broke off, or every row failed; 2 an input, option or
model that cannot be used; 130 interrupted. Everything heavy is imported by the command that needs it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer
from rich.console import Console

import sgl_like
from sgl_like.cli.bench.command import bench
from sgl_like.cli.extract import (
    DEFAULT_CONCURRENCY,
    DEFAULT_MAX_TOKENS,
    DEFAULT_SYSTEM,
    Answer,
    Job,
    Totals,
    run_job,
)
from sgl_like.cli.failures import one_line_errors
from sgl_like.cli.journal import OutputFile
from sgl_like.cli.model import check_model, load_model, model_digest
from sgl_like.cli.report import Report, print_summary, print_table, say
from sgl_like.cli.rows import Format, Row, Source
from sgl_like.cli.run import Conversation, chat, printable
from sgl_like.cli.schema import check_schema, load_schema
from sgl_like.cli.serve import serve
from sgl_like.errors import DataError

DEMO = Path(__file__).parents[1] / "assets" / "demo"

app = typer.Typer(
    name="sgl-like",
    help="Run language-model programs on an engine of their own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class InputFormat(StrEnum):
    """Values of `--format`."""

    auto = "auto"
    jsonl = "jsonl"
    csv = "csv"
    tsv = "tsv"
    text = "text"


class PropertyOrder(StrEnum):
    """Values of `--property-order`."""

    any = "any"
    schema = "schema"


class Dtype(StrEnum):
    """Values of `--dtype`."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class Quantization(StrEnum):
    """Values of `--quantization`."""

    int8 = "int8"
    int4 = "int4"


_Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="PATH_OR_ID", help="Model folder or Hugging Face id. Default: the embedded model."
    ),
]
_Dtype = Annotated[Dtype, typer.Option(help="Type of the weights.")]
_Quantization = Annotated[Quantization | None, typer.Option(help="Smaller, faster weights.")]
_Concurrency = Annotated[
    int,
    typer.Option("--concurrency", "--batch-size", min=1, help="Rows in flight. Does not change the output."),
]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        typer.echo(f"sgl-like {sgl_like.__version__}")
        raise typer.Exit


@app.command()
def extract(
    input: Annotated[
        Path, typer.Argument(metavar="INPUT", help="JSONL, CSV or TSV file, or text, one row a line.")
    ],
    schema: Annotated[
        str,
        typer.Option(metavar="FILE|MODULE:CLASS", help="JSON Schema file, or pydantic model, of the output."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT.jsonl", help="Output, one line per row.")],
    column: Annotated[
        str, typer.Option("--column", "--text-field", help="JSONL field or CSV column with the text.")
    ] = "text",
    format: Annotated[
        InputFormat, typer.Option(help="Format of INPUT. By default its suffix decides.")
    ] = InputFormat.auto,
    model: _Model = None,
    dtype: _Dtype = Dtype.auto,
    system: Annotated[str, typer.Option(help="System message; empty for none.")] = DEFAULT_SYSTEM,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens per output.")] = DEFAULT_MAX_TOKENS,
    property_order: Annotated[
        PropertyOrder, typer.Option(help="Object properties in any order, or as the schema declares them.")
    ] = PropertyOrder.any,
    concurrency: _Concurrency = DEFAULT_CONCURRENCY,
    limit: Annotated[int | None, typer.Option(min=0, help="Only the first rows of INPUT.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew if OUT exists.")] = False,
) -> None:
    """Turn every row of INPUT into JSON that is valid under a schema.

    Each line of OUT is {"row": number, "input": ..., "output": ..., "error": null or "..."}, in order. A run that
    was killed continues where it stopped when the same command is given again, and never repeats or loses a row.
    """
    console = Console(stderr=True)
    with one_line_errors(console):
        source = Source.of(input, column, _format(format))
        if out.exists() and out.samefile(input):
            raise DataError(f"{out}: is the input; give another -o")
        job = Job(load_schema(schema), system, max_tokens, property_order.value)
        check_model(model)
        check_schema(schema, job.schema, job.property_order)
        total = source.check(limit)
        meta = {
            **_meta(job),
            "model": model,
            "model_files": model_digest(model),
            "dtype": dtype.value,
            "column": None if source.format == "text" else column,
        }
        with OutputFile(out, meta, overwrite=overwrite) as journal:
            rows = iter(source)
            journal.resume(rows)
            left = max(0, total - journal.done)
            _run(
                console,
                job,
                islice(rows, left),
                journal,
                total,
                model=model,
                dtype=dtype,
                concurrency=concurrency,
            )
    if journal.done and journal.failed == journal.done:
        raise typer.Exit(1)


@app.command()
def demo(
    model: _Model = None, dtype: _Dtype = Dtype.auto, concurrency: _Concurrency = DEFAULT_CONCURRENCY
) -> None:
    """Turn two dozen sample utterances into JSON and show them as a table."""
    console = Console(stderr=True)
    done: list[tuple[str, Answer]] = []
    totals = Totals()
    with one_line_errors(console):
        check_model(model)
        job = Job(load_schema(str(DEMO / "snips.schema.json")))
        source = Source.of(DEMO / "utterances.txt")
        begun = monotonic()
        with load_model(model, dtype.value) as backend:
            totals = Totals()
            load_s = totals.started - begun
            with Report(console, source.check()) as report:

                def keep(row: Row, answer: Answer) -> None:
                    done.append((row.text, answer))
                    report.advance(totals)

                run_job(source, job, backend, keep, totals, concurrency=concurrency)
        print_table(Console(width=None if sys.stdout.isatty() else 120), done)
        print_summary(console, totals, load_s=load_s)
    if totals.failed == len(done):
        raise typer.Exit(1)


@app.command()
def run(
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="Default: standard input, or a conversation.")
    ] = None,
    model: _Model = None,
    dtype: _Dtype = Dtype.auto,
    quantization: _Quantization = None,
    system: Annotated[str, typer.Option(help="System message.")] = "",
    plain: Annotated[
        bool, typer.Option("--plain", help="Continue the prompt as it is, without a chat template.")
    ] = False,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.7,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    regex: Annotated[str | None, typer.Option(help="The whole answer matches this.")] = None,
    schema: Annotated[
        str | None, typer.Option(metavar="FILE|MODULE:CLASS", help="The answer is JSON valid under this.")
    ] = None,
) -> None:
    """Ask a model: one PROMPT, or, in a terminal without one, a conversation (Ctrl-D ends it)."""
    console = Console(stderr=True)
    with one_line_errors(console):
        if regex is not None and schema is not None:
            raise DataError("--regex and --schema cannot be given together")
        params: dict[str, Any] = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "regex": regex,
        }
        if schema is not None:
            params["json_schema"] = load_schema(schema)
        check_model(model)
        talking = prompt is None and sys.stdin.isatty()
        if prompt is None and not talking:
            prompt = sys.stdin.read().rstrip("\n")
        if not talking and not prompt:
            raise DataError("the prompt is empty")
        with sgl_like.Runtime(
            model_path=model, dtype=dtype.value, quantization=quantization and quantization.value
        ) as runtime:
            conversation = Conversation(runtime, params, system, plain)
            if talking:
                chat(conversation, partial(input, "> "), _write, partial(say, console))
                return
            for piece in conversation.ask(prompt or ""):
                _write(printable(piece))
            _write("\n")
            if conversation.cut:
                say(console, f"the answer was cut at {max_tokens} tokens; raise --max-tokens")


@app.command()
def view(
    traces: Annotated[list[Path], typer.Argument(metavar="TRACE.json ...", help="From state.save_trace().")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="OUT.html", help="Default: beside the first trace, as .html."),
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Print it here instead of writing a page.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="With --text: also tables of tokens.")
    ] = False,
) -> None:
    """Make one page of HTML, which needs nothing else, of what runs did."""
    console = Console(stderr=True)
    with one_line_errors(console):
        if probabilities and not text:
            raise DataError("--probabilities goes with --text; the page has them anyway")
        shown = sgl_like.view(traces)
        if text:
            shown.show(probabilities=probabilities)
            return
        page = out or traces[0].with_suffix(".html")
        if any(page.exists() and page.samefile(trace) for trace in traces):
            raise DataError(f"{page}: is a trace; give another -o")
        shown.save(page)
        say(console, f"wrote {page}")


app.command()(bench)
app.command()(serve)


def main() -> None:
    """Entry point of the `sgl-like` script."""
    app()


def _run(
    console: Console,
    job: Job,
    rows: Iterator[Row],
    journal: OutputFile,
    total: int,
    *,
    model: str | None,
    dtype: Dtype,
    concurrency: int,
) -> None:
    """Run the rows that are left and append them to the journal."""
    resumed = journal.done
    if resumed >= total:
        say(console, f"nothing to do: {journal.path} has all {total:,} rows ({journal.failed:,} failed)")
        return
    if resumed:
        say(console, f"continuing after {resumed:,} of {total:,} rows in {journal.path}")
    try:
        begun = monotonic()
        with load_model(model, dtype.value) as backend:
            totals = Totals()
            load_s = totals.started - begun
            with Report(console, total, resumed) as report:

                def write(row: Row, answer: Answer) -> None:
                    journal.append(row, answer.output, answer.error)
                    report.advance(totals)

                run_job(rows, job, backend, write, totals, concurrency=concurrency)
    except BaseException:
        if journal.done > resumed:
            where = f"{journal.done:,} of {total:,} rows in {journal.path}"
            say(console, f"stopped with {where}; give the command again to continue")
        raise
    print_summary(console, totals, resumed=resumed, load_s=load_s)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _format(format: InputFormat) -> Format | None:
    formats: dict[InputFormat, Format] = {
        InputFormat.jsonl: "jsonl",
        InputFormat.csv: "csv",
        InputFormat.tsv: "tsv",
        InputFormat.text: "text",
    }
    return formats.get(format)


def _meta(job: Job) -> dict[str, Any]:
    text = json.dumps(job.schema, ensure_ascii=False)
    return {
        "journal": 1,
        "schema": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        "system": job.system,
        "max_tokens": job.max_tokens,
        "property_order": job.property_order,
    }
