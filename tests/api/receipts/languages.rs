//! Programs in other languages that check receipts, in `examples/receipts`.

use std::process::{Command, Output};

use super::{KEYS, app_with, pem, verified};
use serde_json::Value;

/// The output of a program that checks `receipt` with the keys in a file.
fn run(command: &[&str], file: &str, keys: &str, receipt: &str) -> Output {
    let path = format!("{}/examples/receipts/{file}", env!("CARGO_MANIFEST_DIR"));
    let mut program = Command::new(command[0]);
    program.args(&command[1..]).args([&path, keys, receipt]);
    program.output().unwrap()
}

/// Those whose language is on this machine; the others cannot be run here.
#[tokio::test]
async fn the_examples_in_other_languages_check_receipts() {
    // The second key is that of the receipt: each program has to find it.
    let (old, new) = (pem(), pem());
    let upload = verified(&app_with(&old).await).await;
    let after = app_with(&format!("{new}{old}")).await;
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("jwks.json");
    std::fs::write(&keys, after.get(KEYS).await.text().await.unwrap()).unwrap();
    let keys = keys.to_str().unwrap();
    let receipt = upload["receipt"].as_str().unwrap();
    let foreign = verified(&app_with(&pem()).await).await;
    let foreign = foreign["receipt"].as_str().unwrap();
    let [header, _, signature] = receipt.split('.').collect::<Vec<_>>()[..] else {
        panic!("a receipt has three segments");
    };
    let claims = foreign.split('.').nth(1).unwrap();
    let tampered = format!("{header}.{claims}.{signature}");
    let longer = format!("{receipt}.x");

    let mut tried = Vec::new();
    for (command, is_here, file) in [
        (&["node"][..], &["--version"][..], "check.mjs"),
        (&["python3"], &["-c", "import cryptography"], "check.py"),
        (&["go", "run"], &["version"], "check.go"),
        (&["php"], &["--version"], "check.php"),
        (&["ruby"], &["--version"], "check.rb"),
        (&["java"], &["--version"], "Check.java"),
    ] {
        let is_here = Command::new(command[0]).args(is_here).output();
        if !is_here.is_ok_and(|output| output.status.success()) {
            continue;
        }
        let output = run(command, file, keys, receipt);
        assert!(output.status.success(), "{file}: {output:?}");
        let claims: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(claims["key"], upload["key"], "{file}");
        assert_eq!(claims["metadata"]["album"], "앨범 7", "{file}");
        for invalid in [&tampered, &longer, foreign, ""] {
            let output = run(command, file, keys, invalid);
            assert!(!output.status.success(), "{file}: {invalid}");
            assert!(output.stdout.is_empty(), "{file}: {output:?}");
        }
        tried.push(file);
    }
    // CI has this one.
    assert!(tried.contains(&"check.mjs"), "{tried:?}");
}
