//! A run as changes to a disk and syncs of it, and every disk that a power cut may leave: what no sync has covered is there
//! or not, in any combination, and a write in part. This is more than any real file system does: an fsync of a file
//! covers its content and not its name, one of a directory the names in it (and the targets of links made there).

use super::image::{Change, Content, Disk, Inode, Node};
use super::record::{arguments, modified, path_of, text, unquoted};
use crate::trace::Call;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Event {
    Change(Change),
    /// Of one inode, or of everything.
    Sync(Option<Inode>),
    /// One that was wanted and not made.
    LeftOut(String),
}

/// A run on a disk.
pub struct Run {
    /// Before it, with the inodes that it will make, empty and without a name.
    before: Disk,
    /// After it.
    pub after: Disk,
    events: Vec<Event>,
}

impl Run {
    /// Reads `calls` of a run on `before`, which is what was at `root`. A call that failed did nothing; a file that was looked
    /// for as `left out: SYNC` tells of a sync.
    pub fn new(before: Disk, root: &Path, calls: &[Call]) -> Self {
        let mut run = Self { after: before.clone(), before, events: Vec::new() };
        let root = format!("{}/", root.display());
        for call in calls {
            if let Some((_, sync)) = call.arguments.split_once("\"left out: ") {
                run.events.push(Event::LeftOut(sync.split('"').next().unwrap().to_owned()));
            } else if !call.answer.starts_with("-1") {
                run.take_in(call, &root);
            }
        }
        run
    }

    /// The disk before it.
    pub fn before(&self) -> &Disk {
        &self.before
    }

    /// The sync that was left out of it, and where it would have been.
    fn gap(&self) -> Option<(usize, &str)> {
        let mut events = self.events.iter().enumerate();
        events.find_map(|(at, event)| if let Event::LeftOut(sync) = event { Some((at, sync.as_str())) } else { None })
    }

    /// The sync that was left out of it.
    pub fn left_out(&self) -> Option<&str> {
        self.gap().map(|(_, sync)| sync)
    }

    /// What the file at `path` holds was written just before the run and not synced.
    pub fn not_synced_yet(&mut self, path: &str) {
        let Some(node) = self.before.find(path) else { return };
        let bytes = self.before.content(path).unwrap_or_default().to_vec();
        self.before.apply(&Change::Cut { node, length: 0 });
        self.events.insert(0, Event::Change(Change::Write { node, at: 0, bytes: Content(Arc::new(bytes)) }));
    }

    /// The name at the end of `path` was given just before the run, and its directory not synced.
    pub fn not_named_yet(&mut self, path: &str) {
        let (Some(node), Some((dir, name))) = (self.before.find(path), self.place(path)) else { return };
        self.before.apply(&Change::Name { dir, name: name.clone(), to: None });
        self.events.insert(0, Event::Change(Change::Name { dir, name, to: Some(node) }));
    }

    fn change(&mut self, change: Change) {
        self.after.apply(&change);
        self.events.push(Event::Change(change));
    }

    fn make(&mut self, path: &str, empty: Node) -> Option<Inode> {
        let (dir, name) = self.place(path)?;
        self.before.0.push(empty.clone());
        self.after.0.push(empty);
        let node = self.after.0.len() - 1;
        self.change(Change::Name { dir, name, to: Some(node) });
        Some(node)
    }

    /// The directory of a path, and the name in it.
    fn place(&self, path: &str) -> Option<(Inode, String)> {
        let (dir, name) = path.trim_end_matches('/').rsplit_once('/')?;
        Some((self.after.find(dir)?, name.to_owned()))
    }

    fn take_in(&mut self, call: &Call, root: &str) -> Option<()> {
        let arguments = arguments(&call.arguments);
        let word = |at: usize| arguments.get(at).map_or("", String::as_str);
        let number = |at: usize| word(at).parse::<usize>().ok();
        let mode = |at: usize| u32::from_str_radix(word(at), 8).ok();
        // A path relative to the root, with a slash before it.
        let within = |path: &str| path.strip_prefix(root).map(|path| format!("/{path}"));
        let own = |at: usize| within(&format!("{}/", path_of(word(at))?));
        let below = |dir: usize, name: usize| {
            let (path, name) = (path_of(word(dir)).unwrap_or_default(), text(word(name)));
            within(&if name.starts_with('/') { name } else { format!("{path}/{name}") })
        };
        let node = |run: &Self, at: usize| run.after.find(&own(at)?);
        match call.name.as_str() {
            "openat" if word(2).contains("O_CREAT") => {
                let path = below(0, 1)?;
                match self.after.find(&path) {
                    None => drop(self.make(&path, Node::File(Content::default(), mode(3)? & !0o022, None))?),
                    Some(node) if word(2).contains("O_TRUNC") => self.change(Change::Cut { node, length: 0 }),
                    Some(_) => {}
                }
            }
            "mkdir" => drop(self.make(&within(&text(word(0)))?, Node::Dir(BTreeMap::new(), mode(1)? & !0o022))?),
            "mkdirat" => drop(self.make(&below(0, 1)?, Node::Dir(BTreeMap::new(), mode(2)? & !0o022))?),
            "symlinkat" => {
                let path = below(1, 2)?;
                let (dir, node) = (self.place(&path)?.0, self.make(&path, Node::Link(String::new()))?);
                self.change(Change::Target { dir, node, target: text(word(0)) });
            }
            "linkat" => {
                let (node, (dir, name)) = (self.after.find(&below(0, 1)?)?, self.place(&below(2, 3)?)?);
                self.change(Change::Name { dir, name, to: Some(node) });
            }
            "unlinkat" => {
                let (dir, name) = self.place(&below(0, 1)?)?;
                self.change(Change::Name { dir, name, to: None });
            }
            "renameat" | "renameat2" => {
                let (from, to) = (below(0, 1)?, below(2, 3)?);
                let node = self.after.find(&from)?;
                self.change(Change::Move { from: self.place(&from)?, to: self.place(&to)?, node });
            }
            "write" => self.write(node(self, 0)?, None, word(1), number(2)?),
            "pwrite64" => self.write(node(self, 0)?, number(3), word(1), number(2)?),
            "copy_file_range" => {
                let (node, bytes) = (node(self, 2)?, fs::read(path_of(word(0))?).unwrap());
                let (at, length) = (self.after.len(node), call.answer.parse::<usize>().ok()?);
                self.change(Change::Write { node, at, bytes: Content(Arc::new(bytes[at..at + length].to_vec())) });
            }
            "ftruncate" => self.change(Change::Cut { node: node(self, 0)?, length: number(1)? }),
            "fchmod" => self.change(Change::Mode { node: node(self, 0)?, mode: mode(1)? }),
            "utimensat" => {
                let node = if word(1) == "NULL" { node(self, 0) } else { self.after.find(&below(0, 1)?) };
                self.change(Change::Time { node: node?, time: modified(word(2))? });
            }
            "fsync" | "fdatasync" => self.events.push(Event::Sync(Some(node(self, 0)?))),
            "syncfs" => self.events.push(Event::Sync(None)),
            _ => {}
        }
        Some(())
    }

    fn write(&mut self, node: Inode, at: Option<usize>, content: &str, length: usize) {
        let at = at.unwrap_or_else(|| self.after.len(node));
        let mut bytes = unquoted(content);
        // strace shows the beginning of what is long; that is all alike here.
        bytes.resize(length, bytes.last().copied().unwrap_or_default());
        self.change(Change::Write { node, at, bytes: Content(Arc::new(bytes)) });
    }

    /// Every disk that a cut may leave, until `see` has seen enough, with what is `owed` at that moment: judged by the disk as
    /// a reader sees it then, and by whether the run is over. Where too many changes are open for every combination: none,
    /// all, each alone, all but each, each two. Each open write is torn too, where nothing else that is open is there, and
    /// where all of it is. Where a sync was left out: first at the end, then from there on; before that nothing is different.
    pub fn cuts<T: Clone + Ord>(
        &self,
        owed: &dyn Fn(&Disk, bool) -> T,
        see: &mut dyn FnMut(Disk, &T) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut seen = BTreeSet::new();
        let torn_at = |event: &Event| if let Event::Change(change) = event { change.torn() } else { Vec::new() };
        let torn: Vec<_> = self.events.iter().map(torn_at).collect();
        let (first, last) = (self.gap().map_or(0, |(at, _)| at), self.events.len());
        for end in std::iter::once(last).chain(first..last) {
            let (durable, open) = self.standing(end);
            let owed = owed(&self.left(end, &|_| true, None), end == last);
            let mut left = |chosen: &BTreeSet<usize>, torn: Option<(usize, &Change)>| {
                let disk = self.left(end, &|at| durable.contains(&at) || chosen.contains(&at), torn);
                if seen.insert((disk.clone(), owed.clone())) { see(disk, &owed) } else { ControlFlow::Continue(()) }
            };
            subsets(&open).iter().try_for_each(|chosen| left(chosen, None))?;
            let all: BTreeSet<usize> = open.iter().copied().collect();
            for at in open {
                for torn in &torn[at] {
                    left(&all, Some((at, torn)))?;
                    left(&BTreeSet::from([at]), Some((at, torn)))?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// The disk with those changes before `end` that are there, one of them torn.
    fn left(&self, end: usize, is_there: &dyn Fn(usize) -> bool, torn: Option<(usize, &Change)>) -> Disk {
        let mut disk = self.before.clone();
        for (at, event) in self.events[..end].iter().enumerate() {
            if let Event::Change(change) = event
                && is_there(at)
            {
                disk.apply(torn.filter(|(torn, _)| *torn == at).map_or(change, |(_, torn)| torn));
            }
        }
        disk
    }

    /// Of the changes before `end`, those that are durable and those that are not.
    fn standing(&self, end: usize) -> (BTreeSet<usize>, Vec<usize>) {
        let (mut durable, mut open) = (BTreeSet::new(), Vec::<(usize, BTreeSet<Inode>)>::new());
        for (at, event) in self.events[..end].iter().enumerate() {
            match event {
                Event::LeftOut(_) => {}
                Event::Change(change) => open.push((at, change.needs())),
                Event::Sync(of) => {
                    for (_, needs) in &mut open {
                        needs.retain(|need| of.is_some_and(|of| of != *need));
                    }
                    durable.extend(open.extract_if(.., |(_, needs)| needs.is_empty()).map(|(at, _)| at));
                }
            }
        }
        (durable, open.into_iter().map(|(at, _)| at).collect())
    }
}

/// As many of the combinations of `open` as are looked at.
fn subsets(open: &[usize]) -> Vec<BTreeSet<usize>> {
    let all: BTreeSet<usize> = open.iter().copied().collect();
    if open.len() <= 6 {
        let bits = |n: usize| open.iter().enumerate().filter(move |(at, _)| n >> at & 1 == 1).map(|(_, op)| *op);
        return (0..1 << open.len()).map(|n| bits(n).collect()).collect();
    }
    let mut some = vec![BTreeSet::new(), all.clone()];
    for one in open {
        some.push(BTreeSet::from([*one]));
        some.push(all.iter().copied().filter(|other| other != one).collect());
        some.extend(open.iter().filter(|other| *other < one).map(|other| BTreeSet::from([*one, *other])));
    }
    some
}
