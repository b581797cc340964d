"""What a failure of TLS means, in words for a person: OpenSSL's are for those who know OpenSSL."""

import ssl

_CA = "its certificate is of a CA that this host does not trust: set MANAGER_CA_FILE to that CA's"
_OWN = "it does not accept the client certificate, or wants one: see MANAGER_CERT_FILE"
_PLAIN = "no TLS is spoken there: write http:// in MANAGER_URL, or the port that has https"
_OLD = "it knows no TLS 1.2 or newer: it must be upgraded"
# By the number of x509_vfy.h.
_CERTIFICATES = {
    9: "its certificate is not valid yet, or this host's clock is wrong",
    10: "its certificate has expired, or this host's clock is wrong",
    **dict.fromkeys((18, 19, 20, 21), _CA),
    **dict.fromkeys(
        (62, 64), "its certificate is for another host: MANAGER_URL must have the name in it"
    ),
}
# By words in OpenSSL's name for a failure, of which there are several for each.
_FAILURES = {
    "CERTIFICATE": _OWN,
    "UNKNOWN_CA": _OWN,
    "HANDSHAKE_FAILURE": _OWN,
    "WRONG_VERSION": _PLAIN,
    "RECORD_LAYER_FAILURE": _PLAIN,
    "PACKET_LENGTH": _PLAIN,
    "PROTOCOL": _OLD,
}


def words_for(error: ssl.SSLError) -> str:
    """What failed in TLS with the Manager, and what to do about it."""
    reason = error.reason or "no reason was given"
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _CERTIFICATES.get(error.verify_code)
        return known or f"its certificate is not accepted: {error.verify_message}"
    found = next((words for name, words in _FAILURES.items() if name in reason), "")
    return found or f"TLS failed: {reason.replace('_', ' ').lower()}"
