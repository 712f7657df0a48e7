//! A file with several public keys, as an issuer needs it that changes from one to another.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use presignd::http::auth::{JwtKey, Keys};

use super::jwt::{IssuerKey, claims, jwt};
use super::{POLICIES, by, refused, spawn};
use crate::helpers::{App, with_policies};

async fn app(pem: &str) -> App {
    let keys = JwtKey::all_from_pem(pem.as_bytes()).unwrap();
    spawn(with_policies(POLICIES), jwt(Keys::from(keys), None)).await
}

#[tokio::test]
async fn a_token_of_any_key_in_the_file_is_accepted_and_of_no_other() {
    let keys = [
        IssuerKey::ec(Algorithm::ES256),
        IssuerKey::rsa(Algorithm::RS256),
        IssuerKey::ec(Algorithm::ES256),
        IssuerKey::ed(),
    ];
    let pems = keys.iter().map(IssuerKey::pem).collect::<Vec<_>>();
    let pem = format!("The new key:\n{}", pems.join("and an old one:\r\n"));
    let app = app(&pem).await;
    for _ in 0..2 {
        for key in &keys {
            let token = key.sign(Some("any"), &claims("alice"));
            assert_eq!(by(&app, &token).await, 201);
        }
    }
    for other in [
        IssuerKey::ec(Algorithm::ES256),
        IssuerKey::ec(Algorithm::ES384),
        IssuerKey::rsa(Algorithm::RS256),
    ] {
        let token = other.sign(None, &claims("alice"));
        refused(&app, &token).await;
    }
    // No public key passes for a shared secret.
    for secret in pems.iter().chain([&pem]) {
        let secret = EncodingKey::from_secret(secret.as_bytes());
        let header = Header::new(Algorithm::HS256);
        let token = jsonwebtoken::encode(&header, &claims("alice"), &secret).unwrap();
        refused(&app, &token).await;
    }
}

#[test]
fn a_file_in_which_one_key_cannot_be_used_is_refused() {
    let good = IssuerKey::ed().pem();
    let certificate = good.replace("PUBLIC KEY", "CERTIFICATE");
    let no_key = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    let short = include_str!("short-rsa.pem");
    for second in [no_key, short, &certificate, &good[1..], &good[..60]] {
        for pem in [format!("{good}{second}"), format!("{second}{good}")] {
            assert!(JwtKey::all_from_pem(pem.as_bytes()).is_err(), "{pem}");
        }
    }
    let chain = JwtKey::all_from_pem(format!("{certificate}{certificate}").as_bytes());
    assert!(chain.unwrap_err().contains("several certificates"));
    assert!(JwtKey::all_from_pem(b"").is_err());
}
