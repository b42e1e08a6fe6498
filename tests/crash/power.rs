//! Power is cut at any moment: whatever of a command had not been made durable, in whatever combination or in part,
//! `current` leads to a complete release with the modes and times it was given, the intent of what it shows is on record,
//! and what was answered to be done stays done. Each sync is shown to be needed for that by leaving it out.

mod environment;
mod image;
mod model;
mod real;
mod record;

use crate::checker::{CODE, Checker};
use crate::sandbox::Sandbox;
use crate::states::{Start, State};
use crate::trace;
use crate::verbs::{self, Verb};
use image::Disk;
use model::Run;
use releasectl::operation::{Begin, Event, Record};
use releasectl::release::Manifest;
use releasectl::sealed::unseal;
use std::io::Write;

/// By default one in so many disks is also handed to the program.
const STRIDE: usize = 40;

/// What is left of a journal that was damaged.
const SET_ASIDE: &str = "left behind: .releasectl/journal.broken-";

/// The release that is live on a disk; an error if `current` leads to none that is whole.
fn live(disk: &Disk) -> Result<Option<String>, String> {
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

fn manifest(disk: &Disk, id: &str) -> Option<Manifest> {
    unseal(disk.content(&format!("/tree/releases/{id}/.releasectl/release.json"))?)
}

fn is_whole(disk: &Disk, id: &str) -> bool {
    let read = |name: &str| disk.content(&format!("/tree/releases/{id}/{name}")).unwrap_or_default();
    let word = std::str::from_utf8(read("version")).unwrap_or_default();
    word.len() == 1 && read("app/main.py") == format!("print({word:?})\n").as_bytes()
}

/// What a command answers for: what is live, how many intents are on record, the releases that are ready with their pins
/// and marks, and what supervisord reads.
fn promised(disk: &Disk) -> String {
    let conf = disk.content("/etc/supervisord.conf").map(<[u8]>::len);
    let mut told = format!("{:?}, {} intents, {conf:?}", live(disk), intents(disk).len());
    for id in disk.names("/tree/releases") {
        let manifest = manifest(disk, id);
        let ready = manifest.as_ref().is_some_and(|manifest| manifest.ready_at.is_some());
        let bad = manifest.is_some_and(|manifest| manifest.bad.is_some());
        let pins = pins(disk, id);
        told += &format!(" {id} ready {ready} bad {bad} {pins:?}");
    }
    told
}

fn pins<'d>(disk: &'d Disk, id: &str) -> Vec<&'d str> {
    let names = disk.names(&format!("/tree/releases/{id}"));
    names.into_iter().filter(|name| name.starts_with("KEEP_UNTIL__")).collect()
}

/// What is wrong with a disk that a cut left of `run`.
fn wrong(run: &Run, before: Option<&String>, disk: &Disk, over: bool) -> Option<String> {
    let after = live(&run.after).unwrap();
    let found = match live(disk) {
        Ok(found) if found.as_ref() == before || found == after => found,
        Ok(found) => return Some(format!("{found:?} is live")),
        Err(what) => return Some(what),
    };
    let laid_out = disk.names("/tree");
    if laid_out.contains(&".releasectl") && ["releases", "shared", "log"].iter().any(|name| !laid_out.contains(name)) {
        return Some(format!("it is laid out, and has only {laid_out:?}"));
    }
    let newest = records(disk).last().map_or(0, |record| record.seq);
    for id in disk.names("/tree/releases") {
        let manifest = manifest(disk, id);
        if manifest.is_none() && disk.names(&format!("/tree/releases/{id}/.releasectl")).contains(&"release.json") {
            return Some(format!("the manifest of {id} is torn"));
        }
        if manifest.as_ref().is_some_and(|manifest| manifest.sequence > newest) {
            return Some(format!("the journal knows nothing of the build of {id}"));
        }
        // Somebody else may have left one that is not; but it must not be live.
        let ready = manifest.is_some_and(|manifest| manifest.ready_at.is_some());
        let left = found.as_deref() != Some(id) && is_torn(run.before(), id);
        if ready && !left && !is_whole(disk, id) {
            return Some(format!("{id} says it is ready and is not whole"));
        }
        if let Some(path) = CODE
            .iter()
            .map(|name| format!("/tree/releases/{id}/{name}"))
            .find(|path| ready && disk.shape(path) != run.after.shape(path).or_else(|| run.before().shape(path)))
        {
            return Some(format!("{path} has another mode or time than it was given: {:?}", disk.shape(&path)));
        }
        if pins(disk, id).is_empty() && !pins(run.before(), id).is_empty() && !pins(&run.after, id).is_empty() {
            return Some(format!("{id} has lost its pin before the new one was there"));
        }
    }
    let last = intents(disk).into_iter().rfind(|begin| begin.operation.is_flip()).and_then(|begin| begin.to);
    if found.as_ref() != before && last.as_ref().map(|id| id.as_str()) != found.as_deref() {
        return Some(format!("{found:?} is live, and the journal knows nothing of it"));
    }
    let conf = disk.content("/etc/supervisord.conf").map(|text| text.starts_with(verbs::UNWIRED.as_bytes()));
    if conf == Some(false) {
        return Some("supervisord.conf is torn".to_owned());
    }
    (over && promised(disk) != promised(&run.after))
        .then(|| format!("it is over, and {} was promised: {}", promised(&run.after), promised(disk)))
}

/// Whether a release says that it is ready and is not whole.
fn is_torn(disk: &Disk, id: &str) -> bool {
    manifest(disk, id).is_some_and(|manifest| manifest.ready_at.is_some()) && !is_whole(disk, id)
}

/// Whether a line of the journal is torn and one after it is not, so that it is set aside as damaged.
fn is_damaged(disk: &Disk) -> bool {
    let journal = disk.content("/tree/.releasectl/journal.jsonl").unwrap_or_default();
    let good = journal.split(|byte| *byte == b'\n').map(|line| unseal::<Record>(line).is_some());
    good.skip_while(|good| *good).any(|good| good)
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

/// A clean run of `verb` from `state`: what it changed and synced, and what was live before.
fn run(verb: &Verb, state: State) -> (Run, Option<String>) {
    let start = Start::new(state);
    let tree = start.copy();
    let arguments = (verb.words)(&start, &tree);
    if verb.name == verbs::PIN.name {
        // One pin takes the place of another.
        tree.done(&["pin", "A", "--days", "3"]);
    }
    let place = tree.root().parent().unwrap().to_owned();
    let before = Disk::read(&place);
    let was = tree.live();
    let (calls, answer) = trace::aside(|| trace::calls(&tree, &arguments));
    assert_eq!(answer.code, 0, "{} from {state:?}: {}", verb.name, answer.stderr);
    (Run::new(before, &place, &calls), was)
}

/// Cuts power everywhere in `verb`, and prints how many disks were seen, which must be at least `floor`. Every one of its
/// syncs but `needless` must be missed when it is left out.
#[track_caller]
fn cut_everywhere(verb: &Verb, states: &[State], floor: usize) {
    let (mut disks, mut complaints, mut handed) = (0, Vec::new(), 0);
    for state in states {
        let (run, before) = run(verb, *state);
        let mut sample = Vec::new();
        run.cuts(None, &mut |disk, over| {
            complaints.extend(wrong(&run, before.as_ref(), &disk, over).map(|what| format!("from {state:?}: {what}")));
            disks += 1;
            if trace::full() || disks % STRIDE == 1 {
                sample.push(disk);
            }
        });
        handed += sample.len();
        let allowed = [before.clone(), live(&run.after).unwrap()];
        complaints.extend(trace::each(&sample, |_, disk| {
            let tree = Sandbox::in_memory();
            std::fs::remove_dir(tree.beside("home")).unwrap();
            let real = tree.beside("disk");
            disk.write(&real);
            if real.join("tree").exists() {
                std::fs::rename(real.join("tree"), tree.root()).unwrap();
            }
            let mut checker = Checker::new(&tree);
            checker.everything(&allowed);
            for id in disk.names("/tree/releases").iter().filter(|id| tree.release(id).exists()) {
                checker.works(&["verify", id]);
            }
            let found = checker.complaints().into_iter().filter(|what| !(is_damaged(disk) && what.contains(SET_ASIDE)));
            found.map(|what| format!("from {state:?}, by the program: {what}")).collect()
        }));
    }
    let name = verb.name;
    let told =
        format!("power: {name}: {disks} disks, {handed} of them by the program, {} complaints", complaints.len());
    let _ = writeln!(std::io::stderr(), "{told}");
    complaints.dedup();
    assert!(complaints.is_empty(), "{told}\n{}", complaints.join("\n"));
    assert!(disks >= floor, "{told}; there were {floor}");
}

#[test]
fn p01_activate_cut_anywhere() {
    cut_everywhere(&verbs::ACTIVATE, &[State::One, State::Three, State::Staged, State::Flipped], 150);
}

#[test]
fn p04_rollback_cut_anywhere() {
    cut_everywhere(&verbs::ROLLBACK, &[State::Three, State::Staged, State::Flipped], 150);
}

#[test]
fn p13_create_cut_anywhere() {
    cut_everywhere(&verbs::CREATE, &[State::Fresh, State::One], 1200);
}

#[test]
fn p09_clean_and_remove_cut_anywhere() {
    cut_everywhere(&verbs::CLEAN, &[State::Three, State::Trash], 300);
    cut_everywhere(&verbs::REMOVE, &[State::One, State::Three], 450);
}

#[test]
fn p08_pin_cut_anywhere() {
    cut_everywhere(&verbs::PIN, &[State::One, State::Three], 100);
}

#[test]
fn p01_init_cut_anywhere() {
    cut_everywhere(&verbs::INIT, &[State::Fresh, State::Torn], 120);
}

#[test]
fn p13_deploy_resume_cut_anywhere() {
    cut_everywhere(&verbs::RESUME, &[State::UnfinishedDeploy], 1000);
}

#[test]
fn supervisor_wire_cut_anywhere() {
    cut_everywhere(&verbs::WIRE, &[State::One], 20);
}

/// A sync that is left out is missed: some cut leaves a disk that is wrong. Leaving it out of the record of a run is what
/// leaving it out of the program would come to: nothing in a run depends on what a sync did.
#[test]
fn p02_every_sync_is_needed() {
    // The name of a build is durable before it is begun, for whoever resumes it: nothing that is live hangs on these.
    let needless = ["create 2", "create 3", "create 4"];
    let (mut syncs, mut unmissed, mut is_shape_missed) = (0, Vec::new(), false);
    for (verb, state, unsynced) in [
        // What goes live was written by somebody who did not sync it.
        (&verbs::ACTIVATE, State::Three, Some("/tree/releases/A/version")),
        (&verbs::ROLLBACK, State::Three, Some("/tree/releases/B/version")),
        (&verbs::CREATE, State::One, None),
        (&verbs::CLEAN, State::Three, None),
        (&verbs::REMOVE, State::Three, None),
        (&verbs::PIN, State::Three, None),
        (&verbs::WIRE, State::One, None),
    ] {
        let (mut run, before) = run(verb, state);
        unsynced.into_iter().for_each(|path| run.not_synced_yet(path));
        run.cuts(None, &mut |disk, over| assert_eq!(wrong(&run, before.as_ref(), &disk, over), None, "{}", verb.name));
        for without in 0..run.syncs() {
            let mut missed = false;
            run.cuts(Some(without), &mut |disk, over| {
                let found = wrong(&run, before.as_ref(), &disk, over);
                missed = missed || found.is_some();
                is_shape_missed = is_shape_missed || found.is_some_and(|what| what.contains("another mode or time"));
            });
            syncs += 1;
            unmissed.extend((!missed).then(|| format!("{} {without}", verb.name)));
        }
    }
    let told = format!("power: {syncs} syncs left out, of which these are not missed: {unmissed:?}");
    let _ = writeln!(std::io::stderr(), "{told}");
    assert_eq!(unmissed, needless, "{told}");
    assert!(is_shape_missed, "no mode and no time was lost");
    assert!(syncs >= 28, "{told}");
}
