"""Verifies tokens with PyJWT, as a resource server would: somebody else's code.

Prints one row for each token and one column for each JWKS. Each token must
verify with each JWKS, and must not once its claims are changed.

Exit codes: 0 all as it must be, 1 not, 2 usage.
"""

import argparse
import base64
import json
import sys
import urllib.request

import cryptography
import jwt
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

KEYS = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}

# PyJWT 2.6 knows Ed25519 only by its older name, EdDSA (RFC 8037); RFC 9864
# gave it a name of its own. It is the same signature: bind the new name to
# PyJWT's own implementation.
try:
    jwt.register_algorithm("Ed25519", OKPAlgorithm())
except ValueError:
    pass  # a later PyJWT, which knows it


def load(source):
    """A JWKS from an address or a file, as text."""
    if source.startswith("http://"):
        with urllib.request.urlopen(source, timeout=10) as reply:
            return reply.read().decode()
    with open(source, encoding="utf-8") as file:
        return file.read()


def by_kid(text):
    """The JWKs of a JWKS by `kid`; each has one, and no two the same."""
    jwks = json.loads(text)["keys"]
    keys = {jwk["kid"]: jwk for jwk in jwks}
    if len(keys) != len(jwks):
        raise SystemExit("error: two keys of the JWKS have the same kid")
    private = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
    for jwk in jwks:
        if private & jwk.keys():
            raise SystemExit(f"error: the JWKS shows private members of {jwk['kid']}")
    return keys


def verdict(token, keys, issuer):
    """`None` if the token verifies, else why not."""
    header = jwt.get_unverified_header(token)
    jwk = keys.get(header.get("kid"))
    if jwk is None:
        return "unknown kid"
    key = KEYS[jwk["kty"]].from_jwk(json.dumps(jwk))
    try:
        # The JWKS says the algorithm, not the token (RFC 8725 section 3.1).
        jwt.decode(
            token,
            key,
            algorithms=[jwk["alg"]],
            issuer=issuer,
            options={"require": ["exp", "iat", "iss"], "verify_aud": False},
        )
    except jwt.PyJWTError as error:
        return f"{type(error).__name__}: {error}"
    return None


def tampered(token):
    """The token with one letter of its `sub` changed."""
    header, payload, signature = token.split(".")
    claims = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    changed = claims.replace(b"alice", b"mally", 1)
    if changed == claims:
        raise SystemExit("error: the token has no claim of alice to change")
    payload = base64.urlsafe_b64encode(changed).rstrip(b"=").decode()
    return f"{header}.{payload}.{signature}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--issuer", required=True, help="the `iss` that each token must have")
    parser.add_argument("--tokens", required=True, help="a file: LABEL TOKEN on each line")
    parser.add_argument("jwks", nargs="+", help="NAME=ADDRESS or NAME=FILE")
    args = parser.parse_args()

    columns = []
    for pair in args.jwks:
        name, found, source = pair.partition("=")
        if not found:
            parser.error(f"expected NAME=ADDRESS or NAME=FILE, got {pair}")
        columns.append((name, by_kid(load(source))))
    with open(args.tokens, encoding="utf-8") as file:
        tokens = [line.split() for line in file if line.strip()]
    if not tokens:
        parser.error(f"expected tokens in {args.tokens}, got none")

    names = [name for name, _ in columns]
    widths = [max(len(name), 8) for name in names]
    names = "  ".join(f"{name:{width}}" for name, width in zip(names, widths))
    label_width = max(len(label) for label, _ in tokens)
    print(f"verified by PyJWT {jwt.__version__} and cryptography {cryptography.__version__}")
    print(f"{'token':{label_width}}  {'alg':7}  {'kid':12}  {names}  tampered")
    failures = []
    for label, token in tokens:
        header = jwt.get_unverified_header(token)
        cells = []
        for (name, keys), width in zip(columns, widths):
            why = verdict(token, keys, args.issuer)
            cells.append(f"{'ok' if why is None else 'FAILED':{width}}")
            if why is not None:
                failures.append(f"{label} against {name}: {why}")
        # Refused for its signature, and not for want of a key.
        refusal = verdict(tampered(token), columns[0][1], args.issuer) or "accepted"
        refused = refusal.startswith("InvalidSignatureError")
        if not refused:
            failures.append(f"{label}, its claims changed: expected a bad signature, got {refusal}")
        print(
            f"{label:{label_width}}  {header['alg']:7}  {header['kid'][:11]}…  "
            f"{'  '.join(cells)}  {'refused' if refused else 'NOT SO'}"
        )
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
