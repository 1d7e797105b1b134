"""Errors of requests, in the form that OpenAI's clients understand."""

from typing import Any

from starlette.responses import JSONResponse

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""Types by status; others are invalid_request_error below 500 and server_error from there."""
RETRY_SECONDS = 1
"""What `retry-after` says if the server is busy."""


class RequestError(Exception):
    """A request that cannot be answered.

    Args:
        status: HTTP status.
        message: what is wrong and what to do.
        param: the field that is wrong.
        code: a word for programs.
    """

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        """The body of the response."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Makes the response. Clients try again after 429 and 503."""
        headers = {"retry-after": str(RETRY_SECONDS)} if self.status in (429, 503) else None
        return JSONResponse(self.body, self.status, headers)


def wrong(param: str, rule: str, value: object, advice: str) -> RequestError:
    """Makes the error of a field."""
    return RequestError(400, f"{param} must {rule}, got {value}. {advice}", param)


def shown(value: object) -> str:
    """Shows the beginning of a client's value in an error."""
    try:
        return repr(value)[:100]
    except RecursionError:  # JSON can be read at depths at which `repr` fails
        return f"a {type(value).__name__} that is nested too deeply"
