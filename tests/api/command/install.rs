//! What an installation adds to the binary: completions for shells, and manual pages.

use std::process::Command;

use tempfile::TempDir;

use crate::process::run;

/// What bash suggests after these words, of which the last one is incomplete.
fn suggestions(words: &[&str]) -> Vec<String> {
    let (script, errors) = run(&["completions", "bash"], &[]);
    assert!(script.status.success(), "{errors}");
    let script = String::from_utf8(script.stdout).unwrap();
    let script = format!(
        r#"{script}
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _presignd presignd "${{@: -1}}" "${{@: -2:1}}"
        printf '%s\n' "${{COMPREPLY[@]}}""#
    );
    let output = Command::new("bash")
        .args(["-c", &script, "bash", "presignd"])
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let output = String::from_utf8(output.stdout).unwrap();
    output.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_shells() {
    assert_eq!(suggestions(&["heal"]), ["healthcheck"]);
    assert_eq!(suggestions(&["check", "--fix-c"]), ["--fix-cors"]);
    assert_eq!(suggestions(&["completions", "z"]), ["zsh"]);
}

#[test]
fn there_is_a_script_for_each_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (script, errors) = run(&["completions", shell], &[]);
        assert!(script.status.success(), "{shell}: {errors}");
        let script = String::from_utf8(script.stdout).unwrap();
        assert!(script.contains("healthcheck"), "{shell}: {script}");
    }
}

#[test]
fn each_command_has_a_manual_page_that_man_renders() {
    let folder = TempDir::new().unwrap();
    let pages = folder.path().join("man1");
    let (output, errors) = run(&["man", pages.to_str().unwrap()], &[]);
    assert!(output.status.success(), "{errors}");
    for (page, says) in [
        ("presignd.1", "AWS_S3_BUCKET_NAME"),
        ("presignd-check.1", "--fix-cors"),
        ("presignd-serve.1", "the environment names"),
        ("presignd-completions.1", "powershell"),
    ] {
        let output = Command::new("groff")
            .args(["-man", "-Tascii", "-P-cbou", "-ww"])
            .arg(pages.join(page))
            .output()
            .expect("groff renders manual pages (Debian: groff-base)");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && errors.is_empty(),
            "{page}: {errors}"
        );
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(says), "{page}: {text}");
    }
}
