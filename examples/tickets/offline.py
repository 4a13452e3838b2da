#!/usr/bin/env python3
"""Checks playback tickets offline, by the key set that Usher publishes.

    offline.py JWKS_FILE_OR_URL TICKET [CONTENT]

Prints the ticket's claims and exits with 0, or says what is wrong and exits with 1. It needs Debian's package
python3-cryptography and nothing else; in production take your language's JWT library and give it the same five rules:
algorithm of the key and not of the token, key by `kid`, `typ`, `aud`, `exp`. No leeway: a ticket is short-lived, and its
player has the next one 20 s before. Keep the key set for 5 minutes, and fetch it again for a `kid` that is not in it.
"""

import base64
import json
import sys
import time
import urllib.request

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verify(key, message, signature):
    """Raises InvalidSignature."""
    if key["kty"] == "OKP" and key["crv"] == "Ed25519":
        ed25519.Ed25519PublicKey.from_public_bytes(decode(key["x"])).verify(signature, message)
    elif key["kty"] == "EC" and key["crv"] == "P-256" and len(signature) == 64:
        x, y = (int.from_bytes(decode(key[name]), "big") for name in "xy")
        pair = (int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        public.verify(utils.encode_dss_signature(*pair), message, ec.ECDSA(hashes.SHA256()))
    else:
        raise InvalidSignature


def check(key_set, ticket, content=None):
    """The claims of a good ticket. Raises ValueError."""
    try:
        message, signature = ticket.rsplit(".", 1)
        header, payload = (json.loads(decode(part)) for part in message.split("."))
        signature = decode(signature)
    except ValueError as problem:
        raise ValueError("not a token") from problem
    if header.get("typ") != "usher-ticket+jwt":
        raise ValueError("not a ticket")
    key = next((key for key in key_set["keys"] if key["kid"] == header.get("kid")), None)
    if key is None:
        raise ValueError("signed by an unknown key")
    if key["alg"] != header.get("alg"):
        raise ValueError("not the algorithm of its key")
    try:
        verify(key, message.encode(), signature)
    except InvalidSignature as problem:
        raise ValueError("a wrong signature") from problem
    if payload["aud"] != "usher-ticket":
        raise ValueError("not for playback")
    if payload["exp"] <= time.time():
        raise ValueError("expired")
    if content is not None and payload["content"] != content:
        raise ValueError("for another content")
    return payload


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    source, ticket = sys.argv[1:3]
    if source.startswith("https://"):
        key_set = json.load(urllib.request.urlopen(source, timeout=5))
    else:
        with open(source, encoding="utf-8") as file:
            key_set = json.load(file)
    try:
        claims = check(key_set, ticket, *sys.argv[3:])
    except ValueError as problem:
        sys.exit(f"refused: {problem}")
    print(json.dumps(claims, indent=2))


if __name__ == "__main__":
    main()
