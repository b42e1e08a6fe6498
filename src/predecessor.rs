//! What an older tool left in a tree, read as history: which of its releases are good, and which were live in turn.
//!
//! Each tool's records are read by rules of its own, below; none is trusted further than it is known to be right. The
//! live release is good whatever they say: it serves. What cannot be established to be good is none to go back to.

mod ansistrano;
mod capistrano;
mod deployer;
mod fabric;
pub mod ledger;
mod mina;

use crate::clock::Timestamp;
use crate::operation::Chain;
use crate::release::ReleaseId;
use serde::Serialize;
use std::cmp::Ordering;
use std::fmt;

/// A tool that laid out a tree before us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// Fabric's tasks and commcare-cloud's playbooks.
    Fabric,
    /// Capistrano 3.
    Capistrano,
    /// Deployer.
    Deployer,
    /// Mina.
    Mina,
    /// Ansistrano, and Ansible's deploy_helper.
    Ansistrano,
}

impl fmt::Display for Tool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Fabric => "Fabric",
            Self::Capistrano => "Capistrano",
            Self::Deployer => "Deployer",
            Self::Mina => "Mina",
            Self::Ansistrano => "Ansistrano",
        })
    }
}

/// What was found on disk.
#[derive(Clone, Debug, Default)]
pub struct Remains {
    /// The directories that could be releases.
    pub releases: Vec<Remnant>,
    /// Where `current` leads.
    pub live: Option<ReleaseId>,
    /// Fabric's `RELEASES.txt`.
    pub releases_txt: Option<String>,
    /// Capistrano's `revisions.log`.
    pub revisions_log: Option<String>,
    /// Deployer's `.dep/releases_log`, or the `.dep/releases` of its older versions.
    pub releases_log: Option<String>,
    /// Where Deployer's link `release` leads: a deploy that did not come to its end.
    pub under_way: Option<ReleaseId>,
    /// Mina's `last_version`.
    pub last_version: Option<String>,
}

/// One directory.
#[derive(Clone, Debug)]
pub struct Remnant {
    /// Its name.
    pub id: ReleaseId,
    /// The marks in it.
    pub marks: Vec<Mark>,
}

/// A file by which a tool marks a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// commcare-cloud's `.build-complete`.
    BuildComplete,
    /// The commit that Capistrano and Deployer write down once the code is there.
    Revision,
    /// Deployer's `BAD_RELEASE`: it was rolled back from.
    Bad,
    /// deploy_helper's `DEPLOY_UNFINISHED`.
    Unfinished,
}

/// What a release turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It can go live.
    Ready,
    /// It was not built to its end, or nothing says that it was.
    Incomplete(&'static str),
    /// It was rolled back from.
    Bad(&'static str),
}

/// One release's story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which.
    pub id: ReleaseId,
    /// What it is good for.
    pub condition: Condition,
    /// When it was made, if its name or a record says so.
    pub created_at: Option<Timestamp>,
}

impl Told {
    fn new(id: &ReleaseId, condition: Condition) -> Self {
        Self { id: id.clone(), condition, created_at: moment_of(id) }
    }
}

/// What the remains tell.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Whose they are; none for a tree that no tool left a sign in.
    pub tool: Option<Tool>,
    /// The releases, oldest first. What is not among them is not a release.
    pub releases: Vec<Told>,
    /// The live release and those before it.
    pub chain: Chain,
    /// What a person should know of the tool's records.
    pub doubt: Option<&'static str>,
}

/// What one tool's records say: its releases, oldest first; those that were live in turn, up to the live one; a doubt.
#[derive(Debug, Default)]
struct Reading {
    releases: Vec<Told>,
    history: Vec<ReleaseId>,
    doubt: Option<&'static str>,
}

/// Reads what was found.
pub fn account(remains: &Remains) -> Account {
    let tool = remains.tool();
    let Reading { mut releases, history, doubt } = match tool {
        Some(Tool::Fabric) => fabric::read(remains),
        Some(Tool::Capistrano) => capistrano::read(remains),
        Some(Tool::Deployer) => deployer::read(remains),
        Some(Tool::Mina) => mina::read(remains),
        Some(Tool::Ansistrano) => ansistrano::read(remains),
        None => Reading { releases: remains.all_ready(), ..Reading::default() },
    };
    let is_live = |id: &ReleaseId| remains.live.as_ref() == Some(id);
    for told in releases.iter_mut().filter(|told| is_live(&told.id)) {
        told.condition = Condition::Ready;
    }
    let good = |id: &&ReleaseId| releases.iter().any(|told| told.id == **id && told.condition == Condition::Ready);
    let before = history.iter().filter(|id| !is_live(id)).filter(good);
    let chain = before.chain(&remains.live).fold(Chain::default(), |chain, id| chain.activated(id));
    Account { tool, releases, chain, doubt }
}

impl Remains {
    fn tool(&self) -> Option<Tool> {
        let mut names = self.releases.iter().map(|remnant| remnant.id.as_str()).peekable();
        let some = names.peek().is_some();
        let numbered = some && names.clone().all(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        let stamped = some && names.all(|name| is_stamp(name.strip_suffix('Z').unwrap_or(name)));
        if self.releases_txt.is_some() || self.has(Mark::BuildComplete) {
            Some(Tool::Fabric)
        } else if self.revisions_log.is_some() {
            Some(Tool::Capistrano)
        } else if self.releases_log.is_some() {
            Some(Tool::Deployer)
        } else if self.last_version.is_some() || (numbered && !stamped) {
            Some(Tool::Mina)
        } else if stamped || self.has(Mark::Unfinished) {
            Some(Tool::Ansistrano)
        } else {
            None
        }
    }

    fn has(&self, mark: Mark) -> bool {
        self.releases.iter().any(|remnant| remnant.marks.contains(&mark))
    }

    fn is_live(&self, id: &ReleaseId) -> bool {
        self.live.as_ref() == Some(id)
    }

    /// The directories in the order of their names, numbers by their value.
    fn in_order(&self) -> Vec<&Remnant> {
        let mut releases: Vec<&Remnant> = self.releases.iter().collect();
        releases.sort_unstable_by(|a, b| by_name(&a.id, &b.id));
        releases
    }

    fn all_ready(&self) -> Vec<Told> {
        self.in_order().into_iter().map(|remnant| Told::new(&remnant.id, Condition::Ready)).collect()
    }

    /// What can be said where names are all there is: those before the live one were live in their order.
    fn by_names(&self, unfinished: impl Fn(&Remnant) -> Option<&'static str>) -> Reading {
        let condition = |remnant: &Remnant| unfinished(remnant).map_or(Condition::Ready, Condition::Incomplete);
        let releases: Vec<Told> =
            self.in_order().into_iter().map(|remnant| Told::new(&remnant.id, condition(remnant))).collect();
        let before = |id: &ReleaseId| self.live.as_ref().is_some_and(|live| by_name(id, live).is_lt());
        let history = releases.iter().map(|told| told.id.clone()).filter(before).collect();
        Reading { releases, history, doubt: None }
    }
}

/// By the number they begin with, then by the letter; those that begin with none come last.
fn by_name(a: &ReleaseId, b: &ReleaseId) -> Ordering {
    fn place(id: &ReleaseId) -> (bool, usize, &str, &str) {
        let name = id.as_str();
        let (number, rest) = name.split_at(name.bytes().take_while(u8::is_ascii_digit).count());
        let value = number.trim_start_matches('0');
        (number.is_empty(), value.len(), value, rest)
    }
    place(a).cmp(&place(b)).then_with(|| a.cmp(b))
}

/// `20261122234017`.
fn is_stamp(name: &str) -> bool {
    name.len() == 14 && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// The moment that a release's name tells.
fn moment_of(id: &ReleaseId) -> Option<Timestamp> {
    let name = id.as_str();
    if let Some(stamp) = name.get(..14).filter(|stamp| is_stamp(stamp)) {
        let part = |from: usize, to: usize| &stamp[from..to];
        let (day, time) = ((part(0, 4), part(4, 6), part(6, 8)), (part(8, 10), part(10, 12), part(12, 14)));
        let text = format!("{}-{}-{}T{}:{}:{}Z", day.0, day.1, day.2, time.0, time.1, time.2);
        return Timestamp::parse(&text);
    }
    name.get(..16).and_then(Timestamp::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remains of releases, each given as its name and the letters of its marks, of which the one with a star is live.
    pub(super) fn remains(releases: &[&str]) -> Remains {
        let mut remains = Remains::default();
        for text in releases {
            let mut words = text.split(' ');
            let id: ReleaseId = words.next().unwrap().parse().unwrap();
            let marks: Vec<&str> = words.collect();
            if marks.contains(&"*") {
                remains.live = Some(id.clone());
            }
            let mark = |word: &&str| match *word {
                "complete" => Some(Mark::BuildComplete),
                "revision" => Some(Mark::Revision),
                "bad" => Some(Mark::Bad),
                "unfinished" => Some(Mark::Unfinished),
                _ => None,
            };
            remains.releases.push(Remnant { id, marks: marks.iter().filter_map(mark).collect() });
        }
        remains
    }

    /// The releases with a letter for what they are, oldest first, and where a rollback would go.
    pub(super) fn told(remains: &Remains) -> (String, String) {
        let account = account(remains);
        let letter = |condition: &Condition| match condition {
            Condition::Ready => "",
            Condition::Incomplete(_) => "?",
            Condition::Bad(_) => "!",
        };
        let releases: Vec<String> =
            account.releases.iter().map(|told| format!("{}{}", told.id, letter(&told.condition))).collect();
        let chain: Vec<String> = account.chain.candidates(remains.live.as_ref()).map(ToString::to_string).collect();
        (releases.join(" "), chain.join(" "))
    }

    #[test]
    fn a_tree_without_any_sign_has_releases_and_no_history() {
        let remains = remains(&["b", "a *", "c"]);
        assert_eq!(account(&remains).tool, None);
        assert_eq!(told(&remains), ("a b c".into(), String::new()));
    }

    #[test]
    fn a_copy_beside_a_numbered_release_has_a_place_in_the_order() {
        let names: Vec<String> = (1..=40).flat_map(|n| [n.to_string(), format!("{n}-old"), format!("0{n}x")]).collect();
        let mut mixed: Vec<&str> = names.iter().map(String::as_str).collect();
        mixed.rotate_left(50);
        mixed[30..].reverse();
        let told = told(&remains(&mixed)).0;
        assert_eq!(told, names.join(" "));
    }

    #[test]
    fn the_name_tells_when_a_release_was_made() {
        let at = |name: &str| moment_of(&name.parse().unwrap()).map(|moment| moment.to_string());
        assert_eq!(at("20261122234017").as_deref(), Some("2026-11-22T23:40:17Z"));
        assert_eq!(at("20261122234017Z").as_deref(), Some("2026-11-22T23:40:17Z"));
        assert_eq!(at("2026-11-22_23.40").as_deref(), Some("2026-11-22T23:40:00Z"));
        assert_eq!((at("20269999999999"), at("17"), at("v1")), (None, None, None));
    }
}
