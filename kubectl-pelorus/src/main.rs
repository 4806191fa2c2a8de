//! `kubectl pelorus`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_pelorus::main()
}
