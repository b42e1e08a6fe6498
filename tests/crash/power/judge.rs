//! What must hold of a disk that a cut left of a run: what goes live is whole, what is on record is true, and what was
//! owed by then is there.

use super::image::Disk;
use super::model::Run;
use crate::checker::CODE;
use releasectl::operation::{Begin, Event, Record};
use releasectl::release::Manifest;
use releasectl::sealed::unseal;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// What `init` lays out.
const LAID_OUT: [&str; 6] =
    ["releases", "shared", "log", ".releasectl/mirror", ".releasectl/cache", ".releasectl/trash"];

/// What a step of the recipe makes, and with what in it.
pub const MADE: (&str, &[u8]) = ("made", b"made\n");

/// Files that are whole at every moment.
const WHOLE: [&str; 3] = ["/tree/RELEASES.txt", "/tree/.releasectl/ballast", "/etc/supervisord.conf"];

/// Directories of such files.
const ALL_WHOLE: [&str; 2] = ["/etc/conf.d", "/tree/releases/C/services/supervisor"];

/// A run, and what was live before it.
pub struct Judge {
    pub run: Run,
    before: Option<String>,
}

/// What is owed at a moment of a run.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Owed {
    /// Releases of which there is code: whoever gave it may have told others of the name.
    begun: BTreeSet<String>,
    /// Releases of which a step has begun.
    stepped: BTreeSet<String>,
    /// What was answered, once it is over.
    answered: Option<String>,
}

impl Judge {
    pub fn new(run: Run, before: Option<String>) -> Self {
        Self { run, before }
    }

    /// What may be live.
    pub fn allowed(&self) -> [Option<String>; 2] {
        [self.before.clone(), live(&self.run.after).unwrap()]
    }

    /// Every disk that a cut may leave, with what is wrong with it.
    pub fn cuts(&self, see: &mut dyn FnMut(Disk, Option<String>)) {
        let _ = self.run.cuts(&|reached, over| self.owed(reached, over), &mut |disk, owed| {
            let wrong = self.wrong(&disk, owed);
            see(disk, wrong);
            ControlFlow::Continue(())
        });
    }

    /// The first thing that is wrong with one of them.
    pub fn first_wrong(&self) -> Option<String> {
        let mut first = None;
        let _ = self.run.cuts(&|reached, over| self.owed(reached, over), &mut |disk, owed| {
            first = self.wrong(&disk, owed);
            if first.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        first
    }

    fn owed(&self, reached: &Disk, over: bool) -> Owed {
        let before = self.run.before();
        let is_new = |id: &&str, name: &str| {
            let path = format!("/tree/releases/{id}/{name}");
            reached.find(&path).is_some() && before.find(&path).is_none()
        };
        let having = |name: &str| {
            let ids = reached.names("/tree/releases").into_iter();
            ids.filter(|id| is_new(id, name)).map(str::to_owned).collect()
        };
        Owed { begun: having("version"), stepped: having(MADE.0), answered: over.then(|| answered(&self.run.after)) }
    }

    fn wrong(&self, disk: &Disk, owed: &Owed) -> Option<String> {
        let [before, after] = &self.allowed();
        let found = match live(disk) {
            Ok(found) if found == *before || found == *after => found,
            Ok(found) => return Some(format!("{found:?} is live")),
            Err(what) => return Some(what),
        };
        let laid_out = disk.names("/tree");
        if laid_out.contains(&".releasectl") && LAID_OUT[..3].iter().any(|name| !laid_out.contains(name)) {
            return Some(format!("it is laid out, and has only {laid_out:?}"));
        }
        let wrong =
            disk.names("/tree/releases").into_iter().find_map(|id| self.wrong_release(disk, id, found.as_deref()));
        if wrong.is_some() {
            return wrong;
        }
        let last = intents(disk).into_iter().rfind(|begin| begin.operation.is_flip()).and_then(|begin| begin.to);
        if found != *before && last.as_ref().map(|id| id.as_str()) != found.as_deref() {
            return Some(format!("{found:?} is live, and the journal knows nothing of it"));
        }
        let has = |told: &Record| records(disk).iter().any(|record| record.seq == told.seq);
        if let Some(lost) = records(self.run.before()).into_iter().find(|record| !has(record)) {
            return Some(format!("the journal has lost {lost:?}"));
        }
        if let Some(torn) = self.torn(disk) {
            return Some(format!("{torn} is torn"));
        }
        if let Some(id) = owed.begun.iter().find(|id| manifest(disk, id).is_none()) {
            return Some(format!("the code of {id} was begun, and its name is free or has no manifest"));
        }
        let is_recorded = |id: &str| manifest(disk, id).is_some_and(|manifest| manifest.has_done("source"));
        if let Some(id) = owed.stepped.iter().find(|id| !is_recorded(id)) {
            return Some(format!("a step of {id} was begun, and the one before it is not on record"));
        }
        let promised = owed.answered.as_ref().filter(|promised| **promised != answered(disk));
        promised.map(|promised| format!("it is over, and {promised} was promised: {}", answered(disk)))
    }

    fn wrong_release(&self, disk: &Disk, id: &str, live: Option<&str>) -> Option<String> {
        let before = self.run.before();
        let manifest = manifest(disk, id);
        if manifest.is_none() && disk.names(&format!("/tree/releases/{id}/.releasectl")).contains(&"release.json") {
            return Some(format!("the manifest of {id} is torn"));
        }
        if is_unknown(disk, id) && !is_unknown(before, id) {
            return Some(format!("the journal knows nothing of the build of {id}"));
        }
        // Somebody else may have left one that is not; but it must not be live.
        let left = live != Some(id) && is_torn(before, id);
        if is_torn(disk, id) && !left {
            return Some(format!("{id} says it is ready or has its code, and is not whole"));
        }
        let has_made = manifest.as_ref().is_some_and(|manifest| manifest.has_done(MADE.0));
        if has_made && disk.content(&format!("/tree/releases/{id}/{}", MADE.0)) != Some(MADE.1) {
            return Some(format!("a step of {id} is on record, and what it made is not there"));
        }
        let ready = manifest.is_some_and(|manifest| manifest.ready_at.is_some());
        if let Some(path) = CODE
            .iter()
            .map(|name| format!("/tree/releases/{id}/{name}"))
            .find(|path| ready && disk.shape(path) != self.run.after.shape(path).or_else(|| before.shape(path)))
        {
            return Some(format!("{path} has another mode or time than it was given: {:?}", disk.shape(&path)));
        }
        if pins(disk, id).is_empty() && !pins(before, id).is_empty() && !pins(&self.run.after, id).is_empty() {
            return Some(format!("{id} has lost its pin before the new one was there"));
        }
        None
    }

    /// A file that is neither what it was nor what it became.
    fn torn(&self, disk: &Disk) -> Option<String> {
        let named = |dir: &str| disk.names(dir).into_iter().map(|name| format!("{dir}/{name}")).collect::<Vec<_>>();
        let all = ALL_WHOLE.iter().flat_map(|dir| named(dir)).filter(|path| !path.contains("/."));
        let mut all = WHOLE.iter().map(|path| (*path).to_owned()).chain(all);
        all.find(|path| {
            let found = disk.content(path);
            found.is_some() && found != self.run.before().content(path) && found != self.run.after.content(path)
        })
    }
}

/// The release that is live on a disk; an error if `current` leads to none that is whole.
pub fn live(disk: &Disk) -> Result<Option<String>, String> {
    if !disk.names("/tree").contains(&"current") {
        return Ok(None);
    }
    let target = disk.target("/tree/current").unwrap_or_default();
    let id = target.strip_prefix("releases/").ok_or(format!("current leads to {target:?}"))?;
    if manifest(disk, id).is_none_or(|manifest| manifest.ready_at.is_none()) {
        return Err(format!("{id} is live and not ready"));
    }
    Ok(Some(id.to_owned()))
}

/// A release's manifest: its own, or the one kept for it.
fn manifest(disk: &Disk, id: &str) -> Option<Manifest> {
    let own = disk.content(&format!("/tree/releases/{id}/.releasectl/release.json"));
    unseal(own.or_else(|| disk.content(&format!("/tree/.releasectl/adopted/{id}.json")))?)
}

/// Whether a release says that it is ready, or has its code, and is not whole.
fn is_torn(disk: &Disk, id: &str) -> bool {
    let read = |name: &str| disk.content(&format!("/tree/releases/{id}/{name}")).unwrap_or_default();
    let word = std::str::from_utf8(read("version")).unwrap_or_default();
    let is_whole = word.len() == 1 && read("app/main.py") == format!("print({word:?})\n").as_bytes();
    manifest(disk, id).is_some_and(|manifest| manifest.ready_at.is_some() || manifest.has_done("source")) && !is_whole
}

/// Whether its build has a number that the journal has not come to.
fn is_unknown(disk: &Disk, id: &str) -> bool {
    let newest = records(disk).last().map_or(0, |record| record.seq);
    manifest(disk, id).is_some_and(|manifest| manifest.sequence > newest)
}

/// What a command answers for: what is laid out, what is live, how many intents are on record, the releases that are ready
/// with their pins and marks and what is known of them, what supervisord reads, and what the older tooling does.
fn answered(disk: &Disk) -> String {
    let digest = |path: &str| disk.content(path).map(crc32fast::hash);
    let laid_out: Vec<_> = LAID_OUT.iter().filter(|name| disk.find(&format!("/tree/{name}")).is_some()).collect();
    let aside = disk.names("/tree/.releasectl").iter().filter(|name| name.starts_with("journal.broken-")).count();
    let mut told = format!("{laid_out:?}, {:?}, {} intents, {aside} aside", live(disk), intents(disk).len());
    told += &format!(", {:?}", WHOLE.map(digest));
    for dir in ALL_WHOLE {
        told +=
            &format!(", {:?}", disk.names(dir).into_iter().filter(|name| !name.starts_with('.')).collect::<Vec<_>>());
    }
    for id in disk.names("/tree/releases") {
        let manifest = manifest(disk, id);
        let ready = manifest.as_ref().is_some_and(|manifest| manifest.ready_at.is_some());
        let why = manifest.as_ref().is_some_and(|manifest| manifest.failure.is_some());
        let size = manifest.as_ref().map(|manifest| (manifest.entries, manifest.bytes));
        let bad = manifest.is_some_and(|manifest| manifest.bad.is_some());
        let inventory = digest(&format!("/tree/releases/{id}/.releasectl/inventory")).filter(|_| ready);
        told += &format!(" {id} ready {ready} bad {bad} failed {why} {:?} {inventory:?} {size:?}", pins(disk, id));
    }
    told
}

fn pins<'d>(disk: &'d Disk, id: &str) -> Vec<&'d str> {
    let names = disk.names(&format!("/tree/releases/{id}"));
    names.into_iter().filter(|name| name.starts_with("KEEP_UNTIL__")).collect()
}

fn records(disk: &Disk) -> Vec<Record> {
    let journal = disk.content("/tree/.releasectl/journal.jsonl").unwrap_or_default();
    journal.split(|byte| *byte == b'\n').filter_map(unseal).collect()
}

/// The intents in the journal.
fn intents(disk: &Disk) -> Vec<Begin> {
    let begin = |record: Record| if let Event::Begin(begin) = record.event { Some(begin) } else { None };
    records(disk).into_iter().filter_map(begin).collect()
}
