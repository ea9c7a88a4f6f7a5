"""Verifiers of PyJWT: one line asks for a verdict on a token, one line answers
for each of them, and for one that has just started. They keep a set for as long
as they are told, and do not fetch again at an unknown `kid`."""

import json
import os
import socket
import sys
import time

import jwt

ASKED = json.loads(os.environ["VERIFIERS"])
socket.setdefaulttimeout(ASKED["patience_ms"] / 1000)


def verifier(url):
    return jwt.PyJWKClient(url, lifespan=ASKED["cache_ms"] / 1000)


def verdict(client, token):
    try:
        # Not get_signing_key: that one fetches again at an unknown `kid`.
        keys = client.get_signing_keys()
    except (jwt.exceptions.PyJWKClientError, OSError, ValueError) as error:
        return f"no set: {type(error).__name__}: {error}"
    kid = jwt.get_unverified_header(token)["kid"]
    key = client.match_kid(keys, kid)
    if key is None:
        return "unknown kid"
    try:
        jwt.decode(
            token,
            key.key,
            algorithms=["ES256"],
            issuer=ASKED["issuer"],
            leeway=ASKED["leeway_s"],
            options={"require": ["exp", "iat", "iss"]},
        )
    except jwt.PyJWTError as error:
        return f"{type(error).__name__}: {error}"
    return "ok"


def main():
    verifiers = [verifier(url) for url in ASKED["urls"]]
    for line in sys.stdin:
        asked = json.loads(line)
        all_of_them = [*verifiers[: asked["open"]], verifier(ASKED["newcomer"])]
        said = [verdict(one, asked["token"]) for one in all_of_them]
        answer = {"id": asked["id"], "at": int(time.time() * 1000), "said": said}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
