//! `presignd ticket`, and the programs in other languages that do the same.

use std::process::{Command, Stdio};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
};
use base64::prelude::{BASE64_STANDARD, Engine};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::auth::jwt::JWT;
use crate::helpers::{Grant, answer, post};
use crate::process::{Running, one_line_and_exit_1, run};
use crate::receipts::pem;

const POLICIES: &str =
    "[policies.avatar]\nkey = '{vars.tenant}/{caller}/{uuid}'\n[policies.default]\n";

fn dev(folder: &TempDir) -> (Running, String) {
    std::fs::write(folder.path().join("policies.toml"), POLICIES).unwrap();
    let policies = [("UPLOAD_POLICIES_FILE", "policies.toml")];
    Running::dev(folder.path(), &[&JWT[..], &policies].concat())
}

async fn ask(base: &str, ticket: &str, file: &Value) -> reqwest::Response {
    post(base, &format!("/t/{ticket}/upload/presigned-url"), file).await
}

#[tokio::test]
async fn a_minted_ticket_narrows_what_may_be_uploaded() {
    let folder = TempDir::new().unwrap();
    let (_dev, base) = dev(&folder);
    let args = "ticket --sub user-17 --policy avatar --var tenant=acme --max-size 5KiB --content-type image/*";
    let args: Vec<&str> = args.split(' ').collect();
    let (output, explained) = run(&args, &JWT);
    assert!(output.status.success(), "{explained}");
    let ticket = String::from_utf8(output.stdout).unwrap();
    let png = json!({"filename": "a.png", "contentType": "image/png", "size": 5120});
    let grant: Grant = answer(201, ask(&base, ticket.trim(), &png).await).await;
    assert!(grant.key.starts_with("acme/user-17/"), "{}", grant.key);
    let large = json!({"filename": "a.png", "contentType": "image/png", "size": 5121});
    let response = ask(&base, ticket.trim(), &large).await;
    assert_eq!(response.status(), 422);

    for language in ["Node", "Python", "Ruby", "PHP", "Go", "C#"] {
        let (_, lines) = explained
            .split_once(&format!("\n{language}:\n"))
            .expect(language);
        let lines: Vec<&str> = lines.lines().take(3).collect();
        let [first, .., last] = lines[..] else {
            panic!("{language}: {lines:?}")
        };
        assert!(
            !first.contains("Sign") && last.to_lowercase().contains("ticket"),
            "{lines:?}"
        );
    }
    assert!(!explained.contains(JWT[3].1) && !explained.contains(ticket.trim()));

    one_line_and_exit_1(&run(&["ticket"], &JWT[..3]).0, &["--key"]);
    one_line_and_exit_1(&run(&["ticket", "--var", "a="], &JWT).0, &["vars.a"]);
    let quoted = format!("'{}'", JWT[3].1);
    let quoted = [&JWT[..3], &[("JWT_SECRET", &quoted)]].concat();
    one_line_and_exit_1(&run(&["ticket"], &quoted).0, &["JWT_SECRET", "quotes"]);
    // Where tokens list policies, one without a list may use none.
    let listed = [&JWT[..], &[("JWT_POLICIES_CLAIM", "scopes")]].concat();
    one_line_and_exit_1(
        &run(&["ticket"], &listed).0,
        &["JWT_POLICIES_CLAIM", "--policy"],
    );
    let (output, explained) = run(&["ticket", "--policy", "avatar"], &listed);
    assert!(output.status.success(), "{explained}");
    assert!(
        explained.contains("\"scopes\": [\n    \"avatar\"\n  ]"),
        "{explained}"
    );
    // What applies to a secret is not said of a private key.
    let folder = TempDir::new().unwrap();
    let key = folder.path().join("key.pem");
    std::fs::write(&key, pem()).unwrap();
    let key = ["ticket", "--key", key.to_str().unwrap()];
    let (output, explained) = run(&key, &JWT[..3]);
    assert!(output.status.success(), "{explained}");
    assert!(!explained.contains("JWT_SECRET") && explained.contains("JWT library"));
    assert!(explained.contains("--kid"), "{explained}");
    let (_, explained) = run(&[&key[..], &["--kid", "a"]].concat(), &JWT[..3]);
    assert!(!explained.contains("--kid"), "{explained}");
    // An EC key of either curve that the service accepts signs.
    for (curve, algorithm) in [
        (&ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::ES256),
        (&ECDSA_P384_SHA384_FIXED_SIGNING, Algorithm::ES384),
    ] {
        let file = folder.path().join("ec.pem");
        let key = EcdsaKeyPair::generate(curve).unwrap().to_pkcs8v1().unwrap();
        let key = BASE64_STANDARD.encode(key.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n");
        std::fs::write(&file, pem).unwrap();
        let (output, explained) = run(&["ticket", "--key", file.to_str().unwrap()], &JWT[..3]);
        assert!(output.status.success(), "{explained}");
        let token = String::from_utf8(output.stdout).unwrap();
        let header = jsonwebtoken::decode_header(token.trim()).unwrap();
        assert_eq!(header.alg, algorithm);
    }
    let (output, _) = run(&["ticket", "--key", "/no/such/file"], &JWT);
    one_line_and_exit_1(&output, &["/no/such/file"]);
}

/// Those whose language is on this machine; the others cannot be run here.
#[tokio::test]
async fn the_programs_in_other_languages_mint_tickets_too() {
    let folder = TempDir::new().unwrap();
    let (_dev, base) = dev(&folder);
    let mut tried = Vec::new();
    for (command, file) in [
        ("node", "ticket.mjs"),
        ("python3", "ticket.py"),
        ("ruby", "ticket.rb"),
        ("php", "ticket.php"),
        ("go run", "ticket.go"),
        ("dotnet run", "ticket.cs"),
    ] {
        let mut words = command.split(' ');
        let name = words.next().unwrap();
        let mut version = Command::new(name);
        version
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let is_here = version.status().is_ok();
        if !is_here {
            continue;
        }
        let path = format!("{}/src/cli/ticket/{file}", env!("CARGO_MANIFEST_DIR"));
        let words: Vec<&str> = words.collect();
        let mint = |variables: &[(&str, &str)]| {
            Command::new(name)
                .args(&words)
                .arg(&path)
                .envs(variables.iter().copied())
                .output()
                .unwrap()
        };
        for missing in 1..JWT.len() {
            let mut others = JWT.to_vec();
            let (variable, _) = others.remove(missing);
            let refused = mint(&others);
            let why = String::from_utf8_lossy(&refused.stderr);
            assert!(!refused.status.success(), "{file} without {variable}");
            assert!(why.contains(variable), "{file}: {why}");
        }
        let output = mint(&JWT);
        assert!(output.status.success(), "{file}: {output:?}");
        let ticket = String::from_utf8(output.stdout).unwrap();
        let png = json!({"filename": "a.png", "contentType": "image/png", "size": 7});
        let response = ask(&base, ticket.trim(), &png).await;
        assert_eq!(response.status(), 201, "{file}");
        let text = json!({"filename": "a.txt", "contentType": "text/plain", "size": 7});
        let response = ask(&base, ticket.trim(), &text).await;
        assert_eq!(response.status(), 422, "{file}");
        tried.push(file);
    }
    // CI has these.
    assert!(
        tried.contains(&"ticket.mjs") && tried.contains(&"ticket.py"),
        "{tried:?}"
    );
}
