"""Who may read the page and post its forms.

A browser cannot carry the API's token from page to page, and other people's pages can make it
send what it does carry. So the page asks for a password of the owner's choice by HTTP Basic, and
`Origin`, which all of today's browsers send, tells its own forms. docs/SECURITY.md has the rules.
"""

from base64 import b64encode

from flask import abort, current_app, request
from werkzeug.datastructures import WWWAuthenticate

from agent.dev.api.http import is_secret
from agent.dev.api.operator_calls import ADMIN
from agent.host import names_loopback


def check_host() -> None:
    """Answer 403 to a request for another host than loopback (DNS rebinding)."""
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
