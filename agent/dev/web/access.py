"""Who may read the page and post its forms.

A browser cannot carry the API's token from page to page, and it carries what it has to other
people's pages too. So:

- With a password of the owner's choice, which any address but loopback demands, the page asks
  for it by HTTP Basic, user `admin`.
- With the default password, which anybody knows, there is nothing to ask for. The page then
  answers to the names of loopback alone: a foreign name that was made to point here is refused.
- A form is taken only when the browser says that the page it was sent from is this one. All of
  today's browsers say so, in `Origin`.
"""

import ipaddress
from base64 import b64encode
from hmac import compare_digest
from typing import NoReturn
from urllib.parse import urlsplit

from flask import Response, abort, current_app, request

from agent.dev.api.admin_calls import ADMIN

DEFAULT_PASSWORD = "admin123"


def check_reader() -> None:
    """Answer 401 or 403 unless the page may be shown."""
    password: str = current_app.config["ADMIN_PASSWORD"]
    if password != DEFAULT_PASSWORD:
        _check_password(password)
    elif not _is_loopback_name(request.headers.get("Host", "")):
        _refuse(
            "Ask for this page by 127.0.0.1 or localhost, or give the dev Manager another"
            " --admin-password: everybody knows the default one."
        )


def check_writer() -> None:
    """Answer 401 or 403 unless the form was sent from this very page."""
    check_reader()
    host = request.headers.get("Host", "")
    if request.headers.get("Origin") not in (f"http://{host}", f"https://{host}"):
        _refuse("This form was not sent from the dev Manager's own page. Programs use the API.")


def _check_password(password: str) -> None:
    proof = b64encode(f"{ADMIN}:{password}".encode()).decode()
    given = request.headers.get("Authorization", "")
    if not compare_digest(given.encode(), f"Basic {proof}".encode()):
        challenge = {"WWW-Authenticate": 'Basic realm="dev Manager", charset="UTF-8"'}
        text = f"The user is {ADMIN}, the password that of --admin-password.\n"
        abort(Response(text, 401, challenge, mimetype="text/plain"))


def _is_loopback_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _refuse(words: str) -> NoReturn:
    abort(Response(f"{words}\n", 403, mimetype="text/plain"))
