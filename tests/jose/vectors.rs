//! The RFCs' own examples.

use sealkeeper::jose::{
    Algorithm, BadSignature, CompactJws, InvalidJwk, Jwk, PublicKey, RawKey, ServedSet, Verifier,
    base64url, thumbprint,
};

/// A public JWK from an RFC, which rarely has the members that we ask for.
fn key(members: &str, alg: &str) -> Jwk {
    let text = format!(r#"{{{members},"kid":"rfc","alg":"{alg}"}}"#);
    Jwk::from_json(text.as_bytes()).unwrap()
}

/// Parses and verifies, and sees a flipped bit.
fn assert_verifies(jwk: &Jwk, token: &str, payload: &[u8]) {
    let jws = CompactJws::parse(token.as_bytes(), 10_000).unwrap();
    assert_eq!(jws.header.algorithm, jwk.algorithm);
    assert_eq!(jws.payload, payload);
    let verifier = Verifier::new(jwk.algorithm, &jwk.key).unwrap();
    verifier.verify(jws.signing_input, &jws.signature).unwrap();
    let mut other = jws.signature;
    other[20] ^= 1;
    assert_eq!(
        verifier.verify(jws.signing_input, &other),
        Err(BadSignature::Mismatch)
    );
}

/// The claims of RFC 7515 appendices A.1 to A.3.
const CLAIMS: &[u8] =
    b"{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";

const CLAIMS_B64: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

#[test]
fn rfc_7515_a_2_rs256() {
    let n = concat!(
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt",
        "0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSX",
        "ndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5",
        "IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    );
    let signature = concat!(
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W",
        "2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkS",
        "jtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnv",
        "Wh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    );
    let jwk = key(&format!(r#""kty":"RSA","n":"{n}","e":"AQAB""#), "RS256");
    let token = format!("eyJhbGciOiJSUzI1NiJ9.{CLAIMS_B64}.{signature}");
    assert_verifies(&jwk, &token, CLAIMS);
}

#[test]
fn rfc_7515_a_3_es256() {
    let jwk = key(
        concat!(
            r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","#,
            r#""y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#,
        ),
        "ES256",
    );
    let token = format!(
        "eyJhbGciOiJFUzI1NiJ9.{CLAIMS_B64}.{}",
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    );
    assert_verifies(&jwk, &token, CLAIMS);
}

#[test]
fn rfc_7515_a_4_es512() {
    let jwk = key(
        concat!(
            r#""kty":"EC","crv":"P-521","#,
            r#""x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","#,
            r#""y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2""#,
        ),
        "ES512",
    );
    let token = concat!(
        "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPW",
        "ROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKv",
        "U8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
    );
    assert_verifies(&jwk, token, b"Payload");
}

const RFC_7517_A_1_N: &str = concat!(
    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECP",
    "ebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2Qvzq",
    "Y368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0",
    "fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
);

#[test]
fn rfc_7517_a_1_a_set_of_public_keys() {
    let text = format!(
        concat!(
            r#"{{"keys": [{{"kty":"EC", "crv":"P-256","#,
            r#""x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","#,
            r#""y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "use":"enc", "kid":"1"}},"#,
            r#"{{"kty":"RSA", "n":"{}", "e":"AQAB", "alg":"RS256", "kid":"2011-04-29"}}]}}"#,
        ),
        RFC_7517_A_1_N
    );
    let served = ServedSet::read(text.as_bytes()).unwrap();
    // The first one is for encryption; the second one is for us.
    assert_eq!(served.others.len(), 1);
    assert_eq!(served.others[0].kid.as_deref(), Some("1"));
    assert_eq!(served.others[0].why, InvalidJwk::Use { got: "enc".into() });
    let [rsa] = &served.set.keys[..] else {
        panic!("expected one key, got {:?}", served.set.keys);
    };
    assert_eq!(rsa.kid, "2011-04-29");
    assert_eq!(rsa.algorithm, Algorithm::Rs256);
}

#[test]
fn rfc_7517_a_2_private_keys_are_refused() {
    let text = concat!(
        r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","#,
        r#""y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","#,
        r#""d":"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE","use":"enc","kid":"1"}"#,
    );
    assert_eq!(
        Jwk::from_json(text.as_bytes()),
        Err(InvalidJwk::PrivateMember { name: "d" })
    );
}

#[test]
fn rfc_7638_3_1_the_thumbprint_of_an_rsa_key() {
    let n = base64url::decode(RFC_7517_A_1_N).unwrap();
    let key = PublicKey::rsa(&n, &[1, 0, 1]).unwrap();
    assert_eq!(
        thumbprint(&key),
        "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    );
}

/// RFC 8037 appendix A.2.
fn rfc_8037_key() -> Jwk {
    key(
        r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#,
        "EdDSA",
    )
}

#[test]
fn rfc_8037_a_2_the_public_key_of_the_seed() {
    let seed = base64url::decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let secret = ed25519_dalek::SigningKey::from_bytes(&seed.try_into().unwrap());
    let x = secret.verifying_key().to_bytes().to_vec();
    assert_eq!(rfc_8037_key().key.raw(), &RawKey::Ed25519 { x });
}

#[test]
fn rfc_8037_a_3_the_thumbprint_of_an_ed25519_key() {
    assert_eq!(
        thumbprint(&rfc_8037_key().key),
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    );
}

#[test]
fn rfc_8037_a_4_ed25519() {
    let token = concat!(
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.",
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    );
    assert_verifies(&rfc_8037_key(), token, b"Example of Ed25519 signing");
}
