//! `.env` of the working directory: its syntax, and who may have written it. Knows no variable's
//! meaning.
//!
//! Values are literal: nothing is expanded, so a secret may contain a `$`.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
#[cfg(unix)]
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

const MIB: u64 = 1024 * 1024;

/// The variables of the file at `path`; none if there is no such file.
pub(super) fn read(path: &Path) -> Result<Vec<(String, String)>> {
    let name = path.display();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot open {name}")),
    };
    let metadata = file
        .metadata()
        .with_context(|| format!("cannot read {name}"))?;
    refuse_if_others_can_write(&metadata).with_context(|| name.to_string())?;
    let bytes = limited(file, 1).with_context(|| format!("cannot read {name}"))?;
    let text = String::from_utf8(bytes).with_context(|| format!("cannot read {name}"))?;
    parse(&text).with_context(|| name.to_string())
}

/// The bytes of a file, if it has no more than this.
pub(super) fn limited(file: File, max_mib: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max_mib * MIB + 1).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= max_mib * MIB,
        "it is longer than {max_mib} MiB"
    );
    Ok(bytes)
}

/// Whoever can write the file decides where uploads go, and with which credentials.
fn refuse_if_others_can_write(metadata: &Metadata) -> Result<()> {
    ensure!(
        !everyone_can_write(metadata),
        "any user of this machine can write it; remove that permission: chmod o-w .env"
    );
    // The owner of this entry is the user that runs the process. Other systems have no such entry.
    #[cfg(unix)]
    if let Ok(this_process) = std::fs::metadata("/proc/self") {
        ensure!(
            [0, this_process.uid()].contains(&metadata.uid()),
            "it belongs to another user, who can write it; change its owner with chown"
        );
    }
    Ok(())
}

#[cfg(unix)]
pub(super) fn everyone_can_write(file: &Metadata) -> bool {
    file.mode() & 0o002 != 0
}

/// Windows has lists of permissions, which are not looked at.
#[cfg(windows)]
pub(super) fn everyone_can_write(_: &Metadata) -> bool {
    false
}

fn parse(text: &str) -> Result<Vec<(String, String)>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut variables: Vec<(String, String)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        // The text of a line is never part of an error: it may be a secret.
        let variable = parse_line(line.trim()).with_context(|| format!("line {number}"))?;
        let Some((name, value)) = variable else {
            continue;
        };
        if variables.iter().any(|(other, _)| *other == name) {
            bail!("line {number}: {name} is set for the second time; remove one of the lines");
        }
        variables.push((name, value));
    }
    Ok(variables)
}

/// Parses `NAME=value`, also after `export`, as in a shell script. `None` for a line without a
/// variable.
fn parse_line(line: &str) -> Result<Option<(String, String)>> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line
        .split_once('=')
        .context("is not NAME=value; begin a comment with `#`")?;
    let (name, value) = (name.trim(), value.trim());
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    ensure!(
        is_name,
        "is not NAME=value: a name has letters, digits and `_` only"
    );
    let value = parse_value(value).with_context(|| format!("the value of {name}"))?;
    ensure!(
        !value.contains('\0'),
        "the value of {name} has a NUL character; remove it"
    );
    Ok(Some((name.to_owned(), value)))
}

fn parse_value(value: &str) -> Result<String> {
    let Some(quote) = value.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
        let comment = value
            .match_indices('#')
            .map(|(at, _)| at)
            .find(|at| *at == 0 || value[..*at].ends_with([' ', '\t']));
        return Ok(value[..comment.unwrap_or(value.len())]
            .trim_end()
            .to_owned());
    };
    let mut text = String::new();
    let mut rest = value[1..].chars();
    loop {
        match rest.next() {
            None => bail!("has a quote that is not closed on the same line"),
            Some(c) if c == quote => break,
            Some('\\') if quote == '"' => match rest.next() {
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some('t') => text.push('\t'),
                Some(c @ ('"' | '\\' | '$' | '`')) => text.push(c),
                _ => bail!(
                    "has a `\\` that escapes nothing; write `\\\\`, or put the value in single quotes"
                ),
            },
            Some(c) => text.push(c),
        }
    }
    let after = rest.as_str().trim_start();
    ensure!(
        after.is_empty() || after.starts_with('#'),
        "has text after its closing quote"
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn values_are_read_as_written() {
        let text = "\u{feff}# a comment\r\nA=1\r\nexport B = two words  # comment\n\nC='a $b \\n # c'\nD=\"x\\\"\\n$y\" # d\n\
            E=\nF=https://h/#fragment\nG=pa$$word${HOME}\n_H1=\"\"";
        let variables = parse(text).unwrap();
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "a $b \\n # c"),
            ("D", "x\"\n$y"),
            ("E", ""),
            ("F", "https://h/#fragment"),
            ("G", "pa$$word${HOME}"),
            ("_H1", ""),
        ];
        assert_eq!(
            variables,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_line_that_is_invalid_is_named_by_its_number_and_never_repeated() {
        for (text, says) in [
            ("A=1\nhidden", "line 2: is not NAME=value"),
            ("hid den=1", "line 1: is not NAME=value"),
            ("\n\nA='hidden", "line 3: the value of A has a quote"),
            (
                "A=\"hidden\" hidden",
                "line 1: the value of A has text after",
            ),
            ("A=\"hid\\den\"", "line 1: the value of A has a `\\`"),
            ("A=hid\0den", "line 1: the value of A has a NUL"),
            ("A=1\nA=hidden", "line 2: A is set for the second time"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err()).replace("A: has", "A has");
            assert!(error.starts_with(says), "{text:?}: {error}");
            assert!(!error.contains("hid"), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        assert!(read(&path).unwrap().is_empty(), "there is none");
        std::fs::write(&path, "A=1").unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains(".env") && error.contains("chmod"), "{error}");
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read_in_part() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        // The limit is inside of a character.
        let comment = "# a comment of å\n".repeat(70_000);
        std::fs::write(&path, format!("{comment}A=1")).unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("longer than 1 MiB"), "{error}");
    }
}
