//! The binary: hands the command line to the library and its answer to the system.

use std::process::ExitCode;

#[cfg(target_env = "musl")]
#[global_allocator]
static MEMORY: releasectl::memory::Memory = releasectl::memory::Memory::unused();

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    ExitCode::from(releasectl::app::run(&arguments).code())
}
