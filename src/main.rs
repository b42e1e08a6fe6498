//! The binary: hands the command line to the library and its answer to the system.

use std::process::ExitCode;

/// The C library's own gives memory back page by page, which takes longer than all else that a start does.
#[cfg(target_env = "musl")]
#[global_allocator]
static MEMORY: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    ExitCode::from(releasectl::app::run(&arguments).code())
}
