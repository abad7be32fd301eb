"""Prints one JSON object for tests/independent.rs: {jwks, key, tokens: [{alg, signed, nested}]}, for the issuer, the audience
and the time in its arguments.

Made by the Python package `jwcrypto`, which shares no code with holdfast's own libraries.
"""

import json
import sys

from jwcrypto import jwe, jwk, jws

issuer, audience, now = sys.argv[1], sys.argv[2], int(sys.argv[3])
sealing = jwk.JWK.generate(kty="RSA", size=2048)
keys, tokens = [], []


def new_key(alg):
    """A key of the type that the algorithm needs."""
    if alg[:2] in ("RS", "PS"):
        return jwk.JWK.generate(kty="RSA", size=2048, alg=alg, kid=alg, use="sig")
    if alg == "EdDSA":
        return jwk.JWK.generate(kty="OKP", crv="Ed25519", alg=alg, kid=alg, use="sig")
    return jwk.JWK.generate(kty="EC", crv={"ES256": "P-256", "ES384": "P-384"}[alg], alg=alg, kid=alg, use="sig")


for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"):
    key = new_key(alg)
    keys.append(key.export_public(as_dict=True))
    claims = {
        "iss": issuer,
        "aud": [audience, "https://other.example"],
        "sub": "auth0|" + alg,
        "iat": now,
        "exp": now + 600,
        "email": "alice@example.com",
    }
    token = jws.JWS(json.dumps(claims).encode())
    token.add_signature(key, protected=json.dumps({"alg": alg, "kid": alg, "typ": "JWT"}))
    signed = token.serialize(compact=True)
    nested = jwe.JWE(signed.encode(), protected=json.dumps({"alg": "RSA-OAEP-256", "enc": "A128CBC-HS256", "zip": "DEF"}))
    nested.add_recipient(sealing)
    tokens.append({"alg": alg, "signed": signed, "nested": nested.serialize(compact=True)})

print(json.dumps({"jwks": {"keys": keys}, "key": sealing.export(as_dict=True), "tokens": tokens}))
