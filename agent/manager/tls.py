"""What a failure of TLS means, in words for a person: OpenSSL's are for those who know OpenSSL."""

import re
import ssl

# By what OpenSSL's words for it have.
_WORDS = {
    "LOCAL ISSUER|SELF.SIGNED|VERIFY THE FIRST": "its certificate is of a CA that this host does"
    " not trust: set MANAGER_CA_FILE to that CA's",
    "HAS EXPIRED": "its certificate has expired, or this host's clock is wrong",
    "NOT YET VALID": "its certificate is not valid yet, or this host's clock is wrong",
    "MISMATCH": "its certificate is for another host: MANAGER_URL must have the name in it",
    "ALERT.*CERT|UNKNOWN_CA|HANDSHAKE_FAILURE": "it does not accept the client certificate, or"
    " wants one: see MANAGER_CERT_FILE",
    "WRONG_VERSION|RECORD_LAYER|PACKET_LENGTH": "no TLS is spoken there: write http:// in"
    " MANAGER_URL, or the port that has https",
    "PROTOCOL": "it knows no TLS 1.2 or newer: it must be upgraded",
}


def words_for(error: ssl.SSLError) -> str:
    """What failed in TLS with the Manager, and what to do about it."""
    told = f"{error.reason} {getattr(error, 'verify_message', '')}"
    found = (words for pattern, words in _WORDS.items() if re.search(pattern, told.upper()))
    return next(found, f"TLS failed: {told.replace('_', ' ').lower()}")
