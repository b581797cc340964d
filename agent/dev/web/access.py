"""Who may read the page and post its forms.

A browser cannot carry the API's token from page to page, and other people's pages can make it
send what it does carry. So:

- On loopback every call and page answers to the names of loopback alone: another name that was
  made to point here (DNS rebinding) is refused.
- With a password of the owner's choice, which is required off loopback, the page asks for it by
  HTTP Basic, user `admin`. Otherwise it is open: everybody knows the default password, and the
  demo's owner is the one who reads its output.
- A form is accepted only when the browser says in `Origin`, as all of today's do, that this page
  sent it.
"""

from base64 import b64encode

from flask import abort, current_app, request
from werkzeug.datastructures import WWWAuthenticate

from agent.dev.api.http import is_secret
from agent.dev.api.operator_calls import ADMIN
from agent.host import names_loopback


def check_host() -> None:
    """Answer 403 to a request for another host than loopback."""
    # A browser always sends one.
    host = request.headers.get("Host", "")
    if host and not names_loopback(host):
        abort(403, "This dev Manager is on loopback: ask for 127.0.0.1 or localhost.")


def check_reader() -> None:
    """Answer 401 unless the page may be shown."""
    password: str = current_app.config["ADMIN_PASSWORD"]
    proof = b64encode(f"{ADMIN}:{password}".encode()).decode()
    is_admin = is_secret(request.headers.get("Authorization", ""), f"Basic {proof}")
    if not current_app.config["OPEN_PAGE"] and not is_admin:
        challenge = WWWAuthenticate("basic", {"realm": "dev Manager", "charset": "UTF-8"})
        words = f"The user is {ADMIN}, the password that of --admin-password."
        abort(401, words, www_authenticate=challenge)


def check_writer() -> None:
    """Answer 401 or 403 unless the form was sent from this page."""
    check_reader()
    host = request.headers.get("Host", "")
    if request.headers.get("Origin") not in (f"http://{host}", f"https://{host}"):
        abort(403, "This form was not sent from the dev Manager's own page. Programs use the API.")
