//! Arguments in, exit status out.

use std::process::ExitCode;

fn main() -> ExitCode {
    keytoll::cli::run(std::env::args_os()).into()
}
