//! A disk as a set of inodes, a run as changes to it and syncs of it, and every disk that a power cut may leave: what no
//! sync has covered is there or not, in any combination. This is more than any real file system does: an fsync of a file
//! covers its content and not its name, one of a directory the names in it (and the targets of links made there).

use crate::trace::Call;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

/// The number of a file, a directory or a link.
type Inode = usize;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Node {
    Dir(BTreeMap<String, Inode>, u32),
    File(Arc<Vec<u8>>, u32),
    Link(String),
}

/// What one system call changes.
#[derive(Clone, Debug)]
enum Change {
    Name { dir: Inode, name: String, to: Option<Inode> },
    Move { from: (Inode, String), to: (Inode, String), node: Inode },
    Write { node: Inode, at: usize, bytes: Vec<u8> },
    Cut { node: Inode, length: usize },
    Target { dir: Inode, node: Inode, target: String },
    Mode { node: Inode, mode: u32 },
}

impl Change {
    /// What must have been synced after it for it to be durable.
    fn needs(&self) -> BTreeSet<Inode> {
        match self {
            Self::Name { dir, .. } | Self::Target { dir, .. } => BTreeSet::from([*dir]),
            Self::Move { from, to, .. } => BTreeSet::from([from.0, to.0]),
            Self::Write { node, .. } | Self::Cut { node, .. } | Self::Mode { node, .. } => BTreeSet::from([*node]),
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Change(Change),
    /// Of one inode, or of everything.
    Sync(Option<Inode>),
}

/// A disk; inode 0 is its root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Disk(Vec<Node>);

impl Disk {
    /// What is at `path`.
    pub fn read(path: &Path) -> Self {
        let mut disk = Self(Vec::new());
        disk.take_in(path);
        disk
    }

    fn take_in(&mut self, path: &Path) -> Inode {
        let metadata = fs::symlink_metadata(path).unwrap();
        let (own, mode) = (self.0.len(), metadata.permissions().mode() & 0o7777);
        if metadata.is_symlink() {
            self.0.push(Node::Link(fs::read_link(path).unwrap().to_str().unwrap().to_owned()));
        } else if metadata.is_file() {
            self.0.push(Node::File(Arc::new(fs::read(path).unwrap()), mode));
        } else {
            self.0.push(Node::Dir(BTreeMap::new(), mode));
            let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let entries = entries.map(|name| (name.clone(), self.take_in(&path.join(&name)))).collect();
            self.0[own] = Node::Dir(entries, mode);
        }
        own
    }

    /// Makes it real at `path`.
    pub fn write(&self, path: &Path) {
        self.write_node(0, path);
    }

    fn write_node(&self, node: Inode, path: &Path) {
        let mode = match &self.0[node] {
            Node::Link(target) => return symlink(target, path).unwrap(),
            Node::File(content, mode) => {
                fs::write(path, content.as_slice()).unwrap();
                mode
            }
            Node::Dir(entries, mode) => {
                fs::create_dir(path).unwrap();
                entries.iter().for_each(|(name, node)| self.write_node(*node, &path.join(name)));
                mode
            }
        };
        fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
    }

    fn find(&self, path: &str) -> Option<Inode> {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        names.try_fold(0, |at, name| match &self.0[at] {
            Node::Dir(entries, _) => entries.get(name).copied(),
            _ => None,
        })
    }

    /// A file's content.
    pub fn content(&self, path: &str) -> Option<&[u8]> {
        match &self.0[self.find(path)?] {
            Node::File(content, _) => Some(content),
            _ => None,
        }
    }

    /// A link's target.
    pub fn target(&self, path: &str) -> Option<&str> {
        match &self.0[self.find(path)?] {
            Node::Link(target) => Some(target),
            _ => None,
        }
    }

    /// The names in a directory; none if it is none.
    pub fn names(&self, path: &str) -> Vec<&str> {
        match self.find(path).map(|node| &self.0[node]) {
            Some(Node::Dir(entries, _)) => entries.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Name { dir, name, to } => self.name(*dir, name, *to),
            Change::Move { from, to, node } => {
                self.name(from.0, &from.1, None);
                self.name(to.0, &to.1, Some(*node));
            }
            Change::Write { node, at, bytes } => {
                if let Node::File(content, _) = &mut self.0[*node] {
                    let content = Arc::make_mut(content);
                    // What lies before it and was not written is a hole.
                    content.resize(content.len().max(at + bytes.len()), 0);
                    content[*at..at + bytes.len()].copy_from_slice(bytes);
                }
            }
            Change::Cut { node, length } => {
                if let Node::File(content, _) = &mut self.0[*node] {
                    Arc::make_mut(content).resize(*length, 0);
                }
            }
            Change::Target { node, target, .. } => self.0[*node] = Node::Link(target.clone()),
            Change::Mode { node, mode } => {
                if let Node::Dir(_, own) | Node::File(_, own) = &mut self.0[*node] {
                    *own = *mode;
                }
            }
        }
    }

    fn name(&mut self, dir: Inode, name: &str, to: Option<Inode>) {
        let Node::Dir(entries, _) = &mut self.0[dir] else { return };
        match to {
            Some(node) => entries.insert(name.to_owned(), node),
            None => entries.remove(name),
        };
    }

    fn len(&self, node: Inode) -> usize {
        if let Node::File(content, _) = &self.0[node] { content.len() } else { 0 }
    }
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
    /// Reads `calls` of a run on `before`, which is what was at `root`. A call that was left out by strace did nothing.
    pub fn new(before: Disk, root: &Path, calls: &[Call]) -> Self {
        let mut run = Self { after: before.clone(), before, events: Vec::new() };
        let root = format!("{}/", root.display());
        for call in calls.iter().filter(|call| !call.answer.starts_with("-1") && !call.answer.contains("INJECTED")) {
            run.take_in(call, &root);
        }
        run
    }

    /// The disk before it.
    pub fn before(&self) -> &Disk {
        &self.before
    }

    /// What the file at `path` holds was written just before the run and not synced.
    pub fn not_synced_yet(&mut self, path: &str) {
        let Some(node) = self.before.find(path) else { return };
        let bytes = self.before.content(path).unwrap_or_default().to_vec();
        self.before.apply(&Change::Cut { node, length: 0 });
        self.events.insert(0, Event::Change(Change::Write { node, at: 0, bytes }));
    }

    /// How many syncs there are in it.
    pub fn syncs(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Sync(_))).count()
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
                    None => drop(self.make(&path, Node::File(Arc::default(), mode(3)? & !0o022))?),
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
                self.change(Change::Write { node, at, bytes: bytes[at..at + length].to_vec() });
            }
            "ftruncate" => self.change(Change::Cut { node: node(self, 0)?, length: number(1)? }),
            "fchmod" => self.change(Change::Mode { node: node(self, 0)?, mode: mode(1)? }),
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
        self.change(Change::Write { node, at, bytes });
    }

    /// Every disk that a cut may leave, with whether the run was over by then; the sync number `without`, if any, counts
    /// for nothing. Where too many changes are open for every combination: none, all, each alone, all but each, each two.
    pub fn cuts(&self, without: Option<usize>, see: &mut dyn FnMut(Disk, bool)) {
        let mut seen = BTreeSet::new();
        for end in 0..=self.events.len() {
            let (durable, open) = self.standing(end, without);
            for chosen in subsets(&open) {
                let mut disk = self.before.clone();
                for (at, event) in self.events[..end].iter().enumerate() {
                    if let Event::Change(change) = event
                        && (durable.contains(&at) || chosen.contains(&at))
                    {
                        disk.apply(change);
                    }
                }
                let over = end == self.events.len();
                if seen.insert((disk.clone(), over)) {
                    see(disk, over);
                }
            }
        }
    }

    /// Of the changes before `end`, those that are durable and those that are not.
    fn standing(&self, end: usize, without: Option<usize>) -> (BTreeSet<usize>, Vec<usize>) {
        let (mut durable, mut open) = (BTreeSet::new(), Vec::<(usize, BTreeSet<Inode>)>::new());
        let mut syncs = 0;
        for (at, event) in self.events[..end].iter().enumerate() {
            match event {
                Event::Change(change) => open.push((at, change.needs())),
                Event::Sync(of) => {
                    syncs += 1;
                    if without == Some(syncs - 1) {
                        continue;
                    }
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

/// `3</t>, "a, b", 0600` is three.
fn arguments(text: &str) -> Vec<String> {
    let (mut all, mut quoted, mut escaped, mut depth) = (vec![String::new()], false, false, 0);
    for c in text.chars() {
        match c {
            '"' if !escaped => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                all.push(String::new());
                continue;
            }
            _ => {}
        }
        escaped = quoted && c == '\\' && !escaped;
        let last = all.last_mut().unwrap();
        if !(c == ' ' && last.is_empty()) {
            last.push(c);
        }
    }
    all
}

/// `3</tree/a>` is `/tree/a`.
fn path_of(descriptor: &str) -> Option<&str> {
    Some(descriptor.split_once('<')?.1.rsplit_once('>')?.0)
}

fn text(quoted: &str) -> String {
    String::from_utf8(unquoted(quoted)).unwrap()
}

/// The bytes of a text as strace writes it.
fn unquoted(quoted: &str) -> Vec<u8> {
    let inner = quoted.trim_end_matches("...").trim_matches('"').as_bytes();
    let inner = if quoted.ends_with("\\\"\"") { &quoted.as_bytes()[1..quoted.len() - 1] } else { inner };
    let (mut bytes, mut at) = (Vec::new(), 0);
    while at < inner.len() {
        if inner[at] != b'\\' {
            bytes.push(inner[at]);
            at += 1;
            continue;
        }
        let digits = inner[at + 1..].iter().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
        if digits > 0 {
            let number = inner[at + 1..=at + digits].iter().fold(0_u32, |n, digit| n * 8 + u32::from(digit - b'0'));
            bytes.push(u8::try_from(number).unwrap());
            at += 1 + digits;
            continue;
        }
        bytes.push(match inner[at + 1] {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'v' => 11,
            b'f' => 12,
            other => other,
        });
        at += 2;
    }
    bytes
}

#[test]
fn texts_are_read_as_strace_writes_them() {
    assert_eq!(unquoted(r#""a\n\"b\"\0\342\200\246""#), "a\n\"b\"\0…".as_bytes());
    assert_eq!(arguments(r#"3</t>, "a, \"b", [{c, d}], 0600"#), ["3</t>", r#""a, \"b""#, "[{c, d}]", "0600"]);
}
