//! What clap says of a command line that makes no sense, for whoever wants one line.

/// What is wrong and, where it tells, what is missing or would be possible; without the usage, a tip and colours.
pub fn in_a_line(error: &clap::Error) -> String {
    let said = error.render().to_string();
    let lines = said.lines().map(str::trim).take_while(|line| !line.is_empty()).collect::<Vec<_>>();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}
