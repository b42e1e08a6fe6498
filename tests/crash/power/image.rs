//! A disk as a set of inodes, and what one system call changes of it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// The number of a file, a directory or a link.
pub type Inode = usize;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Dir(BTreeMap<String, Inode>, u32),
    /// Its content, its mode, and its time if that was set.
    File(Content, u32, Option<SystemTime>),
    Link(String),
}

/// Bytes that many disks have in common: 1 MiB of ballast is in nearly all, and compared only where it differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content(pub Arc<Vec<u8>>);

impl Ord for Content {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl PartialOrd for Content {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What one system call changes.
#[derive(Clone, Debug)]
pub enum Change {
    Name { dir: Inode, name: String, to: Option<Inode> },
    Move { from: (Inode, String), to: (Inode, String), node: Inode },
    Write { node: Inode, at: usize, bytes: Content },
    Cut { node: Inode, length: usize },
    Target { dir: Inode, node: Inode, target: String },
    Mode { node: Inode, mode: u32 },
    Time { node: Inode, time: SystemTime },
}

impl Change {
    /// What must have been synced after it for it to be durable.
    pub fn needs(&self) -> BTreeSet<Inode> {
        match self {
            Self::Name { dir, .. } | Self::Target { dir, .. } => BTreeSet::from([*dir]),
            Self::Move { from, to, .. } => BTreeSet::from([from.0, to.0]),
            Self::Write { node, .. } | Self::Cut { node, .. } | Self::Mode { node, .. } | Self::Time { node, .. } => {
                BTreeSet::from([*node])
            }
        }
    }

    /// What of a write may be there when not all of it is: its beginning, and a size whose bytes are not or not all there.
    pub fn torn(&self) -> Vec<Self> {
        let Self::Write { node, at, bytes: Content(whole) } = self else { return Vec::new() };
        let (length, half) = (whole.len(), whole.len() / 2);
        let zeros = |range: std::ops::Range<usize>| {
            let mut bytes = whole.to_vec();
            bytes[range].fill(0);
            bytes
        };
        let short = |length: usize| whole[..length].to_vec();
        let torn =
            [short(half), short(length.saturating_sub(1)), zeros(0..length), zeros(0..half), zeros(half..length)];
        let torn = torn.into_iter().filter(|torn| torn != &**whole).map(|bytes| Content(Arc::new(bytes)));
        torn.map(|bytes| Self::Write { node: *node, at: *at, bytes }).collect()
    }
}

/// A disk; inode 0 is its root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disk(pub Vec<Node>);

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
            let time = metadata.modified().unwrap();
            self.0.push(Node::File(Content(Arc::new(fs::read(path).unwrap())), mode, Some(time)));
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
            // Without its target none can be made.
            Node::Link(target) if target.is_empty() => return,
            Node::Link(target) => return symlink(target, path).unwrap(),
            Node::File(content, mode, time) => {
                fs::write(path, content.0.as_slice()).unwrap();
                if let Some(time) = time {
                    fs::File::options().write(true).open(path).unwrap().set_modified(*time).unwrap();
                }
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

    pub fn find(&self, path: &str) -> Option<Inode> {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        names.try_fold(0, |at, name| match &self.0[at] {
            Node::Dir(entries, _) => entries.get(name).copied(),
            _ => None,
        })
    }

    /// A file's content.
    pub fn content(&self, path: &str) -> Option<&[u8]> {
        match &self.0[self.find(path)?] {
            Node::File(content, ..) => Some(&content.0),
            _ => None,
        }
    }

    /// The mode of what is at `path`, and the time of a file.
    pub fn shape(&self, path: &str) -> Option<(u32, Option<SystemTime>)> {
        match &self.0[self.find(path)?] {
            Node::File(_, mode, time) => Some((*mode, *time)),
            Node::Dir(_, mode) => Some((*mode, None)),
            Node::Link(_) => None,
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

    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Name { dir, name, to } => self.name(*dir, name, *to),
            Change::Move { from, to, node } => {
                self.name(from.0, &from.1, None);
                self.name(to.0, &to.1, Some(*node));
            }
            Change::Write { node, at, bytes } => {
                if let Node::File(content, ..) = &mut self.0[*node] {
                    if content.0.is_empty() && *at == 0 {
                        *content = bytes.clone();
                        return;
                    }
                    let (content, bytes) = (Arc::make_mut(&mut content.0), &bytes.0);
                    // What lies before it and was not written is a hole.
                    content.resize(content.len().max(at + bytes.len()), 0);
                    content[*at..at + bytes.len()].copy_from_slice(bytes);
                }
            }
            Change::Cut { node, length } => {
                if let Node::File(content, ..) = &mut self.0[*node] {
                    Arc::make_mut(&mut content.0).resize(*length, 0);
                }
            }
            Change::Target { node, target, .. } => self.0[*node] = Node::Link(target.clone()),
            Change::Mode { node, mode } => {
                if let Node::Dir(_, own) | Node::File(_, own, _) = &mut self.0[*node] {
                    *own = *mode;
                }
            }
            Change::Time { node, time } => {
                if let Node::File(_, _, own) = &mut self.0[*node] {
                    *own = Some(*time);
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

    pub fn len(&self, node: Inode) -> usize {
        if let Node::File(content, ..) = &self.0[node] { content.0.len() } else { 0 }
    }
}
