"""Prints one JSON object for tests/independent.rs: {jwks, tokens: [{alg, token, proof}]}, for the issuer, the audience, the
time, the method and the URL in its arguments: access tokens that are bound to a key, and DPoP proofs by that key.

Made by the Python package `jwcrypto`, which shares no code with holdfast's own libraries.
"""

import base64
import hashlib
import json
import sys
import uuid

from jwcrypto import jwk, jws

issuer, audience, now, method, url = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]
signing = jwk.JWK.generate(kty="EC", crv="P-256", alg="ES256", kid="issuer", use="sig")
tokens = []


def new_key(alg):
    """A key of the type that the algorithm needs."""
    if alg[:2] in ("RS", "PS"):
        return jwk.JWK.generate(kty="RSA", size=2048)
    if alg == "EdDSA":
        return jwk.JWK.generate(kty="OKP", crv="Ed25519")
    return jwk.JWK.generate(kty="EC", crv={"ES256": "P-256", "ES384": "P-384"}[alg])


def signed(key, header, claims):
    """A JWT in compact serialization."""
    made = jws.JWS(json.dumps(claims).encode())
    made.add_signature(key, protected=json.dumps(header))
    return made.serialize(compact=True)


for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"):
    key = new_key(alg)
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": "auth0|" + alg,
        "iat": now,
        "exp": now + 600,
        "email": "alice@example.com",
        "cnf": {"jkt": key.thumbprint()},
    }
    token = signed(signing, {"alg": "ES256", "kid": "issuer", "typ": "JWT"}, claims)
    ath = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).decode().rstrip("=")
    proof = signed(
        key,
        {"alg": alg, "typ": "dpop+jwt", "jwk": key.export_public(as_dict=True)},
        {"htm": method, "htu": url, "iat": now, "jti": str(uuid.uuid4()), "ath": ath},
    )
    tokens.append({"alg": alg, "token": token, "proof": proof})

print(json.dumps({"jwks": {"keys": [signing.export_public(as_dict=True)]}, "tokens": tokens}))
