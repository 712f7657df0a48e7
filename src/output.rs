//! What commands print, where `println!` would panic: `presignd dev | head -1` closes the pipe after a line.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a result to standard output. It is no error if nobody reads it any more.
pub(crate) fn print(text: impl Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes what is said beside the result to standard error.
pub fn explain(text: impl Display) {
    write!(io::stderr(), "{text}").ok(); // best effort
}
