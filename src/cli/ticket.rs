//! `presignd ticket`: a ticket to try things out with, and how an application creates its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytesize::ByteSize;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};

use crate::config::Env;
use crate::http::auth::TICKET_CLAIM;
use crate::output::{explain, print};
use crate::upload::Ticket;

/// The comment in each of the [`PROGRAMS`] that stands before the three lines that sign the ticket.
const SIGN: &str = " Sign:";
/// Programs that create a ticket with only what their language brings.
const PROGRAMS: [(&str, &str); 6] = [
    ("Node", include_str!("ticket/ticket.mjs")),
    ("Python", include_str!("ticket/ticket.py")),
    ("Ruby", include_str!("ticket/ticket.rb")),
    ("PHP", include_str!("ticket/ticket.php")),
    ("Go", include_str!("ticket/ticket.go")),
    ("C#", include_str!("ticket/ticket.cs")),
];

#[derive(Debug, clap::Args)]
pub(super) struct TicketArgs {
    /// The caller's name, as in logs and in `{caller}` of keys
    #[arg(long, value_name = "NAME", default_value = "alice")]
    sub: String,
    /// The only policy that the ticket allows
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// The largest size of a file, such as "5 MiB"
    #[arg(long, value_name = "SIZE")]
    max_size: Option<ByteSize>,
    /// A content type that the ticket allows, such as `image/*`; all if there is none
    #[arg(long = "content-type", value_name = "TYPE")]
    content_types: Vec<String>,
    /// A value for `{vars.NAME}` in keys
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    vars: Vec<(String, String)>,
    /// Metadata of each object
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// The lifetime of the ticket; at most 24 hours if it is sent in a path (/t/TICKET)
    #[arg(long = "for", value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    lifetime: Duration,
    /// A file with the issuer's private key in PEM: RSA, EC (P-256) or Ed25519 [default: `JWT_SECRET`]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The id of that key among the issuer's published keys
    #[arg(long, value_name = "ID")]
    kid: Option<String>,
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn ticket(env: &Env, args: TicketArgs) -> Result<()> {
    let variable = |name| {
        if let Some(fault) = env.fault(name) {
            bail!("{fault}");
        }
        env.get(name).with_context(|| {
            format!("{name} is not set; a ticket needs the value that the service has")
        })
    };
    ensure!(!args.sub.is_empty(), "--sub must not be empty");
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let upload = upload(&args);
    Ticket::parse(&upload).map_err(|why| anyhow!("the ticket {why}"))?;
    let (algorithm, key) = if let Some(path) = &args.key {
        let place = path.display();
        let pem = std::fs::read(path).with_context(|| format!("cannot read {place}"))?;
        private_key(&pem).with_context(|| place.to_string())?
    } else {
        let secret = variable("JWT_SECRET");
        let secret = secret.context("there is no key to sign with: name one with --key")?;
        let key = EncodingKey::from_secret(secret.as_bytes());
        (Algorithm::HS256, key)
    };
    let end = now.checked_add(args.lifetime);
    let end = end.context("the lifetime is too long")?;
    let mut claims = json!({
        "iss": variable("JWT_ISSUER")?,
        "aud": variable("JWT_AUDIENCE")?,
        "sub": args.sub,
        "iat": now.as_secs(),
        "exp": end.as_secs(),
        TICKET_CLAIM: upload,
    });
    if let Some(claim) = env.get("JWT_POLICIES_CLAIM") {
        let policy = args.policy.context(
            "JWT_POLICIES_CLAIM is set, so that a token may use only policies that it lists; name one with --policy",
        )?;
        claims[claim] = json!([policy]);
    }
    let has_key_id = args.kid.is_some();
    let mut header = Header::new(algorithm);
    header.kid = args.kid;
    let token = jsonwebtoken::encode(&header, &claims, &key).context("the key cannot sign")?;
    explain(format_args!("A ticket with these claims:\n{claims:#}\n\n"));
    print(format_args!("{token}\n"))?;
    if args.key.is_some() {
        explain(
            "\nIn an application, sign such claims with the private key and your JWT library.\n",
        );
        if !has_key_id {
            explain(
                "The ticket has no `kid`. With JWT_JWKS_URL and several keys there, the service refuses it: name the key with --kid.\n",
            );
        }
        return Ok(());
    }
    explain(
        "\nIn an application, three lines sign such `claims` with the `secret` of JWT_SECRET.\n",
    );
    for (language, program) in PROGRAMS {
        explain(format_args!("\n{language}:\n"));
        let lines = program.lines().skip_while(|line| !line.ends_with(SIGN));
        for line in lines.skip(1).take(3) {
            explain(format_args!("  {}\n", line.trim_start()));
        }
    }
    Ok(())
}

/// The claim, with the members that were given.
fn upload(args: &TicketArgs) -> Value {
    let types = Some(&args.content_types).filter(|types| !types.is_empty());
    let map = |pairs: &[(String, String)]| {
        let map: BTreeMap<_, _> = pairs.iter().cloned().collect();
        (!map.is_empty()).then(|| json!(map))
    };
    let members = [
        ("policy", args.policy.as_ref().map(|policy| json!(policy))),
        ("max_size", args.max_size.map(|size| json!(size.as_u64()))),
        ("content_types", types.map(|types| json!(types))),
        ("vars", map(&args.vars)),
        ("metadata", map(&args.metadata)),
    ];
    let given = members.into_iter();
    let given = given.filter_map(|(name, value)| Some((name.to_owned(), value?)));
    given.collect::<Map<_, _>>().into()
}

fn private_key(pem: &[u8]) -> Result<(Algorithm, EncodingKey)> {
    if let Ok(key) = EncodingKey::from_rsa_pem(pem) {
        return Ok((Algorithm::RS256, key));
    }
    if let Ok(key) = EncodingKey::from_ec_pem(pem) {
        // Only signing tells which curve it is of.
        let curves = [Algorithm::ES256, Algorithm::ES384];
        let signs = |algorithm| jsonwebtoken::encode(&Header::new(algorithm), &json!({}), &key);
        let algorithm = curves.into_iter().find(|curve| signs(*curve).is_ok());
        return Ok((
            algorithm.context("an EC key must be of P-256 or P-384")?,
            key,
        ));
    }
    if let Ok(key) = EncodingKey::from_ed_pem(pem) {
        return Ok((Algorithm::EdDSA, key));
    }
    bail!("it must be a private key in PEM (PKCS#8): RSA, EC (P-256 or P-384) or Ed25519")
}
