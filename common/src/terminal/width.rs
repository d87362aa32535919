//! How much fits on a line.

use std::io::IsTerminal;

/// Columns of a line where standard output is no terminal, or one that does not tell.
const ELSEWHERE: usize = 100;

/// Columns of the terminal that standard output is; 100 where it is none, or does not tell.
pub fn width_of_stdout() -> usize {
    let stdout = std::io::stdout();
    let told = if stdout.is_terminal() { rustix::termios::tcgetwinsize(&stdout).ok() } else { None };
    told.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(ELSEWHERE)
}
