"""The addresses of the page: searches, images, photos, and the same for programs."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from jobs.results.plain import dump_json
from jobs.search.hits import Hit, Hits
from jobs.search.similar import Similar
from jobs.serve import views
from jobs.serve.asked import PAGE, Asked, asked_of, number_of
from jobs.serve.images import failures_of, known_of, objects_of, photo_of
from jobs.serve.kept import GaveUpError, Kept, Lane, Latest
from jobs.serve.photos import SIDES, NoPhotoError, Photos
from jobs.serve.runs import ServedRun, ServedRuns
from jobs.serve.suggest import suggestions
from schemas.exceptions import ModelError, RaylabelError, SpecError
from workers.printable import printable
from workers.process.streams import print_error

KEPT_BYTES = 64 * 2**20
"""Bytes of the answers that are kept."""

QUERIES, FACETS, NAMES = 2, 1, 1
"""Queries, counts of facets or what looks like an image, and suggestions, that are computed at once."""

KNOWN_PAGES = 2000
"""Pages of hits of which the rows are kept, for the ways from an image to its neighbours."""

MOST_ALIKE = 10 * PAGE
"""Images that look like another one, at most."""

MAX_LIMIT = 1000
"""Hits that a program gets at once."""

LIMIT = 20
"""Hits that a program gets where it does not say how many."""

LONGEST = 20_000
"""Characters of an address that are looked at; a query has at most 10,000."""

_TEMPLATES = Path(__file__).parent / "templates"
_KINDS = {"serve.css": "text/css", "serve.js": "text/javascript"}
_HTML, _JSON = "text/html", "application/json"
_GAVE_UP = 499
"""What nginx calls it; nobody gets to see it."""

Parameters = Mapping[str, str]
Answer = Callable[[Request], Awaitable[Response]]


class Pages:
    """Answers requests about some runs.

    Args:
        runs: by name, in their order.
        photos: that makes them small.
    """

    def __init__(self, runs: ServedRuns, photos: Photos) -> None:
        self._runs, self._photos = runs, photos
        self._first = next(iter(self._runs))
        self._kept = Kept(KEPT_BYTES)
        self._neighbours = Latest[tuple[object, Asked], dict[int, int]](KNOWN_PAGES)
        self._alike = Latest[tuple[object, str, str, str], list[Similar]](KNOWN_PAGES)
        self._queries, self._facets = Lane("queries", QUERIES), Lane("facets", FACETS)
        self._names = Lane("names", NAMES)
        self._templates = views.environment()
        self._files = {name: (_TEMPLATES / name).read_bytes() for name in _KINDS}
        self._files_version = sha256(b"".join(self._files.values())).hexdigest()[:12]

    def app(self) -> Starlette:
        """The application, which lets everybody ask."""
        routes: dict[str, Answer] = {
            "/": partial(self._kept_page, self._search_page),
            "/facets": partial(self._kept_page, self._facets_page),
            "/image/{row}": partial(self._kept_page, self._image_page),
            "/photo/{row}": self._photo,
            "/static/{name}": self._static,
            "/api/runs": partial(self._kept_json, self._runs_json),
            "/api/search": partial(self._kept_json, self._search_json),
            "/api/suggest": partial(self._kept_json, self._suggest_json),
            "/api/image/{row}": partial(self._kept_json, self._image_json),
        }
        return Starlette(
            routes=[Route(path, self._endpoint(answer)) for path, answer in routes.items()],
            exception_handlers={HTTPException: self._http_error},
        )

    def _endpoint(self, answer: Answer) -> Answer:
        """An answer to whatever happens, and nothing to those that went away."""

        async def endpoint(request: Request) -> Response:
            try:
                return await answer(request)
            except HTTPException:
                raise
            except GaveUpError:
                return Response(status_code=_GAVE_UP)
            except Exception as error:  # one request must not end the others
                return self._fault(request, error)

        return endpoint

    async def _kept_page(self, make: Callable[[ServedRun, Parameters], str], request: Request) -> Response:
        """The answer of a page, which is made in a thread, and kept."""
        return await self._answered(request, _HTML, make)

    async def _kept_json(self, make: Callable[[ServedRun, Parameters], Any], request: Request) -> Response:
        """The answer for a program, made and kept likewise."""
        return await self._answered(request, _JSON, lambda run, values: dump_json(make(run, values)))

    async def _answered(
        self, request: Request, kind: str, make: Callable[[ServedRun, Parameters], str]
    ) -> Response:
        run, values = self._run_of(request), _values(request)
        if values.get("like") and number_of(values["like"]) is None:
            raise HTTPException(400, f"like: found {values['like']!r}; allowed is the row of an image")
        lane = self._lane_of(request.url.path, values)
        key = (request.url.path, run.key, *sorted(values.items()))
        call = partial(lane.run, lambda: make(run, values).encode(), request.is_disconnected)
        try:
            body = await self._kept.get(key, call)
        except (ModelError, SpecError) as error:
            return self._query_error(request, kind, error)
        return Response(body, headers={"Cache-Control": "no-cache"}, media_type=kind)

    def _lane_of(self, path: str, values: Parameters) -> Lane:
        """Where an answer is computed: what takes long does not keep the others waiting."""
        if path == "/api/suggest":
            return self._names
        compares = values.get("like") or values.get("text")
        takes_long = path == "/facets" or _has_facets(values) or compares
        return self._facets if takes_long else self._queries

    def _run_of(self, request: Request) -> ServedRun:
        if len(str(request.url)) > LONGEST:
            raise HTTPException(414, f"an address has at most {LONGEST:,} characters")
        name = request.query_params.get("run") or self._first
        if name not in self._runs:
            raise HTTPException(404, f"there is no run {name!r} here; there are {', '.join(self._runs)}")
        return self._runs.current(name)

    def _search_page(self, run: ServedRun, values: Parameters) -> str:
        """The page of a search."""
        asked = asked_of(values)
        with self._hits(run, asked) as hits:
            some, _ = self._page_of(run, asked, hits)
            total, of, words = hits.total, hits.out_of, hits.words
            advice = views.advice_of(asked, run.searcher.advice(asked.q, hits))
        rows = [hit.manifest_index for hit in some]
        cards = views.cards(run, asked, some, objects_of(run, rows))
        found = views.Found(total, of, cards, asked, views.sorts_of(run, words, asked), advice)
        failures = failures_of(run, [hit.manifest_index for hit in some if hit.error])
        facets = self._facets_of(run, asked) if _has_facets(values) else None
        return self._render("search.html.j2", run, asked, found=found, facets=facets, messages=failures)

    @contextmanager
    def _hits(self, run: ServedRun, asked: Asked) -> Iterator[Hits]:
        """What is found; of that where an image or words are given what looks most like it, which is kept."""
        with run.searcher.search(asked.q) as hits:
            if asked.compares:
                key = run.key, asked.q, asked.like, asked.text
                alike = self._alike.get(key)
                if alike is None:
                    searcher = run.searcher
                    find = partial(searcher.similar, hits, asked.like)
                    if asked.text:
                        find = partial(searcher.similar_to_text, hits, asked.text)
                    alike = self._alike[key] = find(MOST_ALIKE)
                hits.narrow(alike)
            yield hits

    def _page_of(self, run: ServedRun, asked: Asked, hits: Hits) -> tuple[list[Hit], dict[int, int]]:
        """The hits of a page, and by their places the rows of these, the one before and the one after.

        Keeps the rows.
        """
        start = max(asked.offset - 1, 0)
        more = hits.first(asked.offset - start + PAGE + 1, start, asked.sort or None)
        rows = {place: hit.manifest_index for place, hit in enumerate(more, start)}
        self._neighbours[run.key, asked] = rows
        return more[asked.offset - start :][:PAGE], rows

    def _facets_page(self, run: ServedRun, values: Parameters) -> str:
        """The part of the page with the facets of a search."""
        asked = asked_of(values)
        return self._templates.get_template("facets.html.j2").render(facets=self._facets_of(run, asked))

    def _facets_of(self, run: ServedRun, asked: Asked) -> dict[str, list[views.Facet]]:
        with self._hits(run, asked) as hits:
            return views.facets_of(asked, hits.facets())

    def _image_page(self, run: ServedRun, values: Parameters) -> str:
        """The page of an image, with the ways to its neighbours among the hits that led to it."""
        asked, known = asked_of(values), self._known(run, values)
        place = number_of(values.get("at", ""))
        before, after = (None, None) if place is None else self._beside(run, asked, place)
        width, height = known.columns["width"] or 4, known.columns["height"] or 3
        letter = views.letter_of(width, height) / 2
        back = asked.href(page=1 if place is None else place // PAGE + 1)
        return self._render(
            "image.html.j2",
            run,
            asked,
            known=known,
            name=views.file_name(known.uri),
            photo="" if known.error else views.photo_href(run, asked, known.row, "large"),
            boxes=list(views.boxes_of(run, known.objects, width, letter)),
            colours=run.colours,
            size=(width, height, letter),
            links=views.ways_on(run, asked, known),
            json=asked.href(f"/api/image/{known.row}", q="", sort="", page=1, text=""),
            back=back,
            before=before,
            after=after,
        )

    def _known(self, run: ServedRun, values: Parameters) -> Any:
        row = number_of(values["row"])
        known = None if row is None else known_of(run, row)
        if known is None:
            raise HTTPException(404, f"there is no image in row {values['row']} of {run.name}")
        return known

    def _beside(self, run: ServedRun, asked: Asked, place: int) -> tuple[str | None, str | None]:
        """The addresses of the images before and after a place among hits."""
        page = replace(asked, page=place // PAGE + 1)
        rows = self._neighbours.get((run.key, page))
        if rows is None:
            with self._hits(run, asked) as hits:
                rows = self._page_of(run, page, hits)[1]
        before, after = (
            asked.href(f"/image/{rows[at]}", page=1, at=str(at)) if at in rows else None
            for at in (place - 1, place + 1)
        )
        return before, after

    def _render(self, template: str, run: ServedRun, asked: Asked, **values: Any) -> str:
        """A page with what all of them have."""
        switch = [
            views.Link(name, asked.href(run="" if name == self._first else name, page=1, sort=""))
            for name in self._runs
        ]
        return self._templates.get_template(template).render(
            run=run,
            asked=asked,
            switch=switch,
            about=run.searcher.about,
            command=asked.command(run),
            failures=asked.href(q="error:*", sort="", page=1, like="", text=""),
            version=self._files_version,
            **values,
        )

    def _runs_json(self, _: ServedRun, __: Parameters) -> Any:
        abouts = {name: run.searcher.about for name, run in self._runs.items()}
        return [
            {"run": name, "run_id": about.run_id, "images": about.labelled, "failed": about.failed}
            for name, about in abouts.items()
        ]

    def _search_json(self, run: ServedRun, values: Parameters) -> Any:
        asked = asked_of(values)
        limit, offset = (
            _number(values, name, default, most)
            for name, default, most in (("limit", LIMIT, MAX_LIMIT), ("offset", 0, 10**12))
        )
        with self._hits(run, asked) as hits:
            facets = hits.facets() if _has_facets(values) else None
            some = hits.first(limit, offset, asked.sort or None)
            return {"run": run.name, **hits.to_dict(asked.q, some, facets)}

    def _suggest_json(self, run: ServedRun, values: Parameters) -> Any:
        found = suggestions(values.get("q", ""), run.searcher.vocabulary, run.searcher.values)
        return [asdict(suggestion) for suggestion in found]

    def _image_json(self, run: ServedRun, values: Parameters) -> Any:
        known = self._known(run, values)
        columns = known.columns
        return {
            "run": run.name,
            "manifest_index": known.row,
            "uri": known.uri,
            "error": known.error,
            **columns,
            "labels": [{"label": one.name, "score": one.score} for one in known.scored if not one.tagger],
            "tags": [asdict(one) for one in known.scored if one.tagger],
            "objects": [asdict(one) for one in known.objects],
            "failure": {"stage": known.stage, "message": known.message} if known.error else None,
        }

    async def _photo(self, request: Request) -> Response:
        """A photo of the run, made small."""
        run, values = self._run_of(request), _values(request)
        row, size = number_of(values["row"]), values.get("size", "small")
        if size not in SIDES:
            raise HTTPException(404, f"there is no size {size!r}; there are {', '.join(SIDES)}")
        tag = f'"{run.version}-{row}-{size}"'
        headers = {"ETag": tag, "Cache-Control": "private, max-age=3600"}
        if row is not None and request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        gone = request.is_disconnected
        photo = None if row is None else await self._queries.run(partial(photo_of, run, row), gone)
        if photo is None:
            raise HTTPException(404, f"there is no photo in row {values['row']} of {run.name}")
        try:
            body = await self._photos.get(run, photo, size, gone)
        except NoPhotoError as error:
            return PlainTextResponse(error.reason, error.status, {"Cache-Control": "no-store"})
        return Response(body, headers=headers, media_type="image/jpeg")

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            raise HTTPException(404, "there is no such file")
        headers = {"Cache-Control": "private, max-age=86400"}
        return Response(self._files[name], headers=headers, media_type=_KINDS[name])

    def _query_error(self, request: Request, kind: str, error: RaylabelError) -> Response:
        """What is wrong with a query, at its place."""
        run, asked = self._run_of(request), asked_of(_values(request))
        if kind == _JSON:
            place = {name: getattr(error, name, None) for name in ("start", "end")}
            message = str(error).partition("\n")[0]
            return Response(dump_json({"error": message, **place}), 400, media_type=_JSON)
        if request.url.path == "/facets":
            return PlainTextResponse("", 400)
        message, before, at, after = views.marked(asked.q, error)
        page = self._render(
            "wrong.html.j2", run, asked, title="no such query", message=message, marked=(before, at, after)
        )
        return Response(page, 400, media_type=_HTML)

    async def _http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return self._failed(request, error.status_code, error.detail)

    def _fault(self, request: Request, error: Exception) -> Response:
        """What went wrong here: a sentence for who asked, and for who started the server."""
        if not isinstance(error, RaylabelError):
            print_error(printable(f"{request.url.path}: {type(error).__name__}: {error}"))
            return self._failed(
                request, 500, "this could not be answered; the terminal of `raylabel serve` says more"
            )
        return self._failed(request, 500, str(error))

    def _failed(self, request: Request, status: int, message: str) -> Response:
        path = request.url.path
        if path.startswith("/api/"):
            return Response(dump_json({"error": message}), status, media_type=_JSON)
        if path.startswith(("/photo/", "/static/", "/facets")):
            return PlainTextResponse(message, status)
        run = self._runs[self._first]
        page = self._render(
            "wrong.html.j2", run, Asked(), title="not found", message=message, marked=("", "", "")
        )
        return Response(page, status, media_type=_HTML)


def _values(request: Request) -> dict[str, str]:
    """The parameters of a request, those in its path included."""
    return {**request.query_params, **request.path_params}


def _has_facets(values: Parameters) -> bool:
    return values.get("facets", "") not in ("", "0", "false")


def _number(values: Parameters, name: str, default: int, most: int) -> int:
    if name not in values:
        return default
    number = number_of(values[name], most)
    if number is None:
        raise HTTPException(400, f"{name}: found {values[name]!r}; allowed are numbers from 0 to {most:,}")
    return number
