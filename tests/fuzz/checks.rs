//! What must hold whatever bytes are read: one function for each of the formats that others may have written. They are
//! called by the fuzz targets beside this file, and by `tests/crash` with the corpus and with what proptest makes up.

#![allow(dead_code, reason = "each fuzz target uses one of them")]

use releasectl::clock::Timestamp;
use releasectl::directory::{Dir, Identity};
use releasectl::journal::{Journal, Tail, scan};
use releasectl::operation::{Begin, Event, Operation, Record};
use releasectl::pin::{PREFIX, Pin};
use releasectl::recipe::{Link, merge, parse};
use releasectl::release::{Manifest, ReleaseId, SCHEMA};
use releasectl::sealed::{seal, unseal};
use releasectl::source::{Incoming, Ready, Site, bring};
use releasectl::stage::Stages;
use releasectl::standing::{self, Standing};
use releasectl::supervisor::conf::edit::{Wired, set_user, status, unwire, wire};
use releasectl::supervisor::conf::ini::{Ini, comment, expand, lines};
use releasectl::supervisor::conf::{declared, endpoint};
use releasectl::tools::Tools;
use releasectl::tree::{Found, Tree};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// `,"crc":"` + eight digits + `"}`, as sealed.rs writes it.
const SEAL: usize = 18;

/// A directory for one input; in memory, where there is such a place.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("releasectl-").tempdir_in(place).unwrap()
}

/// Numbers of journal lines stay below this.
const NUMBERS: u64 = 1 << 53;

/// A moment that is always the same.
fn now() -> Timestamp {
    Timestamp::parse("2026-11-22T23:40:17Z").unwrap()
}

/// Most changes of a sealed line are seen by its sum, and nothing behind it is ever reached. So of half the inputs every
/// line that has the form of a sealed one gets the right sum.
fn reseal(bytes: &[u8]) -> Vec<u8> {
    let Some((choice, rest)) = bytes.split_first() else { return Vec::new() };
    if choice % 2 == 0 {
        return rest.to_vec();
    }
    let mut sealed = Vec::with_capacity(rest.len());
    for line in rest.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        match text.len().checked_sub(SEAL).map(|at| text.split_at(at)) {
            Some((content, end)) if end.starts_with(b",\"crc\":\"") => {
                sealed.extend_from_slice(content);
                sealed.extend_from_slice(format!(",\"crc\":\"{:08x}\"}}", crc32fast::hash(content)).as_bytes());
                sealed.extend_from_slice(&line[text.len()..]);
            }
            _ => sealed.extend_from_slice(line),
        }
    }
    sealed
}

/// A journal of any bytes is read, is appended to, and loses none of its good lines.
pub fn journal(bytes: &[u8]) {
    let bytes = reseal(bytes);
    let place = scratch();
    let state = Dir::open(place.path()).unwrap();
    fs::write(place.path().join("journal.jsonl"), &bytes).unwrap();
    let tail = Tail::read(&state, &|_| false).unwrap();
    assert!(tail.complete);
    assert_eq!(tail.records, good_lines(&bytes), "every good line is read, and nothing else");
    let mut lines = 0;
    let bad = scan(&state, &mut |_| lines += 1).unwrap();
    assert!(lines >= tail.records.len() && (bad > 0 || !tail.damaged || lines > tail.records.len()));
    // What follows from them.
    let end = Tail::read(&state, &standing::is_enough).unwrap();
    assert!(tail.records.ends_with(&end.records));
    let live = tail.records.last().and_then(|record| match &record.event {
        releasectl::operation::Event::Begin(begin) => begin.to.clone(),
        _ => None,
    });
    for live in [None, live] {
        let standing = Standing::new(&tail.records, live.as_ref());
        assert_eq!(standing.live, live);
        standing::unfinished(&tail.records);
        standing::unconfirmed(&tail.records);
    }
    // The next writer.
    let (mut journal, notices) = Journal::open(&state, &tail, 1, now()).unwrap();
    let whole = bytes.is_empty() || good_end(&bytes) == bytes.len() && !tail.damaged;
    assert_eq!(notices.is_empty(), whole, "{notices:?}");
    let last = tail.records.last().map_or(0, |record| record.seq);
    let begun = journal.begin(Begin::of(Operation::Activate, "fuzz"), now());
    assert!(begun.as_ref().map_or(last + 1 == NUMBERS, |seq| *seq > last), "{last}: {begun:?}");
    let after = Tail::read(&state, &|_| false).unwrap();
    assert_eq!(after.records.len(), tail.records.len() + usize::from(begun.is_ok()));
    assert!(after.records.starts_with(&tail.records) && !after.damaged && after.torn == 0);
    // Damage is kept as it was found.
    let names = state.names().unwrap();
    let aside: Vec<_> = names.iter().filter(|name| name.to_string_lossy().starts_with("journal.broken-")).collect();
    aside.iter().for_each(|name| assert_eq!(fs::read(place.path().join(name)).unwrap(), bytes));
    assert!(!tail.damaged || aside.len() == 1);
}

/// What a line without its end records; whoever wrote it, its number and its moment are known.
fn record(line: &[u8]) -> Option<Record> {
    #[derive(serde::Deserialize)]
    struct Numbered {
        seq: u64,
        at: Timestamp,
    }
    let later = unseal::<Numbered>(line).map(|Numbered { seq, at }| Record { seq, at, event: Event::Later });
    unseal::<Record>(line).or(later)
}

/// The records of the lines that can be used, in their order.
fn good_lines(bytes: &[u8]) -> Vec<Record> {
    let whole = bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    let mut records: Vec<Record> = Vec::new();
    for record in whole.filter_map(record) {
        let last = records.last().map_or(0, |last| last.seq);
        if (last + 1..NUMBERS).contains(&record.seq) {
            records.push(record);
        }
    }
    records
}

/// Where the last good line ends.
fn good_end(bytes: &[u8]) -> usize {
    let (mut at, mut end, mut last) = (0, 0, 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        at += line.len();
        if let Some(record) =
            line.strip_suffix(b"\n").and_then(record).filter(|record| (last + 1..NUMBERS).contains(&record.seq))
        {
            (end, last) = (at, record.seq);
        }
    }
    end
}

/// A manifest of any bytes is the one that was written, or none.
pub fn manifest(bytes: &[u8]) {
    let bytes = reseal(bytes);
    let place = scratch();
    let release = place.path().join("releases/A/.releasectl");
    fs::create_dir_all(&release).unwrap();
    fs::create_dir(place.path().join(".releasectl")).unwrap();
    fs::write(release.join("release.json"), &bytes).unwrap();
    let tree = Tree::open(Dir::open(place.path()).unwrap()).unwrap();
    let id: ReleaseId = "A".parse().unwrap();
    let read = unseal::<Manifest>(&bytes).filter(|manifest| manifest.schema == SCHEMA);
    match tree.entry(OsStr::new("A")).unwrap().unwrap().found {
        Found::Release(found) => {
            assert_eq!(Some(&*found), read.as_ref());
            assert_eq!(found.id, id, "no release is taken for another");
            let mut again: Manifest = unseal(seal(&*found).unwrap().as_bytes()).unwrap();
            let mut found = *found;
            // What a text says of a fraction is not always the same fraction.
            again.steps.iter_mut().chain(&mut found.steps).for_each(|step| step.seconds = 0.0);
            assert_eq!(again, found, "it can be written again");
            assert_eq!(tree.activatable(&id).is_ok(), found.ready_at.is_some());
        }
        Found::Damaged(..) => assert!(read.is_none_or(|other| other.id != id)),
        other => panic!("{other:?}"),
    }
}

/// A name is a pin or is none; one that says no time protects.
pub fn pin(bytes: &[u8]) {
    let name = String::from_utf8_lossy(bytes);
    for name in [name.clone().into_owned(), format!("{PREFIX}{name}")] {
        let pin = Pin::of_name(&name);
        assert_eq!(pin.is_some(), name.starts_with(PREFIX));
        let Some(pin) = pin else { continue };
        assert_eq!(Pin::strongest([pin, Pin::Unreadable]), Some(Pin::Unreadable));
        match pin {
            Pin::Until(moment) => {
                let again = Pin::of_name(&pin.name().unwrap());
                assert!(matches!(again, Some(Pin::Until(minute)) if minute <= moment), "{name:?}: {again:?}");
                assert_eq!(pin.holds(now()), moment > now());
                assert_eq!(Timestamp::parse(&moment.to_string()), Some(moment), "{moment}");
            }
            Pin::Forever => assert_eq!(pin.name().as_deref(), Some(&*name)),
            Pin::Unreadable => assert!(pin.holds(now()) && pin.name().is_none()),
        }
    }
    if let Ok(id) = name.parse::<ReleaseId>() {
        assert_eq!(Path::new(id.as_str()).components().count(), 1);
        assert!(!id.as_str().starts_with(['.', '-']) && id.as_str().len() <= 128);
        for newest in [None, Some(&id)] {
            let next = ReleaseId::next(now(), newest, &|taken| *taken == id);
            assert_ne!(next, id);
            assert_eq!(next.as_str().parse::<ReleaseId>().as_ref(), Ok(&next));
        }
    }
    releasectl::clock::parse_duration(&name);
    if let Some(days) = bytes.first_chunk().map(|days| u64::from_le_bytes(*days)) {
        let pin = Pin::for_days(days, now());
        assert!(pin.is_err() || pin.is_ok_and(|pin| pin.name().is_some()));
    }
}

/// A recipe or host file is read, or the fault names a line.
pub fn recipe(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (host, recipe) = text.split_once("\n#####\n").unwrap_or(("", &text));
    let last = |text: &str| text.matches('\n').count() + 1;
    for (text, is_recipe) in [(host, false), (recipe, true), (recipe, false)] {
        match parse(text, is_recipe) {
            Ok(_) => {}
            Err(fault) => {
                assert!(!fault.message.is_empty());
                assert!((1..=last(text)).contains(&fault.line), "{fault:?} of {text:?}");
            }
        }
    }
    if let (Ok(over), Ok(_)) = (parse(host, false), parse(recipe, true)) {
        let merged = merge(host, recipe).unwrap();
        assert_eq!((merged.root, merged.user), (over.root, over.user), "the host's alone");
    }
}

/// supervisord's files are read as they are, and an edit gives back every byte.
pub fn supervisor(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (pattern, other) = ("/w/current/services/supervisor/*.conf", "/s/current/services/supervisor/*.conf");
    let _ = endpoint(&text, Path::new("/etc/x.conf"), &|_| Some("value".to_owned()));
    let _ = declared([("a.conf", &*text), ("b.conf", "[program:b]\n")]);
    let _ = expand(&text, &|name| (name == "here").then(|| "/etc".to_owned()));
    let Ok(ini) = Ini::parse(&text) else { return };
    if let Ok(set) = set_user(&text, "app") {
        assert_eq!(set_user(&set, "app").as_ref(), Ok(&set), "a fixed point");
        let after = Ini::parse(&set).unwrap();
        for section in ini.sections.iter().filter(|section| section.name.starts_with("program:")) {
            assert_eq!(after.get(&section.name, "user"), Some("app"), "{set:?}");
        }
    }
    // An [include] that bears our own mark is ours to take away.
    let marked = lines(&text).any(|line| comment(line) == Some("releasectl"));
    if marked || status(&text, pattern, "production") != Ok(Wired::No) {
        return;
    }
    assert_eq!(unwire(&text, "production").as_deref(), Ok(&*text));
    let Ok(wired) = wire(&text, pattern, "production") else { return };
    assert_eq!(status(&wired, pattern, "production"), Ok(Wired::Yes));
    assert_eq!(wire(&wired, pattern, "production").as_ref(), Ok(&wired), "a fixed point");
    assert_eq!(unwire(&wired, "production").as_deref(), Ok(&*text), "byte for byte: {wired:?}");
    if let (Ok(Wired::No), Ok(both)) = (status(&text, other, "staging"), wire(&wired, other, "staging")) {
        for [first, second] in [["production", "staging"], ["staging", "production"]] {
            let one = unwire(&both, first).unwrap();
            assert_eq!(unwire(&one, second).as_deref(), Ok(&*text), "in either order: {both:?}");
        }
    }
}

/// Someone to whom nothing is shown.
struct Nobody;

impl Stages for Nobody {
    fn begin(&self, _: &str) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
    fn output(&self, _: &[u8]) {}
    fn warn(&self, _: &str) {}
}

/// A tar of any bytes writes nothing outside the release, and in it only what a release may hold.
pub fn tar(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let mut archive = rest.to_vec();
    if choice % 2 == 1 {
        right_the_sums(&mut archive);
    }
    let place = scratch();
    fs::create_dir_all(place.path().join("tree/release")).unwrap();
    fs::create_dir_all(place.path().join("outside")).unwrap();
    fs::write(place.path().join("outside/precious"), "precious").unwrap();
    fs::write(place.path().join("tree/beside"), "beside").unwrap();
    fs::write(place.path().join("source.tar"), &archive).unwrap();
    let before = seen_outside(place.path());
    let release = Dir::open(&place.path().join("tree/release")).unwrap();
    let (tools, tree) = (Tools::new(std::iter::empty(), false), Identity { device: 0, inode: 0 });
    let (mirrors, earlier, link) = (&release, None, Link::Copy);
    let site = Site { release: &release, mirrors, tree, earlier, link, tools: &tools, stages: &Nobody };
    let _ = bring(&Ready::Tar(Incoming::new(Some(place.path().join("source.tar")))), &site);
    assert_eq!(seen_outside(place.path()), before);
    for entry in walkdir::WalkDir::new(release.path()).min_depth(1) {
        let entry = entry.unwrap();
        let (kind, mode) = (entry.file_type(), entry.metadata().unwrap().mode());
        assert!(kind.is_file() || kind.is_dir() || kind.is_symlink(), "{entry:?}");
        assert!(kind.is_symlink() || mode & 0o7000 == 0, "{entry:?} has mode {mode:o}");
        let to = kind.is_symlink().then(|| entry.path().canonicalize().ok()).flatten();
        assert!(to.is_none_or(|to| to.starts_with(release.path())), "{entry:?} leads out");
    }
}

/// Everything but the release: path → mode, links, size, time and content.
fn seen_outside(place: &Path) -> BTreeMap<PathBuf, String> {
    let all = walkdir::WalkDir::new(place).into_iter();
    let outside = all.filter_entry(|entry| entry.path() != place.join("tree/release")).map(Result::unwrap);
    let see = |entry: walkdir::DirEntry| {
        let stat = entry.metadata().unwrap();
        let content = if entry.file_type().is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
        let shown = format!(
            "{:o} {} {} {}.{} {:08x}",
            stat.mode(),
            stat.nlink(),
            stat.len(),
            stat.mtime(),
            stat.mtime_nsec(),
            crc32fast::hash(&content)
        );
        (entry.path().to_owned(), shown)
    };
    outside.map(see).collect()
}

/// Gives every header the sum it should have: without it nearly every change is refused before it is looked at.
fn right_the_sums(archive: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..at + 512) {
        if header.iter().all(|byte| *byte == 0) {
            return;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let digits = header[124..136].iter().take_while(|byte| (b'0'..=b'7').contains(byte));
        let size = digits.fold(0_usize, |size, digit| size.wrapping_mul(8).wrapping_add(usize::from(digit - b'0')));
        at = match size.checked_next_multiple_of(512).and_then(|size| (at + 512).checked_add(size)) {
            Some(next) => next,
            None => return,
        };
    }
}
