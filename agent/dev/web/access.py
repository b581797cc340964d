"""Who may read the page and post its forms.

A browser cannot carry the API's token from page to page, and other people's pages can make it
send what it does carry. So:

- With a password of the owner's choice, which is required off loopback, the page asks for it by
  HTTP Basic, user `admin`.
- The default password is known to everybody, so asking for it would protect nothing. The page
  then answers to loopback names alone: another name that was made to point here is refused.
- A form is accepted only when the browser says in `Origin`, as all of today's do, that this page
  sent it.
"""

from base64 import b64encode
from hmac import compare_digest
from typing import NoReturn

from flask import Response, abort, current_app, request

from agent.dev.api.admin_calls import ADMIN
from agent.host import is_loopback

DEFAULT_PASSWORD = "admin123"


def check_reader() -> None:
    """Answer 401 or 403 unless the page may be shown."""
    password: str = current_app.config["ADMIN_PASSWORD"]
    if password != DEFAULT_PASSWORD:
        proof = b64encode(f"{ADMIN}:{password}".encode()).decode()
        given = request.headers.get("Authorization", "")
        if not compare_digest(given.encode(), f"Basic {proof}".encode()):
            challenge = {"WWW-Authenticate": 'Basic realm="dev Manager", charset="UTF-8"'}
            text = f"The user is {ADMIN}, the password that of --admin-password.\n"
            abort(Response(text, 401, challenge, mimetype="text/plain"))
    elif not is_loopback(f"//{request.headers.get('Host', '')}"):
        _refuse(
            "Open this page as 127.0.0.1 or localhost, or give the dev Manager another"
            " --admin-password: everybody knows the default one."
        )


def check_writer() -> None:
    """Answer 401 or 403 unless the form was sent from this page."""
    check_reader()
    host = request.headers.get("Host", "")
    if request.headers.get("Origin") not in (f"http://{host}", f"https://{host}"):
        _refuse("This form was not sent from the dev Manager's own page. Programs use the API.")


def _refuse(words: str) -> NoReturn:
    abort(Response(f"{words}\n", 403, mimetype="text/plain"))
