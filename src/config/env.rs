//! Where variables come from, and how one is read. A fault names its variable, the rule and what to
//! do, and never contains a secret.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::fs::File;
use std::path::Path;
use std::str::FromStr;

use anyhow::Result;

use super::{VARIABLES, dotenv, typos};

/// The environment of this process and, with lower precedence, `.env` of the working directory.
///
/// - Values are trimmed, and an empty one counts as unset. This holds for all variables that
///   presignd and the AWS SDK read.
/// - Only documented variables in `.env` count: others could make the SDK run a command.
#[derive(Clone, Default)]
pub struct Env {
    values: HashMap<String, String>,
    /// Faults of values that could not be read at all, by the name of the variable.
    faults: BTreeMap<String, String>,
    /// Names in `.env` that are ignored.
    pub(crate) ignored: Vec<String>,
    /// Names of the process that are probably misspelled, and what was meant.
    pub(crate) misspelled: BTreeMap<String, &'static str>,
}

// Omits the values: the log must not contain the process's variables.
debug_name!(Env);

impl Env {
    /// Whether any user of this machine can write the file whose path is in the variable `name`.
    pub(crate) fn names_file_of_everyone(&self, name: &str) -> bool {
        let file = self.values.get(name).map(std::fs::metadata);
        file.and_then(Result::ok)
            .is_some_and(|file| dotenv::everyone_can_write(&file))
    }

    /// # Errors
    ///
    /// `.env` cannot be read, or has a line that is no variable.
    pub fn load() -> Result<Self> {
        let file = dotenv::read(Path::new(".env"))?;
        Ok(Self::new(std::env::vars_os().collect(), file))
    }

    pub(super) fn new(process: Vec<(OsString, OsString)>, dotenv: Vec<(String, String)>) -> Self {
        let mut env = Self::default();
        let (known, others): (Vec<_>, Vec<_>) = dotenv
            .into_iter()
            .partition(|(name, _)| VARIABLES.contains(&name.as_str()));
        env.ignored = others.into_iter().map(|(name, _)| name).collect();
        for (name, value) in known {
            env.insert(name, value);
        }
        for (name, value) in process {
            let Ok(name) = name.into_string() else {
                continue;
            };
            if let Some(known) = typos::meant_by(&name) {
                env.misspelled.insert(name.clone(), known);
            }
            match value.into_string() {
                Ok(value) => env.insert(name, value),
                Err(_) if is_checked(&name) => env.refuse(&name, "is not UTF-8; set it to text"),
                Err(_) => {}
            }
        }
        env
    }

    /// A later value replaces an earlier one, so an empty variable of the process unsets one of
    /// `.env`.
    fn insert(&mut self, name: String, value: String) {
        if !is_checked(&name) {
            self.values.insert(name, value);
            return;
        }
        let value = value.trim();
        self.faults.remove(&name);
        if value.is_empty() {
            self.values.remove(&name);
            return;
        }
        let is_quoted =
            |quote: char| value.len() > 1 && value.starts_with(quote) && value.ends_with(quote);
        if value.contains(|c: char| c.is_control()) {
            self.refuse(
                &name,
                "has a line end or another control character; remove it",
            );
        } else if is_quoted('"') || is_quoted('\'') {
            self.refuse(
                &name,
                "begins and ends with quotes, which are part of a value here; remove them",
            );
        }
        self.values.insert(name, value.to_owned());
    }

    fn refuse(&mut self, name: &str, why: &str) {
        self.faults.insert(name.to_owned(), format!("{name} {why}"));
    }

    /// Whether this process is a function of AWS Lambda, which alone sets this variable.
    pub(crate) fn is_in_lambda(&self) -> bool {
        self.get("AWS_LAMBDA_RUNTIME_API").is_some()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Why the variable cannot be used, if its value could not be read at all.
    pub(crate) fn fault(&self, name: &str) -> Option<&str> {
        self.faults.get(name).map(String::as_str)
    }

    /// The same environment, with only the variables for which `keeps` is true.
    pub(super) fn only(mut self, keeps: impl Fn(&str) -> bool) -> Self {
        self.values.retain(|name, _| keeps(name));
        self.faults.retain(|name, _| keeps(name));
        self
    }

    /// All variables, for the SDK: it finds its files by those of the system, such as `HOME`.
    pub(super) fn values(&self) -> HashMap<String, String> {
        self.values.clone()
    }
}

/// Whether presignd or the SDK reads the variable.
fn is_checked(name: &str) -> bool {
    name.starts_with("AWS_") || VARIABLES.contains(&name)
}

/// All faults of the configuration, a line for each variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<String>);

impl Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [fault] => f.write_str(fault),
            faults => {
                write!(f, "the configuration has {} faults", faults.len())?;
                faults.iter().try_for_each(|fault| write!(f, "\n- {fault}"))
            }
        }
    }
}

impl std::error::Error for Faults {}

/// Reads variables one by one, and continues after a fault so that all of them are reported.
pub(super) struct Reader<'a> {
    env: &'a Env,
    faults: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(env: &'a Env) -> Self {
        Self {
            env,
            faults: env.faults.values().cloned().collect(),
        }
    }

    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Faults> {
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            _ => Err(Faults(self.faults)),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        debug_assert!(is_checked(name), "{name} is not listed");
        // A value with a fault has been reported already.
        self.env
            .get(name)
            .filter(|_| !self.env.faults.contains_key(name))
    }

    /// Whether there is a value, valid or not.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.env.values.contains_key(name) || self.env.faults.contains_key(name)
    }

    pub(super) fn is_in_lambda(&self) -> bool {
        self.env.is_in_lambda()
    }

    pub(super) fn fault(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    /// `None` and a fault if the variable is not set; `why` says what it is for.
    pub(super) fn required(&mut self, name: &str, why: &str) -> Option<&'a str> {
        if !self.is_set(name) {
            self.fault(format!("{name} is not set: {why}"));
        }
        self.get(name)
    }

    /// Converts the variable with `read`; adds a fault if that returns `None`. The fault repeats
    /// the value, so this must not be used for secrets.
    pub(super) fn read<T>(
        &mut self,
        name: &str,
        must_be: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.get(name)?;
        let value = read(text);
        if value.is_none() {
            self.fault(format!("{name} must be {must_be}; it is `{text}`"));
        }
        value
    }

    pub(super) fn parse<T: FromStr>(&mut self, name: &str, must_be: &str) -> Option<T> {
        self.read(name, must_be, |text| text.parse().ok())
    }

    /// Converts the variable with `parse`, whose error is the rule: `must be …`. The fault does not repeat
    /// the value, which may contain a secret.
    pub(super) fn read_secret<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        parse(self.get(name)?)
            .map_err(|rule| self.fault(format!("{name} {rule}")))
            .ok()
    }

    /// `value`, or a fault of the variable `name` with the error and its causes on one line.
    pub(super) fn keep<T>(&mut self, name: &str, value: Result<T>) -> Option<T> {
        value
            .map_err(|error| self.fault(format!("{name}: {error:#}")))
            .ok()
    }

    /// Reports a file of CAs that cannot be used. The TLS library reads it, and would panic or trust nobody,
    /// without a word on the variable. It takes the value as it is, spaces included.
    pub(super) fn check_certificates(&mut self) {
        const NAME: &str = "SSL_CERT_FILE";
        const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";
        let Some(path) = self.env.values.get(NAME) else {
            return;
        };
        let what_to_do = "set it to a PEM file with CAs, or unset it";
        match read(path) {
            Err(error) => {
                self.fault(format!(
                    "{NAME}: cannot read `{path}`: {error:#}; {what_to_do}"
                ));
            }
            Ok(pem) if !pem.windows(CERTIFICATE.len()).any(|it| it == CERTIFICATE) => {
                self.fault(format!("{NAME}: `{path}` has no certificate; {what_to_do}"));
            }
            Ok(_) => {}
        }
    }

    /// The text of the file that the variable names.
    pub(super) fn file(&mut self, name: &str) -> Option<(&'a str, String)> {
        let path = self.get(name)?;
        let text = read(path).and_then(|bytes| Ok(String::from_utf8(bytes)?));
        match text {
            Ok(text) => Some((path, text)),
            Err(error) => {
                self.fault(format!("{name}: cannot read {path}: {error:#}"));
                None
            }
        }
    }
}

/// The bytes of a file that a variable names. It may be the wrong one, and endless.
fn read(path: &str) -> Result<Vec<u8>> {
    /// Each API key has about 150 bytes.
    const MAX_MIB: u64 = 16;
    dotenv::limited(File::open(path)?, MAX_MIB)
}
