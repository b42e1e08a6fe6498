//! A release: its name, its manifest, its state.

use crate::clock::Timestamp;
use crate::environment::Environment;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A login this long is no name but a token, as forges take it in a name's place.
const TOKEN: usize = 32;
/// The longest id.
const LONGEST: usize = 128;

/// A release's name: `[A-Za-z0-9][A-Za-z0-9._+-]{0,127}`. Nothing else is ever used as a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseId(String);

/// Words that name a release by what it is, and what a file system has of its own; no release may have one of them as
/// its id.
const WORDS: [&str; 5] = ["current", "previous", "latest", "none", "lost+found"];

/// Why a text is no release id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be a release id: {1}")]
pub struct NotAnId(String, &'static str);

impl ReleaseId {
    /// The id as text, which is also its name on disk.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of a release made at `now`: the minute; with seconds if that is `taken` or would not sort after `newest`;
    /// with a counter if that is too.
    pub fn next(now: Timestamp, newest: Option<&Self>, taken: &dyn Fn(&Self) -> bool) -> Self {
        let second = now.second();
        let counted = |n: u32| Self(format!("{second}.{n:03}"));
        // A clock that was set back never gets past `newest`; then it is enough that the name is free.
        let behind = newest.is_some_and(|newest| *newest >= counted(999));
        let free = |id: &Self| !taken(id) && (behind || newest.is_none_or(|newest| id > newest));
        let minute = Some(Self(now.minute())).filter(|_| !behind);
        let names = minute.into_iter().chain([Self(second.clone())]).chain((1..).map(counted));
        names.into_iter().find(free).unwrap_or(Self(second.clone()))
    }

    /// Whether it has the form that [`ReleaseId::next`] gives, so that it sorts by time.
    pub fn is_dated(&self) -> bool {
        self.0.get(..16).and_then(Timestamp::parse).is_some_and(|moment| self.0.starts_with(&moment.minute()))
    }
}

impl FromStr for ReleaseId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for ReleaseId {
    type Error = NotAnId;

    fn try_from(text: String) -> Result<Self, NotAnId> {
        let wrong = |why| Err(NotAnId(text.chars().take(LONGEST).collect(), why));
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
        match text.bytes().next() {
            None => wrong("it is empty"),
            Some(first) if !first.is_ascii_alphanumeric() => wrong("it must begin with a letter or digit"),
            _ if text.len() > LONGEST => wrong("it is longer than 128 characters"),
            _ if !text.bytes().all(plain) => wrong("it may hold only letters, digits and . _ + -"),
            _ if WORDS.contains(&text.as_str()) => wrong("that word has a meaning of its own"),
            _ => Ok(Self(text)),
        }
    }
}

impl From<ReleaseId> for String {
    fn from(id: ReleaseId) -> Self {
        id.0
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

/// Where a release's code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A commit of a git repository.
    Git,
    /// A directory as it was.
    Dir,
    /// A tar file.
    Tar,
    /// It was there before us.
    Adopted,
}

/// Where the code came from, exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// What it was.
    pub kind: SourceKind,
    /// URL, path, or `-`.
    pub location: String,
    /// The ref that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#ref: Option<String>,
    /// The commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

impl Origin {
    /// Where to fetch from again: `configured`, if that is the same but for a password, which is not on record.
    pub fn fetched_from<'a>(&'a self, configured: Option<&'a String>) -> &'a str {
        configured.filter(|url| without_password(url) == self.location).unwrap_or(&self.location)
    }
}

/// What a URL says before its host, and whether that holds a secret: a password, or a token that stands for user and all.
fn login(location: &str) -> Option<(&str, &str)> {
    let (_, rest) = location.split_once("://")?;
    let (login, _) = rest.split('/').next()?.rsplit_once('@')?;
    let secret = login.split_once(':').map(|(_, password)| password);
    Some((login, secret.or((login.len() >= TOKEN).then_some(login))?))
}

/// The secret in a URL, if there is one.
pub fn password(location: &str) -> Option<&str> {
    login(location).map(|(_, secret)| secret).filter(|secret| !secret.is_empty())
}

/// A URL as it may be shown: `https://user:secret@host/` loses the secret, and a token that stands for both goes whole.
pub fn without_password(location: &str) -> String {
    let Some((login, _)) = login(location) else { return location.to_owned() };
    let user = login.split_once(':').map_or("", |(user, _)| user);
    location.replacen(&format!("{login}@"), &format!("{user}:***@"), 1)
}

/// One thing a build did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub status: StepStatus,
    /// How long it took.
    pub seconds: f64,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// It did its work.
    Done,
    /// It was not called for.
    Skipped,
    /// It failed.
    Failed,
}

impl fmt::Display for StepStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        })
    }
}

/// The version of the manifests that this version reads and writes.
pub const SCHEMA: u32 = 1;

/// A release's own record. `ready_at` is written last and is the commit of the build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this record, [`SCHEMA`].
    pub schema: u32,
    /// Its name.
    pub id: ReleaseId,
    /// The journal's sequence number of its creation: what releases are ordered by.
    pub sequence: u64,
    /// When its name was reserved.
    pub created_at: Timestamp,
    /// Who made it.
    pub by: String,
    /// Where the code came from.
    pub origin: Origin,
    /// What the build did.
    #[serde(default)]
    pub steps: Vec<StepRecord>,
    /// The sum of the recipe and the host's file it is built by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// The virtual environment, if the build made one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<Environment>,
    /// When the build was complete and on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Timestamp>,
    /// Why the build failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Why it is not to be gone back to: rolled back from, or it did not come up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad: Option<String>,
    /// Files, links and directories when it became ready.
    #[serde(default)]
    pub entries: u64,
    /// Bytes of disk when it became ready.
    #[serde(default)]
    pub bytes: u64,
}

impl Manifest {
    /// The record of a build that begins.
    pub fn begin(id: ReleaseId, sequence: u64, created_at: Timestamp, by: String, origin: Origin) -> Self {
        Self {
            schema: SCHEMA,
            id,
            sequence,
            created_at,
            by,
            origin,
            steps: Vec::new(),
            recipe: None,
            python: None,
            ready_at: None,
            failure: None,
            bad: None,
            entries: 0,
            bytes: 0,
        }
    }

    /// Whether a step of this name is over, done or not called for.
    pub fn has_done(&self, step: &str) -> bool {
        self.steps.iter().any(|record| record.name == step && record.status != StepStatus::Failed)
    }

    /// Its state; `leased` says whether a live process holds it exclusively.
    pub fn state(&self, leased: bool) -> State {
        match (self.ready_at, &self.bad) {
            (None, _) if leased => State::Building,
            (None, _) => State::Incomplete,
            (Some(_), Some(_)) => State::Bad,
            (Some(_), None) => State::Ready,
        }
    }
}

/// What a release is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A live process is building it.
    Building,
    /// Its build failed or was killed.
    Incomplete,
    /// It can be activated.
    Ready,
    /// It was rolled back from, or did not come up.
    Bad,
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Building => "building",
            Self::Incomplete => "incomplete",
            Self::Ready => "ready",
            Self::Bad => "bad",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let token = format!("ghp_{}", "x".repeat(36));
        assert_eq!(without_password("https://bob:s3cret@h/x"), "https://bob:***@h/x");
        assert_eq!(without_password(&format!("https://{token}@h/x")), "https://:***@h/x");
        assert_eq!(password("https://bob:s3cret@h/x"), Some("s3cret"));
        assert_eq!(password(&format!("https://{token}@h/x")), Some(token.as_str()));
        assert_eq!(password("https://bob:@h/x"), None);
        for open in ["https://bob@h/x", "git@h:x", "ssh://git@h/x", "/srv/a@b:c", "deploy"] {
            assert_eq!((without_password(open).as_str(), password(open)), (open, None));
        }
    }

    #[test]
    fn p12_an_id_is_a_plain_name_and_never_a_path() {
        for good in ["2026-11-22_23.40", "a", "20260101120000", "v1.2+b-3_x", &"x".repeat(128)] {
            assert!(good.parse::<ReleaseId>().is_ok(), "{good}");
        }
        let long = "x".repeat(129);
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "-x",
            "a b",
            "a/b",
            "_a",
            "é",
            "a\n",
            "a\0",
            "current",
            "latest",
            "lost+found",
            &long,
        ] {
            assert!(bad.parse::<ReleaseId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn p12_a_taken_name_gets_seconds_then_a_counter() {
        let now = Timestamp::parse("2026-11-22T23:40:17Z").unwrap();
        let id = |text: &str| text.parse::<ReleaseId>().unwrap();
        let next = |taken: &[&str], newest: Option<&str>| {
            let newest = newest.map(id);
            ReleaseId::next(now, newest.as_ref(), &|id| taken.contains(&id.as_str())).to_string()
        };
        assert_eq!(next(&[], None), "2026-11-22_23.40");
        assert_eq!(next(&["2026-11-22_23.40"], None), "2026-11-22_23.40.17");
        assert_eq!(next(&[], Some("2026-11-22_23.40.05")), "2026-11-22_23.40.17");
        assert_eq!(next(&["2026-11-22_23.40", "2026-11-22_23.40.17"], None), "2026-11-22_23.40.17.001");
        let newest = Some("2026-11-22_23.40.17.001");
        assert_eq!(next(&["2026-11-22_23.40.17", "2026-11-22_23.40.17.001"], newest), "2026-11-22_23.40.17.002");
        assert_eq!(next(&[], Some("2026-11-22_23.59")), "2026-11-22_23.40.17", "the clock was set back");
    }
}
