//! Outcomes and errors as people read them.

use super::progress::{LINES, span, visible};
use crate::commands::activation::Activation;
use crate::commands::clean::{Cleaned, Judged};
use crate::commands::describe::Release;
use crate::commands::doctor::Diagnosis;
use crate::commands::history::History;
use crate::commands::list::Listing;
use crate::commands::ps::Processes;
use crate::commands::show::Shown;
use crate::commands::status::Status;
use crate::commands::verify::Verified;
use crate::commands::{Outcome, deploy::Deployed, init::Initialised, supervisor::Supervised};
use crate::error::Error;
use crate::pin::Pin;
use crate::release::{ReleaseId, State};
use crate::retention::in_words;
use std::fmt::Write;

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    /// Whether there are any.
    pub on: bool,
}

impl Paint {
    fn dye(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A whole text as it is printed: of what was found on disk nothing but its characters reaches a terminal.
    fn finish(self, text: &str) -> String {
        let colours = ["\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[0m", "\n", "\t"];
        visible(text, if self.on { &colours } else { &LINES })
    }

    fn good(self, text: &str) -> String {
        self.dye("32", text)
    }

    fn bad(self, text: &str) -> String {
        self.dye("31", text)
    }

    fn strong(self, text: &str) -> String {
        self.dye("1", text)
    }
}

/// An error, and what to do about it.
pub fn failure(error: &Error, paint: Paint) -> String {
    let mut text = format!("{} {}\n", paint.bad("error:"), error.message);
    if let Some(hint) = &error.hint {
        let _ = writeln!(text, "{} {hint}", paint.strong("hint:"));
    }
    paint.finish(&text)
}

/// An outcome. Quiet leaves out what nobody asked for.
pub fn outcome(outcome: &Outcome, paint: Paint, quiet: bool) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = match outcome {
        // Programs read a path, and a log is what programs wrote: both are printed as they are.
        Outcome::Create(created) => return format!("{}\n", created.release.path.display()),
        Outcome::Path(located) => return format!("{}\n", located.path.display()),
        Outcome::Log(log) => return log.log.clone(),
        Outcome::List(listing) => list(&mut out, listing, paint),
        Outcome::Status(found) => status(&mut out, found, paint),
        Outcome::Show(shown) => show(&mut out, shown, paint),
        Outcome::History(found) => history(&mut out, found),
        Outcome::Ps(found) => ps(&mut out, found),
        Outcome::Verify(verified) => verify(&mut out, verified, paint),
        Outcome::Doctor(diagnosis) => doctor(&mut out, diagnosis, paint),
        Outcome::Clean(cleaned) if cleaned.dry_run || !quiet => clean(&mut out, cleaned),
        Outcome::Activate(activation) if activation.dry_run => activate(&mut out, activation, paint),
        Outcome::Supervisor(found) => supervisor(&mut out, found, paint),
        Outcome::Export(_) => Ok(()),
        _ if quiet => Ok(()),
        Outcome::Activate(activation) | Outcome::Deploy(Deployed { activation, .. })
            if activation.unconfirmed.is_some() =>
        {
            Ok(())
        }
        Outcome::Programs(operated) => {
            writeln!(out, "{}", operated.done.summary().as_deref().unwrap_or("nothing to do"))
        }
        Outcome::Init(laid) => init(&mut out, laid),
        Outcome::Deploy(deployed) => deploy(&mut out, deployed, paint),
        Outcome::Activate(activation) => activate(&mut out, activation, paint),
        Outcome::Clean(_) => Ok(()),
        Outcome::Pin(pinned) => match &pinned.keep_until {
            Some(pin) => writeln!(out, "{} is {}", pinned.release, kept(*pin)),
            None if pinned.changed => writeln!(out, "{} is not pinned any more", pinned.release),
            None => writeln!(out, "{} was not pinned", pinned.release),
        },
    };
    paint.finish(&out)
}

fn name(id: Option<&ReleaseId>) -> &str {
    id.map_or("nothing", ReleaseId::as_str)
}

fn init(out: &mut String, laid: &Initialised) -> std::fmt::Result {
    let count = laid.adopted.len();
    match (count, laid.changed) {
        (0, false) => return writeln!(out, "the tree is laid out already"),
        (0, true) => return writeln!(out, "the tree is laid out"),
        _ => {}
    }
    let from = laid.tool.map_or(String::new(), |tool| format!(" from {tool}"));
    writeln!(out, "{count} releases were taken over{from}; {} is live", name(laid.current.as_ref()))?;
    match &laid.previous {
        Some(previous) => writeln!(out, "a rollback would go to {previous}")?,
        None => writeln!(out, "there is nothing to roll back to yet")?,
    }
    for unusable in &laid.unusable {
        writeln!(out, "{} cannot go live: {}", unusable.id, unusable.why)?;
    }
    let Some(shared) = &laid.shared else { return Ok(()) };
    let names = shared.dirs.iter().chain(&shared.files).map(|path| path.display().to_string());
    writeln!(out, "linked into shared/, for [shared] of the recipe: {}", names.collect::<Vec<_>>().join(", "))
}

fn activate(out: &mut String, activation: &Activation, paint: Paint) -> std::fmt::Result {
    let to = paint.good(name(activation.to.as_ref()));
    let from = name(activation.from.as_ref());
    match (activation.changed, activation.dry_run) {
        (true, true) => writeln!(out, "would make {to} live; {from} is"),
        (true, false) if !activation.confirmed => {
            writeln!(out, "{to} is live; before it {from} was")?;
            writeln!(out, "its programs were left as they are: `releasectl restart` brings them over")
        }
        (true, false) if activation.from == activation.to => {
            writeln!(out, "{to} is live, as it was; its programs run from it now")
        }
        (true, false) => writeln!(out, "{to} is live; before it {from} was"),
        (false, _) => writeln!(out, "{to} is live already; nothing to do"),
    }
}

fn supervisor(out: &mut String, found: &Supervised, paint: Paint) -> std::fmt::Result {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
    writeln!(out, "config       {}", or_none(found.config.as_ref().map(|path| path.display().to_string())))?;
    let wired = found.wired.map_or_else(|| paint.bad("no"), |how| paint.good(&how.replace('_', " ")));
    writeln!(out, "wired        {wired}")?;
    writeln!(out, "supervisord  {}", found.version.as_deref().unwrap_or("does not answer"))?;
    writeln!(out, "release      {}", name(found.release.as_ref()))?;
    for (label, names) in [("files", &found.files), ("groups", &found.groups), ("without user", &found.without_user)] {
        if !names.is_empty() {
            writeln!(out, "{label:<12} {}", names.join(", "))?;
        }
    }
    Ok(())
}

fn deploy(out: &mut String, deployed: &Deployed, paint: Paint) -> std::fmt::Result {
    activate(out, &deployed.activation, paint)?;
    if !deployed.removed.is_empty() {
        writeln!(out, "removed: {}", deployed.removed.join(", "))?;
    }
    writeln!(out, "next: `releasectl list`, `releasectl history`, `releasectl rollback`, `releasectl clean --dry-run`")
}

fn clean(out: &mut String, cleaned: &Cleaned) -> std::fmt::Result {
    let would = if cleaned.dry_run { "would be removed" } else { "removed" };
    let wide = widest(24, cleaned.kept.iter().chain(&cleaned.removed).map(|judged| judged.id.as_str()));
    let line = |out: &mut String, judged: &Judged, what: &str| {
        writeln!(out, "{:<wide$} {what:<16} {}", visible(&judged.id, &[]), in_words(&judged.reasons, &judged.pids))
    };
    for judged in &cleaned.kept {
        line(out, judged, "kept")?;
    }
    for judged in &cleaned.removed {
        line(out, judged, would)?;
    }
    match (cleaned.removed.len(), cleaned.freed_bytes) {
        // What another tool has made was not measured.
        (count, 0) if cleaned.dry_run && count > 0 => writeln!(out, "{count} {would}; their size is not known"),
        (count, bytes) => writeln!(out, "{count} {would}, {} freed", size(bytes)),
    }
}

fn list(out: &mut String, listing: &Listing, paint: Paint) -> std::fmt::Result {
    let wide = widest(24, listing.releases.iter().map(|release| release.id.as_str()));
    for release in &listing.releases {
        let mark = if release.current { "*" } else { " " };
        let state = format!("{:<10}", release.state.to_string());
        let state = match release.state {
            State::Ready if release.current => paint.good(&state),
            State::Bad | State::Incomplete => paint.bad(&state),
            _ => state,
        };
        let revision = release.revision.as_deref().and_then(|hash| hash.get(..12)).unwrap_or("-");
        write!(out, "{mark} {:<wide$} {state} {:>9} {revision:<12}", release.id, measured(release))?;
        writeln!(out, " {}", remarks(release).join(", "))?;
    }
    if listing.releases.is_empty() {
        writeln!(out, "no releases")?;
    }
    if !listing.foreign.is_empty() {
        let names: Vec<String> = listing.foreign.iter().map(|name| visible(name, &[])).collect();
        writeln!(out, "not ours: {}", names.join(", "))?;
    }
    Ok(())
}

fn remarks(release: &Release) -> Vec<String> {
    let mut remarks = Vec::new();
    if release.current {
        remarks.push("current".to_owned());
    }
    if release.previous {
        remarks.push("previous".to_owned());
    }
    if let Some(pin) = &release.keep_until {
        remarks.push(kept(*pin));
    }
    if !release.pids.is_empty() {
        let what = if release.pids.len() == 1 { "process" } else { "processes" };
        remarks.push(format!("{} {what}", release.pids.len()));
    }
    remarks
}

fn kept(pin: Pin) -> String {
    match pin {
        Pin::Until(moment) => format!("kept until {moment}"),
        Pin::Forever | Pin::Unreadable => "kept for good".to_owned(),
    }
}

fn status(out: &mut String, status: &Status, paint: Paint) -> std::fmt::Result {
    writeln!(out, "current     {}", paint.good(name(status.current.as_ref())))?;
    writeln!(out, "previous    {}", name(status.previous.as_ref()))?;
    for unfinished in &status.unfinished {
        writeln!(out, "unfinished  {} {} by {}", unfinished.operation, name(unfinished.to.as_ref()), unfinished.by)?;
    }
    match &status.lock {
        Some(holder) => writeln!(out, "lock        {} (pid {}, `{}`)", holder.user, holder.pid, holder.command)?,
        None => writeln!(out, "lock        free")?,
    }
    for program in &status.programs {
        write!(out, "program     {}:{} {}", program.group, program.name, program.state)?;
        if let (Some(pid), Some(uptime)) = (program.pid, program.uptime) {
            write!(out, " pid {pid}, up {}", span(uptime as f64))?;
        }
        writeln!(out)?;
    }
    let inodes = status.free_inodes.map(|count| format!(", {count} inodes")).unwrap_or_default();
    writeln!(out, "free        {}{inodes}", size(status.free_bytes))?;
    writeln!(out, "fingerprint {}", status.fingerprint)
}

fn show(out: &mut String, shown: &Shown, paint: Paint) -> std::fmt::Result {
    let release = &shown.release;
    let moment = |at: Option<crate::clock::Timestamp>| at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    writeln!(out, "id         {}", paint.strong(release.id.as_str()))?;
    writeln!(out, "path       {}", release.path.display())?;
    writeln!(out, "state      {}", release.state)?;
    writeln!(out, "created    {} by {}", moment(release.created_at), release.by.as_deref().unwrap_or("nobody known"))?;
    writeln!(out, "activated  {}", moment(release.activated_at))?;
    writeln!(out, "source     {}", release.source.as_deref().unwrap_or("unknown"))?;
    for (label, value) in
        [("ref", &release.r#ref), ("revision", &release.revision), ("failure", &shown.failure), ("bad", &shown.bad)]
    {
        if let Some(value) = value {
            writeln!(out, "{label:<10} {value}")?;
        }
    }
    writeln!(out, "size       {}", measured(release))?;
    let remarks = remarks(release);
    if !remarks.is_empty() {
        writeln!(out, "is         {}", remarks.join(", "))?;
    }
    for step in &shown.steps {
        writeln!(out, "step       {} {} {}", step.name, step.status, span(step.seconds))?;
    }
    Ok(())
}

fn history(out: &mut String, history: &History) -> std::fmt::Result {
    let wide = widest(10, history.entries.iter().map(|entry| entry.by.as_str()));
    for entry in &history.entries {
        let (from, to) = (entry.from.as_ref(), entry.to.as_ref());
        let what = match entry.operation.is_flip() {
            true => format!("{} -> {}", name(from), name(to)),
            false => to.into_iter().chain(&entry.releases).map(ReleaseId::as_str).collect::<Vec<_>>().join(", "),
        };
        let at = entry.at.to_string();
        write!(out, "{at} {:<wide$} {:<10} {:<11} {what}", entry.by, entry.operation, entry.outcome)?;
        // Of what a program said `show`, `log` and the document have the rest.
        if let Some(note) = entry.note.as_deref().and_then(|note| note.lines().next()) {
            write!(out, " ({note})")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn ps(out: &mut String, processes: &Processes) -> std::fmt::Result {
    let wide = widest(24, processes.processes.iter().map(|process| process.release.as_str()));
    for process in &processes.processes {
        let mark = if process.current { "*" } else { " " };
        let program = process.program.as_deref().unwrap_or("-");
        writeln!(
            out,
            "{mark} {:<wide$} {:>8} {program:<20} {}",
            process.release,
            process.pid,
            visible(&process.command, &[])
        )?;
    }
    Ok(())
}

fn verify(out: &mut String, verified: &Verified, paint: Paint) -> std::fmt::Result {
    let found = &verified.difference;
    for (what, paths) in [("changed", &found.changed), ("missing", &found.missing), ("added", &found.added)] {
        for path in paths {
            writeln!(out, "{} {}", paint.bad(&format!("{what:<8}")), visible(path, &[]))?;
        }
    }
    let contents = if verified.contents { ", contents included" } else { "" };
    if found.is_empty() {
        writeln!(out, "{} is as it was when it became ready{contents}", verified.release)
    } else {
        Ok(())
    }
}

fn doctor(out: &mut String, diagnosis: &Diagnosis, paint: Paint) -> std::fmt::Result {
    for check in &diagnosis.checks {
        let mark = if check.ok { paint.good("ok  ") } else { paint.bad("BAD ") };
        writeln!(out, "{mark} {:<12} {}", check.name, check.message)?;
        if let Some(hint) = &check.hint {
            writeln!(out, "     {:<12} {hint}", "hint:")?;
        }
    }
    Ok(())
}

/// The width of a column that is as wide as the longest of `names`, and `least`.
fn widest<'a>(least: usize, names: impl Iterator<Item = &'a str>) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or_default().max(least)
}

/// What a release was measured to hold, where it was.
fn measured(release: &Release) -> String {
    if release.bytes == 0 { "-".to_owned() } else { size(release.bytes) }
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    match bytes {
        0..=1_048_575 => format!("{} KiB", bytes.div_ceil(1024)),
        1_048_576..=1_073_741_823 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
