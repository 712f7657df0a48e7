//! The report: a table for people, JSON for machines.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// Something does not work as well as it could, or not for all clients.
    Warning,
    Failed,
    /// The check could not be made, or does not apply.
    Skipped,
}

/// The result of one check.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub check: &'static str,
    /// The policy that was checked, if the check depends on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The bucket that was checked, if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// How to fix it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// The CORS rules that the bucket should have, if it has others: its own and ours, as
    /// `aws s3api put-bucket-cors --cors-configuration` accepts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors_configuration: Option<Value>,
}

impl Line {
    fn new(check: &'static str, status: Status, detail: impl Into<String>) -> Self {
        Self {
            check,
            policy: None,
            bucket: None,
            status,
            detail: printable(&detail.into()),
            fix: None,
            cors_configuration: None,
        }
    }

    pub(super) fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Status::Ok, detail)
    }

    pub(super) fn warning(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Status::Warning, detail)
    }

    pub(super) fn failed(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Status::Failed, detail)
    }

    pub(super) fn skipped(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Status::Skipped, detail)
    }

    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(printable(&fix.into()));
        self
    }

    pub(super) fn fix_if(self, fix: Option<String>) -> Self {
        match fix {
            Some(fix) => self.fix(fix),
            None => self,
        }
    }

    /// Adds the CORS rules that the bucket should have.
    pub(super) fn with_rules(mut self, rules: &Value) -> Self {
        self.cors_configuration = Some(rules.clone());
        self
    }

    pub(super) fn for_policy(mut self, policy: &str) -> Self {
        self.policy = Some(policy.to_owned());
        self
    }
}

/// All results, in order.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub checks: Vec<Line>,
}

impl Report {
    /// The report on a configuration that cannot be used.
    pub fn from_faults(faults: &[String]) -> Self {
        let lines = faults.iter();
        Self {
            checks: lines.map(|fault| Line::failed("settings", fault)).collect(),
        }
    }

    /// How many checks have failed.
    pub fn failed(&self) -> usize {
        let lines = self.checks.iter();
        lines.filter(|line| line.status == Status::Failed).count()
    }
}

/// Removes control characters and shortens the text: it may come from a store, and must not control
/// the terminal or fill it.
fn printable(text: &str) -> String {
    const LONGEST: usize = 1000;
    let clean = text.chars().filter(|c| !c.is_control());
    let mut short: String = clean.take(LONGEST).collect();
    if short.len() < text.len() && short.chars().count() == LONGEST {
        short.push('…');
    }
    short
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDTH: usize = 100;
        let names: Vec<String> = self
            .checks
            .iter()
            .map(|line| match line.policy.as_ref().or(line.bucket.as_ref()) {
                Some(part) => format!("{} ({part})", line.check),
                None => line.check.to_owned(),
            })
            .collect();
        let name_width = names.iter().map(|name| name.chars().count()).max();
        let name_width = name_width.unwrap_or_default();
        for (line, name) in self.checks.iter().zip(&names) {
            let status = match line.status {
                Status::Ok => "ok",
                Status::Warning => "warning",
                Status::Failed => "FAILED",
                Status::Skipped => "skipped",
            };
            write!(f, "{status:7}  {name:name_width$}  ")?;
            let indent = 7 + 2 + name_width + 2;
            let width = WIDTH.saturating_sub(indent).max(40);
            wrapped(f, &line.detail, width, indent)?;
            if let Some(fix) = &line.fix {
                write!(f, "{:indent$}→ ", "")?;
                wrapped(f, fix, width - 2, indent + 2)?;
            }
        }
        for line in &self.checks {
            if let Some(cors) = &line.cors_configuration {
                let bucket = line.bucket.as_deref().unwrap_or_default();
                let name = if bucket.is_empty() { "" } else { " " };
                writeln!(
                    f,
                    "\nThe CORS rules that the bucket{name}{bucket} should have:\n\n{cors:#}"
                )?;
            }
        }
        Ok(())
    }
}

/// Wraps words at about `width` characters, and indents all lines but the first.
fn wrapped(f: &mut fmt::Formatter<'_>, text: &str, width: usize, indent: usize) -> fmt::Result {
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            write!(f, "\n{:indent$}", "")?;
            used = 0;
        } else if used > 0 {
            f.write_str(" ")?;
            used += 1;
        }
        f.write_str(word)?;
        used += length;
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned_and_wrapped() {
        let report = Report {
            checks: vec![
                Line::ok("clock", "fine"),
                Line::failed("put", "one two three ".repeat(9).trim_end())
                    .fix("do it")
                    .for_policy("a"),
            ],
        };
        let expected = "\
ok       clock    fine
FAILED   put (a)  one two three one two three one two three one two three one two three one two
                  three one two three one two three one two three
                  → do it
";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn a_store_cannot_write_to_the_terminal() {
        let text = format!("\x1b[2J{}\r\n", "x".repeat(2000));
        let line = Line::failed("put", &text).fix(&text);
        for shown in [line.detail, line.fix.unwrap()] {
            assert!(
                shown.starts_with("[2Jxxx") && shown.ends_with("x…"),
                "{shown}"
            );
            assert_eq!(shown.chars().count(), 1001);
        }
    }
}
