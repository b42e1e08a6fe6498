//! The old release's path in a file, and the new one in its place.

use super::Result;
use crate::directory::{Dir, PathError};
use memchr::memmem::Finder;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that are read at a time.
const CHUNK: usize = 256 * 1024;

/// How a release's path may be written in its environment: as it was given, with links resolved, and each as a URL.
/// `None` if it has characters that shells, JSON or TOML would write differently.
pub(super) fn spellings(release: &Dir) -> Result<Option<Vec<Vec<u8>>>> {
    let given = release.path();
    let own = format!("/proc/self/fd/{}", release.as_fd().as_raw_fd());
    let resolved = std::fs::read_link(&own).map_err(|cause| PathError::new("resolve", given, cause))?;
    Ok(spell(given, &resolved))
}

/// The same of a release that need not be there, by its path as it was given and resolved.
pub(super) fn spell(given: &Path, resolved: &Path) -> Option<Vec<Vec<u8>>> {
    if !given.is_absolute() || !resolved.is_absolute() || !is_plain(given) || !is_plain(resolved) {
        return None;
    }
    let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
    let (given, resolved) = (bytes(given), bytes(resolved));
    let quoted = [quote(&given), quote(&resolved)];
    Some([[given, resolved], quoted].concat())
}

fn is_plain(path: &Path) -> bool {
    path.as_os_str().as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+~@,=:".contains(byte))
}

/// A path as Python writes it in a URL.
fn quote(path: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(path.len());
    for byte in path {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(byte) {
            quoted.push(*byte);
        } else {
            quoted.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    quoted
}

/// Whether one of `names` occurs in what `file` holds.
pub(super) fn mentions(file: &mut impl Read, names: &[Finder<'_>]) -> io::Result<bool> {
    let overlap = names.iter().map(|name| name.needle().len()).max().unwrap_or(1) - 1;
    let (mut buffer, mut filled) = (vec![0; CHUNK + overlap], 0);
    loop {
        let read = file.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(false);
        }
        filled += read;
        if names.iter().any(|name| name.find(&buffer[..filled]).is_some()) {
            return Ok(true);
        }
        let kept = filled.min(overlap);
        buffer.copy_within(filled - kept..filled, 0);
        filled = kept;
    }
}

/// One release's path put in the place of another's.
#[derive(Debug)]
pub(super) struct Rewrite {
    /// Old and new, the longest first.
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Rewrite {
    /// From the spellings of one release to those of another.
    pub(super) fn new(from: Vec<Vec<u8>>, to: Vec<Vec<u8>>) -> Self {
        let mut pairs: Vec<_> = from.into_iter().zip(to).collect();
        pairs.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
        pairs.dedup_by(|a, b| a.0 == b.0);
        Self { pairs }
    }

    /// Whether every path is replaced by one of the same length.
    pub(super) fn keeps_lengths(&self) -> bool {
        self.pairs.iter().all(|(old, new)| old.len() == new.len())
    }

    /// `text` with the new path wherever the old one stands as a whole: not where it is the beginning of a longer name,
    /// as `…/2026-11-22_23.40` is of `…/2026-11-22_23.40.17`.
    pub(super) fn apply(&self, text: &[u8]) -> Vec<u8> {
        let finders: Vec<_> = self.pairs.iter().map(|(old, new)| (Finder::new(old), new)).collect();
        let (mut made, mut rest) = (Vec::with_capacity(text.len()), text);
        loop {
            // The first to begin counts, so that a path is not taken for the end of a longer one that is known too.
            let found = finders.iter().filter_map(|(old, new)| Some((old.find(rest)?, old.needle().len(), new)));
            let Some((at, length, new)) = found.min_by_key(|(at, length, _)| (*at, usize::MAX - length)) else {
                made.extend_from_slice(rest);
                return made;
            };
            let (before, after) = (&rest[..at], &rest[at + length..]);
            made.extend_from_slice(before);
            made.extend_from_slice(if ends_name(after) { new } else { &rest[at..at + length] });
            rest = after;
        }
    }
}

/// Whether a name has ended before `after`; a dot belongs to it only if more of a name follows.
fn ends_name(after: &[u8]) -> bool {
    let named = |byte: &u8| byte.is_ascii_alphanumeric() || b"_+-%".contains(byte);
    match after {
        [b'.', next, ..] => !named(next),
        [next, ..] => !named(next),
        [] => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(pairs: &[(&str, &str)]) -> Rewrite {
        let (from, to) = pairs.iter().map(|(a, b)| (a.as_bytes().to_vec(), b.as_bytes().to_vec())).unzip();
        Rewrite::new(from, to)
    }

    fn applied(rewrite: &Rewrite, text: &str) -> String {
        String::from_utf8(rewrite.apply(text.as_bytes())).unwrap()
    }

    #[test]
    fn a_path_is_replaced_as_a_whole_and_only_as_a_whole() {
        let rewrite = rewrite(&[("/w/r/1_2.40", "/w/r/9_9.59")]);
        let text = "#!/w/r/1_2.40/bin/python\n\"/w/r/1_2.40\" /w/r/1_2.40.17/x /w/r/1_2.401 (see /w/r/1_2.40.)";
        let wanted = "#!/w/r/9_9.59/bin/python\n\"/w/r/9_9.59\" /w/r/1_2.40.17/x /w/r/1_2.401 (see /w/r/9_9.59.)";
        assert_eq!(applied(&rewrite, text), wanted);
    }

    #[test]
    fn one_spelling_may_be_the_end_of_another() {
        let rewrite = rewrite(&[("/w/r/a", "/w/r/b"), ("/opt/w/r/a", "/mnt/w/r/b"), ("/w/r/a", "/w/r/b")]);
        assert_eq!(applied(&rewrite, "/opt/w/r/a/x:/w/r/a/y"), "/mnt/w/r/b/x:/w/r/b/y");
    }

    #[test]
    fn a_mention_is_found_across_chunks() {
        let names = [Finder::new(b"/w/r/a")];
        for at in [0, 5, CHUNK - 3, CHUNK + 2, 2 * CHUNK + 1] {
            let mut text = vec![b'x'; 3 * CHUNK];
            text[at..at + 6].copy_from_slice(b"/w/r/a");
            assert!(mentions(&mut text.as_slice(), &names).unwrap(), "at {at}");
        }
        assert!(!mentions(&mut vec![b'x'; 3 * CHUNK].as_slice(), &names).unwrap());
    }

    #[test]
    fn paths_are_quoted_as_python_quotes_them() {
        assert_eq!(quote(b"/w/r/a+b~c_d.e@f"), b"/w/r/a%2Bb~c_d.e%40f");
    }
}
