"""The page at /. Its files hold no data, so that they need no key."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ds2_jax.serving.errors import RequestError
from ds2_jax.serving.service import Service

FOLDER = Path(__file__).with_name("page")
TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
POLICY = "; ".join(
    (
        "default-src 'self'",
        "media-src 'self' blob:",  # a click on a word plays the file that the user chose
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the page may do: it loads nothing from elsewhere, runs no script in its text, and stands in no other page."""


def routes() -> list[Route]:
    """Reads the files of the page; returns what serves them."""
    files = {path.name: _response(path) for path in FOLDER.iterdir()}

    async def file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in files:
            raise RequestError(404, f"The page must have the file, got {name[:100]!r}. Open / instead.")
        return files[name]

    return [Route("/", file), Route("/page/limits.json", _limits), Route("/page/{name}", file)]


def _response(path: Path) -> Response:
    return Response(path.read_bytes(), media_type=TYPES[path.suffix], headers={"content-security-policy": POLICY})


async def _limits(request: Request) -> Response:
    """Tells the page what it must not send. A browser may not see the answer to an upload that is refused."""
    service: Service = request.app.state.service
    return JSONResponse({"max_megabytes": service.limits.max_megabytes, "max_seconds": service.limits.max_seconds})
