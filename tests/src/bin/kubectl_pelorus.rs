//! The kubectl plugin, as a program of this package: so the suite always has the one of this very source.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_pelorus::main()
}
