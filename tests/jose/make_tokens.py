"""Prints one JSON line for each token that tests/jose.rs must open: {alg, enc, zip, key, token, payload}.

Made by the Python package `jwcrypto`, which shares no code with holdfast's own libraries.
"""

import json
import secrets

from jwcrypto import jwe, jwk

CONTENT_KEY_BITS = {"A128GCM": 128, "A256GCM": 256, "A128CBC-HS256": 256, "A256CBC-HS512": 512}


def keys(alg, enc):
    """The keys to seal to: one of each kind that fits the algorithm."""
    if alg == "dir":
        yield jwk.JWK.generate(kty="oct", size=CONTENT_KEY_BITS[enc])
    elif alg in ("A128KW", "A256KW"):
        yield jwk.JWK.generate(kty="oct", size=int(alg[1:4]))
    elif alg.startswith("RSA"):
        yield RSA
    else:
        yield from EC


def print_token(alg, enc, compress, key):
    payload = json.dumps({"sub": "auth0|jwcrypto", "alg": alg, "enc": enc, "salt": secrets.token_hex(9)})
    header = {"alg": alg, "enc": enc}
    if compress:
        header["zip"] = "DEF"
    token = jwe.JWE(payload.encode(), protected=json.dumps(header), algs=[alg, enc])
    token.add_recipient(key)
    line = {
        "alg": alg,
        "enc": enc,
        "zip": header.get("zip"),
        "key": key.export(as_dict=True),
        "token": token.serialize(compact=True),
        "payload": payload,
    }
    print(json.dumps(line))


RSA = jwk.JWK.generate(kty="RSA", size=2048)
EC = [jwk.JWK.generate(kty="EC", crv=curve) for curve in ("P-256", "P-384", "P-521")]
ALGORITHMS = ["RSA-OAEP", "RSA-OAEP-256", "ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A256KW", "A128KW", "A256KW", "dir"]

for alg in ALGORITHMS:
    for enc in CONTENT_KEY_BITS:
        for key in keys(alg, enc):
            print_token(alg, enc, False, key)
            print_token(alg, enc, True, key)
