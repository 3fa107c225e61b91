"""`callboard knowledge add|list|search|remove|refresh`: what a company's agents may know."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.commands._integrating import actor, keys_ready
from app.commands._names import require_company
from app.commands._run import interruptible, with_services
from app.commands._secrets import confirm_removal
from app.output import (
    ExitCode,
    emit_json,
    exit_code_for,
    exit_code_of_failures,
    is_terminal,
    iso,
    paint,
    plural,
    print_table,
    say,
    say_degraded,
    say_error,
    shorten,
    terminal_width,
    write_line,
)
from app.parsing import positive
from services.errors import ServiceError, UsageError
from services.integrations.model import Kind
from services.text import clean, clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.container import Services
    from services.integrations.knowledge import Hit, Ingested, KnowledgeStatus, Progress, Source

EXAMPLES = """\
examples:
  callboard knowledge add acme faq.md prices.pdf https://acme.example/opening-hours
  pandoc handbook.docx -t markdown | callboard knowledge add acme - --title Handbook --markdown
  callboard knowledge search acme "may I bring a dog?"
  callboard knowledge refresh acme                           read everything again; what is the same stays
  callboard integration add embeddings --company acme --set model=text-embedding-3-small
"""
ADD_HELP = """\
Text, Markdown, HTML and PDF are read. What was there under the same path or address is replaced.
Pages of the web need no login, and are public unless --allow-private says otherwise.
"""
SEARCH_HELP = """\
Finds pieces by their words, and by their meaning where an embedding endpoint is configured. What is asked is
never a query language. Exit code 0 also when nothing is found.
"""
MOST_STDIN = 50 * 1024 * 1024
_EXCERPT = 400


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "knowledge",
        help="documents a company's agents may know, and searching them",
        description="A company's knowledge base: documents cut into pieces that answers are made of.",
        epilog=EXAMPLES,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = _action(actions, "add", "take in files, pages, or a text from standard input", ADD_HELP)
    add.add_argument("sources", metavar="FILE|URL|-", nargs="+", help="- is standard input")
    add.add_argument("--title", metavar="TEXT", help="what the text from standard input is called")
    add.add_argument("--markdown", action="store_true", help="the text from standard input is Markdown")
    _action(actions, "list", "what is in it, and how it is searched")
    search = _action(actions, "search", "find the pieces that answer a question best", SEARCH_HELP)
    search.add_argument("query", metavar="QUESTION")
    search.add_argument("--limit", type=positive, default=8, metavar="N", help="pieces at most (8)")
    remove = _action(actions, "remove", "forget a source")
    remove.add_argument("source", metavar="SOURCE", help="its id, its address or its title")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    refresh = _action(
        actions, "refresh", "read sources again from where they came", "All of them when none is named."
    )
    refresh.add_argument("sources", metavar="SOURCE", nargs="*", help="ids, addresses or titles")
    for action in (add, refresh):
        action.add_argument(
            "--allow-private", action="store_true", help="read pages of this machine and its network, too"
        )


def _action(actions: Subparsers, name: str, text: str, description: str = "") -> ArgumentParser:
    parser = actions.add_parser(name, help=text, description=description or None)
    parser.add_argument("company", metavar="COMPANY")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(args: Namespace) -> int:
    actions = {"add": _add, "list": _list, "search": _search, "remove": _remove, "refresh": _refresh}
    return with_services(args, lambda services: actions[args.action](services, args), vendors=True)


async def _add(services: Services, args: Namespace) -> int:
    company = await require_company(services, args.company)
    await keys_ready(services, Kind.KNOWLEDGE, company.name)
    if args.sources.count("-") > 1:
        raise UsageError("Standard input can be read once", advice="Name - one time", code="usage")
    if "-" in args.sources and not args.title:
        raise UsageError(
            "What comes from standard input has no name", advice="Give it one with --title", code="no_title"
        )

    async def take(given: str, bar: _Bar) -> Ingested:
        knowledge = services.knowledge
        if given == "-":
            return await knowledge.ingest_text(
                company.name,
                _stdin(),
                title=args.title,
                markdown=args.markdown,
                actor=actor(),
                progress=bar.show,
            )
        if given.lower().startswith(("http://", "https://")):
            return await knowledge.ingest_url(
                company.name,
                given,
                actor=actor(),
                allow_private=args.allow_private,
                progress=bar.show,
            )
        return await knowledge.ingest_file(company.name, Path(given), actor=actor(), progress=bar.show)

    return await _each(company.name, args.sources, take, args)


async def _refresh(services: Services, args: Namespace) -> int:
    company = await require_company(services, args.company)
    await keys_ready(services, Kind.KNOWLEDGE, company.name)
    wanted = args.sources or [source.id for source in await services.knowledge.sources(company.name)]
    if not wanted and not args.json:
        say(f"There is nothing to refresh yet: callboard knowledge add {company.name} FILE")

    async def take(given: str, bar: _Bar) -> Ingested:
        return await services.knowledge.refresh(
            company.name, given, actor=actor(), allow_private=args.allow_private, progress=bar.show
        )

    return await _each(company.name, wanted, take, args)


async def _each(
    company: str, wanted: Iterable[str], take: Callable[[str, _Bar], Awaitable[Ingested]], args: Namespace
) -> int:
    """Take in one after the other; one that fails keeps none of the others from being taken in."""
    results: list[dict[str, Any]] = []
    failures: list[ServiceError] = []
    count = 0
    for given in wanted:
        count += 1
        bar = _Bar(clean_line(given), shown=not args.json and is_terminal(sys.stderr))
        try:
            done = await take(given, bar)
        except ServiceError as error:
            bar.close()
            failures.append(error)
            results.append(_result(given, None, error))
            if not args.json:
                say_error(error)
        else:
            bar.close()
            results.append(_result(given, done, None))
            if not args.json:
                write_line(_line(done))
    if args.json:
        emit_json("knowledge-added", {"company": company, "results": results})
    if failures and len(failures) == count and all(isinstance(error, UsageError) for error in failures):
        return exit_code_for(failures[0])
    return exit_code_of_failures([error.category for error in failures], count - len(failures))


async def _list(services: Services, args: Namespace) -> int:
    company = await require_company(services, args.company)
    await keys_ready(services, Kind.KNOWLEDGE, company.name)
    sources = await services.knowledge.sources(company.name)
    status = await services.knowledge.status(company.name)
    if args.json:
        shown = [source_dict(source) for source in sources]
        emit_json("knowledge", {"company": company.name, "sources": shown, "status": _status_dict(status)})
        return ExitCode.DONE
    if not sources:
        say(f"There is nothing in it yet: callboard knowledge add {company.name} FILE")
        return ExitCode.DONE
    print_table(
        ("ID", "TITLE", "KIND", "PIECES", "VECTORS", "UPDATED", "ADDRESS"),
        [
            (
                source.id,
                source.title,
                source.kind,
                str(source.chunks),
                source.embedding_model,
                iso(source.updated_at or None) or "",
                source.uri,
            )
            for source in sources
        ],
        right=(3,),
    )
    say(_how(status))
    return ExitCode.DONE


async def _search(services: Services, args: Namespace) -> int:
    company = await require_company(services, args.company)
    await keys_ready(services, Kind.KNOWLEDGE, company.name)
    answer = await services.knowledge.search(company.name, args.query, limit=args.limit)
    if args.json:
        emit_json(
            "knowledge-answer",
            {
                "company": company.name,
                "query": args.query,
                "mode": answer.mode.value,
                "origin": answer.origin,
                "degraded": answer.degraded,
                "age_seconds": None if answer.age is None else round(answer.age),
                "hits": [_hit_dict(hit) for hit in answer.hits],
            },
        )
        return ExitCode.DONE
    for number, hit in enumerate(answer.hits, 1):
        if number > 1:
            write_line()
        write_line(paint(f"{number}. {clean_line(hit.heading or hit.title)}", "bold"))
        write_line(paint(f"   {clean_line(hit.uri)}  score {hit.score:.2f}", "dim"))
        for line in clean(_excerpt(hit.text)).splitlines():
            write_line(f"   {line}".rstrip())
    if not answer.hits:
        say("Nothing in the knowledge base fits.")
    origin = "" if answer.origin == "local" else f", by {clean_line(answer.origin)}"
    say(f"Searched by {answer.mode}{origin}.")
    say_degraded(answer.degraded, answer.failure.advice if answer.failure else "")
    return ExitCode.DONE


async def _remove(services: Services, args: Namespace) -> int:
    company = await require_company(services, args.company)
    await keys_ready(services, Kind.KNOWLEDGE, company.name)
    sources = await services.knowledge.sources(company.name)
    wanted = args.source.strip()
    same = [source for source in sources if wanted in (source.id, source.uri)] or [
        source for source in sources if source.title.casefold() == wanted.casefold()
    ]
    if len(same) == 1:
        source = same[0]
        what = f"{clean_line(source.title)} with its {plural(source.chunks, 'piece')}"
        if not confirm_removal(what, source.title, yes=args.yes):
            return ExitCode.FAILED
        wanted = source.id
    # Where none or several are meant, the service says which there are.
    gone = await services.knowledge.remove(company.name, wanted, actor=actor())
    if args.json:
        emit_json("knowledge-source", {"company": company.name, "source": source_dict(gone)})
    else:
        write_line(f"Removed {clean_line(gone.title)}.")
    return ExitCode.DONE


class _Bar:
    """How far one document is: one line on standard error, redrawn."""

    def __init__(self, name: str, *, shown: bool) -> None:
        self._name, self._shown = name, shown

    def show(self, progress: Progress) -> None:
        if self._shown:
            share = f" {progress.done} of {progress.total}" if progress.total else ""
            text = shorten(f"{self._name}: {progress.step}{share}", terminal_width(sys.stderr) - 1)
            sys.stderr.write(f"\r{text}\x1b[K")
            sys.stderr.flush()

    def close(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _stdin() -> str:
    from services.integrations.knowledge.extract import decode

    if is_terminal(sys.stdin):
        say("Type or paste the text; Ctrl-D ends it.")
    with interruptible():
        stream = getattr(sys.stdin, "buffer", None)
        data = stream.read(MOST_STDIN + 1) if stream is not None else sys.stdin.read().encode()
    if len(data) > MOST_STDIN:
        raise UsageError(
            f"More than {MOST_STDIN >> 20} MB came from standard input",
            advice="Split it, or add only the part that matters",
            code="too_large",
        )
    return decode(data, "Standard input")


def _line(done: Ingested) -> str:
    source = done.source
    what = f"{clean_line(source.title)}: {plural(source.chunks, 'piece')}"
    state = "" if done.changed else ", unchanged"
    degraded = f"  ({clean_line(done.degraded)})" if done.degraded else ""
    return f"{what}{state}{degraded}"


def _how(status: KnowledgeStatus) -> str:
    if status.remote:
        return f"Kept and searched by {clean_line(status.remote)}."
    if not status.model:
        return "Searched by words."
    return (
        f"Searched by words and by meaning: {status.embedded} of {plural(status.chunks, 'piece')} have "
        f"vectors of {clean_line(status.model)}, ranked by {status.ranking}."
    )


def _excerpt(text: str) -> str:
    return text if len(text) <= _EXCERPT else text[:_EXCERPT].rsplit(None, 1)[0] + " …"


def _result(given: str, done: Ingested | None, error: ServiceError | None) -> dict[str, Any]:
    return {
        "given": given,
        "source": source_dict(done.source) if done else None,
        "changed": bool(done and done.changed),
        "degraded": done.degraded if done else "",
        "error": error.as_dict() if error else None,
    }


def source_dict(source: Source) -> dict[str, Any]:
    """The documented JSON of a source."""
    return {
        "id": source.id,
        "title": source.title,
        "kind": source.kind.value,
        "uri": source.uri,
        "media_type": source.media_type,
        "size": source.size,
        "chunks": source.chunks,
        "embedding_model": source.embedding_model,
        "created_at": iso(source.created_at or None),
        "updated_at": iso(source.updated_at or None),
    }


def _hit_dict(hit: Hit) -> dict[str, Any]:
    return {
        "text": hit.text,
        "heading": hit.heading,
        "title": hit.title,
        "uri": hit.uri,
        "source_id": hit.source_id,
        "ordinal": hit.ordinal,
        "score": hit.score,
        "bm25": hit.bm25,
        "similarity": hit.similarity,
    }


def _status_dict(status: KnowledgeStatus) -> dict[str, Any]:
    return {
        "sources": status.sources,
        "chunks": status.chunks,
        "embedded": status.embedded,
        "model": status.model,
        "ranking": status.ranking,
        "remote": status.remote,
    }
